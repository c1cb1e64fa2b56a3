package verify

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// ErrClosed is what Result returns after Close.
var ErrClosed = errors.New("verify: pass is closed")

// Resolver looks up what the checks need; *net.Resolver is one. See package
// auth for how its errors are read. It has to obey its context: Result and
// Close wait for it.
type Resolver = spf.Resolver

// Verifier verifies messages. It may be used from several goroutines at once.
type Verifier struct {
	Resolver Resolver // nil = net.DefaultResolver
	// AuthServID is one's own name in Authentication-Results (RFC 8601 §2.5);
	// "" leaves it to be set in the result.
	AuthServID string
	// SPF, DKIM and DMARC are the settings of these checks; nil = the
	// defaults. ARC has the chain of the message validated, which is not done
	// otherwise. A Resolver of theirs, when it is set, is asked instead of
	// ours.
	SPF   *spf.Checker
	DKIM  *dkim.Verifier
	DMARC *dmarc.Evaluator
	ARC   *arc.Verifier
	// Policy says what is to be done with a message when all the rest of its
	// Result is known; it must not change that. nil = DMARCPolicy.
	Policy func(ctx context.Context, r *Result) Verdict
	// Timeout is how long Result waits at most for the lookups that have
	// not ended while the message came in; 0 = 20 s, negative = no limit
	// but that of the context. What is missing then is TempError.
	Timeout time.Duration
}

// Source is where a message comes from. Without an IP (a message that is
// submitted, or comes over LMTP) there is no SPF and no reverse name.
type Source struct {
	IP    netip.Addr
	Hello string       // the argument of EHLO
	From  smtp.Address // of MAIL
}

// Result is what was found out about a message.
type Result struct {
	Source Source
	// Header is that of the message, as received; empty when it is too large.
	Header mime.Header
	SPF    *spf.Evaluation     // of the MAIL FROM identity; nil without an IP
	IPRev  *IPRev              // nil without an IP
	DKIM   []dkim.Verification // from the top of the header down, none when unsigned
	DMARC  *dmarc.Evaluation   // never nil; its Disposition is what the author's domain asks for
	// ARC is what became of the chain, nil when Verifier.ARC does not ask. A
	// chain that passes means nothing unless its sealers are trusted: see
	// arc.Chain.Vouches.
	ARC *arc.Chain
	// AuthenticationResults is the field to add to the message, and what a
	// Sealer of package arc seals.
	AuthenticationResults auth.AuthenticationResults
	// Verdict is what Policy says is to be done.
	Verdict Verdict
}

// Begin begins one message, at its MAIL: SPF and the reverse name are looked
// up from now on. ctx bounds all lookups.
func (v *Verifier) Begin(ctx context.Context, s Source) *Pass {
	p := &Pass{v: v, source: s, parent: ctx, resolver: v.Resolver}
	ctx, p.cancel = context.WithCancel(ctx)
	p.ctx = ctx
	if p.resolver == nil {
		p.resolver = net.DefaultResolver
	}
	var settings dkim.Verifier
	if v.DKIM != nil {
		settings = *v.DKIM
	}
	if settings.Resolver == nil {
		settings.Resolver = p.resolver
	}
	p.dkim = settings.Begin(ctx)
	if v.ARC != nil {
		settings := *v.ARC
		if settings.Resolver == nil {
			settings.Resolver = p.resolver
		}
		p.arc = settings.BeginWith(ctx, p.dkim)
	}
	if s.IP.IsValid() {
		c := spf.Checker{Receiver: v.AuthServID, Timeout: -1} // ours is for all
		if v.SPF != nil {
			c = *v.SPF
		}
		if c.Resolver == nil {
			c.Resolver = p.resolver
		}
		p.wg.Go(func() { p.spf = c.Check(ctx, spf.Source(s)) })
		p.wg.Go(func() { p.iprev = iprev(ctx, p.resolver, s.IP) })
	}
	return p
}

// Pass verifies one message: write the message to it, call Result, and Close
// in any case. It is not for concurrent use.
type Pass struct {
	v        *Verifier
	source   Source
	parent   context.Context // of Begin
	ctx      context.Context
	cancel   context.CancelFunc
	resolver Resolver
	dkim     *dkim.Pass
	arc      *arc.Pass // nil = not asked for
	wg       sync.WaitGroup
	header   mime.Header
	asked    bool // for the policy
	closed   bool
	result   *Result
	err      error

	// Written by the goroutines of wg.
	spf    *spf.Evaluation
	iprev  *IPRev
	policy *dmarc.Discoveries

	// fromErr is what was wrong with From.
	fromErr error
}

