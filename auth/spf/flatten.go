package spf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postrider/postrider/auth"
)

// Flatten returns a record that means the same as the one surveyed and needs
// fewer lookups: include, a and mx have become the networks that they stand
// for now, as few as possible. What depends on the message, or could not be
// looked up, stays as it is, in its place, and the problems say why.
//
// The networks of others change without notice: a flat record has to be made
// again often.
func (s *Survey) Flatten() (*Record, []Problem) {
	f := flattener{out: &Record{}}
	if s.root != nil {
		f.node(s.root)
		f.flush()
	}
	return f.out, f.problems
}

type flattener struct {
	out      *Record
	problems []Problem
	run      Mechanism // the result of what is gathered
	gathered ranges
	before   ranges // what cannot reach a later term
}

func (f *flattener) node(n *node) {
	r := n.record
	for i := range r.Mechanisms {
		m := &r.Mechanisms[i]
		if m.Name == "all" {
			f.flush()
			f.out.Mechanisms = append(f.out.Mechanisms, *m)
			f.modifiers(r, r.Exp)
			return
		}
		nets, why := n.terms[i].networks()
		if why != "" {
			f.flush()
			f.out.Mechanisms = append(f.out.Mechanisms, *m)
			f.kept(n, m.text, why)
			continue
		}
		if m.Result != f.run.Result {
			f.flush()
			f.run.Result = m.Result
		}
		f.gathered = append(f.gathered, nets...)
	}
	if r.Redirect == "" {
		f.modifiers(r, r.Exp)
		return
	}
	// Where anything in it has to stay as it is, all of it has: it may
	// speak of its own domain.
	why := n.next.why
	exp := ""
	if why == "" {
		var ok bool
		if _, why = n.next.networks(); why == "" {
			if exp, ok = expAt(n.next.child); !ok {
				why = "its explanation depends on the message"
			}
		}
	}
	if why != "" {
		f.flush()
		f.out.Redirect = r.Redirect
		f.modifiers(r, r.Exp)
		f.kept(n, "redirect="+r.Redirect, why)
		return
	}
	f.node(n.next.child)
	f.out.Exp = exp // that of a redirecting record does not count (RFC 7208 §6.2)
}

// expAt returns the domain-spec of the explanation at the end of a chain of
// redirects, as it has to be written in another domain.
func expAt(n *node) (string, bool) {
	for n.record.Redirect != "" && !slices.ContainsFunc(n.record.Mechanisms, func(m Mechanism) bool { return m.Name == "all" }) {
		n = n.next.child
	}
	if !strings.ContainsAny(macroLetters(n.record.Exp), "dp") {
		return n.record.Exp, true
	}
	name, why := static(n.record.Exp, n.domain)
	return name, why == "" && validDomainSpec(name)
}

func (f *flattener) modifiers(r *Record, exp string) {
	f.out.Exp = exp
	f.out.Modifiers = append(f.out.Modifiers, r.Modifiers...)
}

func (f *flattener) kept(n *node, term, why string) {
	f.problems = append(f.problems, Problem{Dynamic, n.domain, fmt.Sprintf("%.100s", term), false, "cannot be made flat: " + why})
}

// flush writes the networks that were gathered.
func (f *flattener) flush() {
	f.gathered.normalize()
	for _, p := range f.gathered.prefixes() {
		if f.before.covers(p) {
			continue // an earlier term has all of it
		}
		m := Mechanism{Result: f.run.Result, Name: "ip4", Network: p, Bits4: 32, Bits6: 128}
		if p.Addr().Is6() {
			m.Name = "ip6"
		}
		f.out.Mechanisms = append(f.out.Mechanisms, m)
	}
	f.before = append(f.before, f.gathered...)
	f.before.normalize()
	f.gathered = nil
}

// networks returns what a term matches, or why that cannot be known.
func (r *resolved) networks() (ranges, string) {
	if r.why != "" {
		return nil, r.why
	}
	if r.child != nil {
		return r.child.passes()
	}
	out := make(ranges, 0, len(r.nets))
	for _, p := range r.nets {
		out = append(out, spanOf(p))
	}
	return out, ""
}

// passes returns the addresses for which a record gives pass, whatever the
// message.
func (n *node) passes() (ranges, string) {
	if n.known {
		return n.pass, n.why
	}
	n.known = true
	var decided, pass ranges
	for i := range n.record.Mechanisms {
		m := &n.record.Mechanisms[i]
		if m.Name == "all" {
			if m.Result == auth.Pass {
				pass = append(pass, everything().minus(decided)...)
			}
			pass.normalize()
			n.pass = pass
			return n.pass, ""
		}
		nets, why := n.terms[i].networks()
		if why != "" {
			n.why = fmt.Sprintf("%.100s of %s %s", m.text, n.domain, why)
			return nil, n.why
		}
		nets = slices.Clone(nets)
		nets.normalize()
		if m.Result == auth.Pass {
			pass = append(pass, nets.minus(decided)...)
		}
		decided = append(decided, nets...)
		decided.normalize()
	}
	if n.record.Redirect != "" {
		nets, why := n.next.networks()
		if why != "" {
			n.why = fmt.Sprintf("redirect=%.100s of %s %s", n.record.Redirect, n.domain, why)
			return nil, n.why
		}
		pass = append(pass, nets.minus(decided)...)
	}
	pass.normalize()
	n.pass = pass
	return n.pass, ""
}
