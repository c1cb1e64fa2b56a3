package delivery

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/authtest"
	"github.com/postrider/postrider/auth/verify"
)

// sealing is a Target that puts a seal on what it is given, as a mailing list
// does.
type sealing struct {
	t    *testing.T
	w    *authtest.World
	junk bool
	out  string
}

func (s *sealing) Deliver(ctx context.Context, in *Inbound) []error {
	seal, err := arc.NewSealer(arc.SealOptions{Domain: "example.org", Selector: authtest.Selector, Key: s.w.Key("example.org")})
	if err != nil {
		return []error{err}
	}
	body, err := io.ReadAll(io.NewSectionReader(in.Body, 0, in.Body.Size()))
	if err != nil {
		return []error{err}
	}
	seal.Write(body)
	set, err := seal.Seal(in.Auth.AuthenticationResults)
	s.junk, s.out = in.Junk, set+string(body)
	return []error{err}
}

// TestVerdict: the Verifier's policy is what DMARC does, and what was found out
// can be sealed as it is.
func TestVerdict(t *testing.T) {
	w := authtest.New("example.org")
	_, rcpt := mailboxes(t, "alice")
	target := &sealing{t: t, w: w}
	v := &verify.Verifier{Resolver: w.Zone, ARC: new(arc.Verifier), Policy: func(_ context.Context, r *verify.Result) verify.Verdict {
		switch subject := r.Header.Get("Subject"); {
		case strings.Contains(subject, "refuse"):
			return verify.Verdict{Action: verify.Reject, Reason: "We do not like it"}
		case strings.Contains(subject, "silent"):
			return verify.Verdict{Action: verify.Reject}
		case strings.Contains(subject, "junk"):
			return verify.Verdict{Action: verify.Quarantine}
		}
		return verify.Verdict{}
	}}
	c := dial(t, &Backend{Recipients: rcpt, Target: target, Verifier: v, Policy: DMARC, AuthServID: "mx.example.org", Log: quiet()}, false)
	for subject, want := range map[string]string{"refuse": "550 5.7.1 We do not like it", "silent": "550 5.7.1 Refused by policy", "junk": "250", "fine": "250"} {
		c.mail("alice")
		c.data("From: a@example.com\r\nSubject: "+subject+"\r\n\r\nHi\r\n", want)
		if want != "250" {
			continue
		}
		if target.junk != (subject == "junk") {
			t.Errorf("%s: junk %v", subject, target.junk)
		}
		p := (&arc.Verifier{Resolver: w.Zone}).Begin(t.Context())
		io.WriteString(p, target.out)
		chain, err := p.Result()
		p.Close()
		if err != nil || chain.Result != auth.Pass || chain.Sets[0].Results.AuthServID != "mx.example.org" {
			t.Errorf("%s: %+v, %v", subject, chain, err)
		}
	}
}
