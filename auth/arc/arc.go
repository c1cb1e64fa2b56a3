package arc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
)

// The names of the fields of a set (RFC 8617 §4.1).
const (
	ResultsField   = "ARC-Authentication-Results"
	SignatureField = "ARC-Message-Signature"
	SealField      = "ARC-Seal"
)

// MaxSets is how many sets a chain may have (RFC 8617 §4.2.1).
const MaxSets = 50

// What can be wrong with a chain, beside what can be wrong with a signature or
// a key: the errors of package dkim.
var (
	// ErrStructure is a chain that is no chain: fields that are missing,
	// repeated or cannot be read, or a wrong cv= (RFC 8617 §5.2 step 3).
	ErrStructure = errors.New("arc: broken chain structure")
	// ErrMarked is a chain that a host on the way has found broken
	// (RFC 8617 §5.2 step 2).
	ErrMarked = errors.New("arc: chain was marked as failed before")
)

// Error says where a chain broke.
type Error struct {
	Instance int    // of the set; 0 = no one set
	Field    string // SealField, SignatureField, ResultsField; "" = no one field
	Err      error  // wraps ErrStructure, ErrMarked or an error of package dkim
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Field != "" {
		b.WriteString(e.Field + " ")
	}
	if e.Instance > 0 {
		b.WriteString("i=" + strconv.Itoa(e.Instance) + ": ")
	}
	return b.String() + e.Err.Error()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Chain is what became of the chain of a message.
type Chain struct {
	// Result is None (there is no chain), Pass or Fail. There is no TempError:
	// RFC 8617 §5.2.1 makes every failure permanent, that of the DNS too; Err
	// tells them apart. A chain that failed is to be treated as none.
	Result auth.Result
	// Err says why Result is Fail; it is an *Error, or dkim.ErrHeader.
	Err error
	// Sets are those of the message, the oldest first; nil when the structure
	// is broken. Nothing in them is to be believed unless Result is Pass.
	Sets []Set
	// OldestPass is the instance of the oldest signature that still holds, 0
	// when all do (RFC 8617 §5.2 step 5): what came before it was changed.
	OldestPass int
}

// Set is what one host has said (RFC 8617 §3.1).
type Set struct {
	Instance int
	// Domain and Selector are those of the seal: who has said it.
	Domain, Selector string
	// Status is cv=: what it found the chain before it to be.
	Status auth.Result
	Time   time.Time // t= of the seal, zero = not given
	// Results are what it found out about the message; nil when they do not
	// follow RFC 8601, which does no harm to the chain (RFC 8617 §3.4).
	Results *auth.AuthenticationResults
}

// Reason returns why the result is Fail in a few public words, "" otherwise.
func (c *Chain) Reason() string {
	var e *Error
	if !errors.As(c.Err, &e) {
		return (&dkim.Verification{Err: c.Err}).Reason()
	}
	words := (&dkim.Verification{Err: e.Err}).Reason()
	for _, err := range [...]error{ErrStructure, ErrMarked} {
		if errors.Is(e.Err, err) {
			words = strings.TrimPrefix(err.Error(), "arc: ")
		}
	}
	if e.Instance > 0 {
		words += " (i=" + strconv.Itoa(e.Instance) + ")"
	}
	return words
}

// MethodResult returns c for an Authentication-Results field (RFC 8617 §6). ip
// is the client's address; the zero Addr leaves it out.
func (c *Chain) MethodResult(ip netip.Addr) auth.MethodResult {
	m := auth.MethodResult{Method: "arc", Result: c.Result, Reason: c.Reason()}
	if c.Result == auth.Pass {
		m.Props = append(m.Props, auth.Property{Type: "header", Name: "oldest-pass", Value: strconv.Itoa(c.OldestPass)})
	}
	if ip.IsValid() {
		m.Props = append(m.Props, auth.Property{Type: "smtp", Name: "remote-ip", Value: ip.Unmap().WithZone("").String()})
	}
	return m
}

// String returns the chain in the words that DMARC reports have for it
// (RFC 8617 §7.2.2), on one line.
func (c *Chain) String() string {
	var b strings.Builder
	b.WriteString("arc=" + string(c.Result))
	if c.Result != auth.Pass {
		return b.String()
	}
	for _, s := range slices.Backward(c.Sets) {
		fmt.Fprintf(&b, " as[%d].d=%s as[%d].s=%s", s.Instance, s.Domain, s.Instance, s.Selector)
	}
	if ip, err := netip.ParseAddr(c.Sets[0].prop("arc", "smtp", "remote-ip")); err == nil {
		fmt.Fprintf(&b, " remote-ip[1]=%s", ip)
	}
	return b.String()
}

// prop returns a property of the first result of a method.
func (s *Set) prop(method, typ, name string) string {
	if s.Results == nil {
		return ""
	}
	for i := range s.Results.Results {
		if m := &s.Results.Results[i]; m.Method == method {
			return m.Prop(typ, name)
		}
	}
	return ""
}

// Vouches reports whether the chain passes, each of its sealers is trusted, and
// the first of them saw DMARC pass for an author domain: the case in which a
// receiver may take a message although its DMARC fails now (RFC 8617 §7.2.1).
// Each one has to be trusted because any of them could have changed the
// message, or invented what came before.
func (c *Chain) Vouches(author string, trusted func(sealer string) bool) bool {
	if c == nil || c.Result != auth.Pass || len(c.Sets) == 0 {
		return false
	}
	for i := range c.Sets {
		if !trusted(c.Sets[i].Domain) {
			return false
		}
	}
	first := c.Sets[0].Results
	if first == nil {
		return false
	}
	passed := false
	for i := range first.Results {
		if m := &first.Results[i]; m.Method == "dmarc" {
			if m.Result != auth.Pass || !strings.EqualFold(strings.TrimSuffix(m.Prop("header", "from"), "."), author) {
				return false // of several authors each one has to pass
			}
			passed = true
		}
	}
	return passed
}