// Write takes the next piece of the message, as it was received. It neither
// fails nor waits for the DNS.
func (p *Pass) Write(b []byte) (int, error) {
	n, err := p.dkim.Write(b)
	if p.arc != nil {
		p.arc.Write(b)
	}
	if !p.asked && p.dkim.Header() != nil {
		p.discover(p.dkim.Header())
	}
	return n, err
}

// discover sends for the policies of the author domains.
func (p *Pass) discover(header []byte) {
	p.asked = true
	if p.closed {
		return
	}
	p.header = mime.ParseHeader(header)
	var authors []string
	authors, p.fromErr = dmarc.AuthorDomains(&p.header)
	e := dmarc.Evaluator{Resolver: p.resolver}
	if p.v.DMARC != nil {
		if e = *p.v.DMARC; e.Resolver == nil {
			e.Resolver = p.resolver
		}
	}
	p.wg.Go(func() { p.policy = e.DiscoverAll(p.ctx, authors) })
}

// Result ends the message, waits for the lookups as long as Timeout allows,
// and returns what was found out. The error is ErrClosed, or dkim.ErrHeader
// beside a Result without DKIM and with a DMARC of PermError. Calls after the
// first return the same.
func (p *Pass) Result() (*Result, error) {
	if p.result != nil {
		return p.result, p.err
	}
	if p.closed {
		return nil, ErrClosed
	}
	timeout := p.v.Timeout
	if timeout == 0 {
		timeout = 20 * time.Second
	}
	if timeout > 0 {
		defer time.AfterFunc(timeout, p.cancel).Stop()
	}
	r := &Result{Source: p.source}
	if !p.asked {
		p.discover(p.dkim.End())
	}
	r.DKIM, p.err = p.dkim.Results()
	if p.arc != nil {
		r.ARC, _ = p.arc.Result() // its error is that of DKIM
	}
	p.wg.Wait()
	r.Header, r.SPF, r.IPRev = p.header, p.spf, p.iprev
	r.DMARC = p.evaluate(r)
	p.cancel()
	r.AuthenticationResults = p.field(r)
	policy := p.v.Policy
	if policy == nil {
		policy = DMARCPolicy
	}
	if r.Verdict = policy(p.parent, r); r.Verdict.Action == "" {
		r.Verdict.Action = Accept
	}
	p.result = r
	return r, p.err
}

// evaluate holds SPF and DKIM against the policies that were found.
func (p *Pass) evaluate(r *Result) *dmarc.Evaluation {
	var ids dmarc.Identifiers
	if r.SPF != nil {
		ids.SPF = dmarc.Identifier{Result: r.SPF.Result, Domain: r.SPF.Domain}
	}
	for i := range r.DKIM {
		ids.DKIM = append(ids.DKIM, dmarc.Identifier{Result: r.DKIM[i].Result, Domain: r.DKIM[i].Signature.Domain})
	}
	ev := p.policy.Evaluate(p.ctx, ids)
	if p.fromErr != nil && ev.Result != auth.Fail && ev.Result != auth.TempError {
		// Something in From cannot be read: what can does not speak for it.
		ev.Result, ev.Err, ev.Disposition = auth.PermError, p.fromErr, dmarc.NoPolicy
	}
	return ev
}

func (p *Pass) field(r *Result) auth.AuthenticationResults {
	a := auth.AuthenticationResults{AuthServID: p.v.AuthServID}
	a.Results = make([]auth.MethodResult, 0, 5+len(r.DKIM))
	for i := range r.DKIM {
		a.Results = append(a.Results, r.DKIM[i].MethodResult())
	}
	if len(r.DKIM) == 0 && p.err == nil {
		a.Results = append(a.Results, auth.MethodResult{Method: "dkim", Result: auth.None})
	}
	if r.SPF != nil {
		a.Results = append(a.Results, r.SPF.MethodResult())
	}
	a.Results = append(a.Results, r.DMARC.MethodResult())
	if r.IPRev != nil {
		a.Results = append(a.Results, r.IPRev.MethodResult(p.source.IP))
	}
	if r.ARC != nil {
		a.Results = append(a.Results, r.ARC.MethodResult(p.source.IP))
	}
	return a
}

// Close ends what is still being looked up and waits for it; after RSET or a
// cut connection it is all that is called. Closing twice does no harm, nor
// closing after Result.
func (p *Pass) Close() error {
	p.closed = true
	p.cancel()
	p.dkim.Close()
	if p.arc != nil {
		p.arc.Close()
	}
	p.wg.Wait()
	return nil
}
