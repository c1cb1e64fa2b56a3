package verify

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/authtest"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/spf"
)

func run(t testing.TB, v *Verifier, s Source, msg string) *Result {
	t.Helper()
	p := v.Begin(t.Context(), s)
	defer p.Close()
	io.WriteString(p, msg)
	r, err := p.Result()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestVerdict(t *testing.T) {
	w := authtest.New("example.org", "example.net")
	w.Zone["_dmarc.quarantine.example"] = []string{"TXT v=DMARC1; p=quarantine"}
	w.Zone["_dmarc.test.example"] = []string{"TXT v=DMARC1; p=quarantine; t=y"}
	w.Zone["_dmarc.broken.example"] = []string{"SERVFAIL"}
	w.Zone["test.example"] = []string{"A 192.0.2.1"}
	stranger := Source(w.Source("nobody.example"))
	for from, want := range map[string]Verdict{
		"example.org":        {Reject, "DMARC failed for example.org", ""},
		"quarantine.example": {Quarantine, "DMARC failed for quarantine.example", ""},
		"test.example":       {Action: Accept},
		"broken.example":     {Action: Accept},
		"nobody.example":     {Action: Accept},
		"a.example>, <a@b.example>, <a@c.example>, <a@d.example>, <a@e.example": {Reject, "Too many author domains in From", ""},
	} {
		r := run(t, &Verifier{Resolver: w.Zone}, stranger, w.Message(from))
		if r.Verdict != want || r.Source != stranger || r.Header.Get("Subject") != "Lunch" || r.ARC != nil {
			t.Errorf("%s: %+v, want %+v", from, r.Verdict, want)
		}
	}
	// One's own policy gets all that is known, and a context that is alive.
	called := 0
	v := &Verifier{Resolver: w.Zone, Policy: func(ctx context.Context, r *Result) Verdict {
		called++
		if ctx.Err() != nil || r.DMARC == nil || r.SPF == nil || r.IPRev == nil || len(r.AuthenticationResults.Results) == 0 {
			t.Errorf("%v, %+v", ctx.Err(), r)
		}
		if strings.Contains(r.Header.Get("Subject"), "Lunch") {
			return Verdict{Action: Quarantine, Reason: "no lunch", Override: "other"}
		}
		return Verdict{}
	}}
	p := v.Begin(t.Context(), stranger)
	defer p.Close()
	io.WriteString(p, w.Message("example.org"))
	for range 2 {
		if r, err := p.Result(); err != nil || r.Verdict != (Verdict{Quarantine, "no lunch", "other"}) {
			t.Errorf("%+v, %v", r.Verdict, err)
		}
	}
	if r := run(t, v, stranger, "From: a@example.org\r\n\r\n"); r.Verdict != (Verdict{Action: Accept}) || called != 2 {
		t.Errorf("%+v, called %d times", r.Verdict, called)
	}
}

// TestSettings: the settings of the parts get there, and their resolvers count.
func TestSettings(t *testing.T) {
	w := authtest.New("example.org", "example.net")
	msg := sign(t, w, sign(t, w, w.Message("example.org"), "example.org"), "example.net")
	source := Source(w.Source("example.org"))
	late := func() time.Time { return time.Now().Add(-time.Hour) }
	v := &Verifier{Resolver: w.Zone, DKIM: &dkim.Verifier{MaxSignatures: 1, Now: late}}
	if r := run(t, v, source, msg); len(r.DKIM) != 1 || !errors.Is(r.DKIM[0].Err, dkim.ErrFuture) {
		t.Errorf("%+v", r.DKIM)
	}
	if v.DKIM.Resolver != nil {
		t.Error("the settings were changed")
	}
	v = &Verifier{Resolver: w.Zone, SPF: &spf.Checker{Resolver: authtest.Zone{}, Receiver: "mx"}}
	if r := run(t, v, source, msg); r.SPF.Result != auth.None || r.SPF.Receiver != "mx" || r.IPRev.Result != auth.Pass {
		t.Errorf("%+v", r.SPF)
	}
	v = &Verifier{Resolver: w.Zone, DMARC: &dmarc.Evaluator{Organizational: func(d string) string { return d }}}
	if r := run(t, v, source, msg); r.DMARC.Method != dmarc.PublicSuffixList || r.DMARC.Result != auth.Pass {
		t.Errorf("%+v", r.DMARC)
	}
	none := authtest.Zone{}
	v = &Verifier{Resolver: w.Zone, DKIM: &dkim.Verifier{Resolver: none}, DMARC: &dmarc.Evaluator{Resolver: none}}
	if r := run(t, v, source, msg); !errors.Is(r.DKIM[0].Err, dkim.ErrKeyMissing) || r.DMARC.Result != auth.None || r.SPF.Result != auth.Pass {
		t.Errorf("%s", &r.AuthenticationResults)
	}
}

// TestARC: a list breaks what the author signed, and its seal saves the message
// with those who trust it.
func TestARC(t *testing.T) {
	w := authtest.New("example.org", "list.example", "mx.example")
	posted := sign(t, w, w.Message("example.org"), "example.org")
	list := &Verifier{Resolver: w.Zone, AuthServID: "mail.list.example", ARC: new(arc.Verifier)}
	first := run(t, list, Source(w.Source("example.org")), posted)
	if first.ARC == nil || first.ARC.Result != auth.None || first.Verdict.Action != Accept {
		t.Fatalf("%+v", first)
	}
	changed := strings.Replace(posted, "Subject: ", "Subject: [list] ", 1)
	s, err := arc.NewSealer(arc.SealOptions{Domain: "list.example", Selector: authtest.Selector, Key: w.Key("list.example")})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, changed)
	set, err := s.Seal(first.AuthenticationResults)
	if err != nil {
		t.Fatal(err)
	}
	trust := func(sealer string) bool { return sealer == "list.example" }
	v := &Verifier{Resolver: w.Zone, AuthServID: "mx.example", ARC: new(arc.Verifier), Policy: func(ctx context.Context, r *Result) Verdict {
		if r.DMARC.Result == auth.Fail && r.ARC.Vouches(r.DMARC.Domain, trust) {
			return Verdict{Action: Accept, Reason: "a list we trust", Override: "trusted_forwarder"}
		}
		return DMARCPolicy(ctx, r)
	}}
	source := Source(w.Source("list.example"))
	for _, c := range []struct {
		msg    string
		arc    auth.Result
		action Action
	}{{set + changed, auth.Pass, Accept}, {changed, auth.None, Reject}, {set + strings.Replace(changed, "noon", "one", 1), auth.Fail, Reject}} {
		r := run(t, v, source, c.msg)
		if r.ARC.Result != c.arc || r.DMARC.Result != auth.Fail || r.Verdict.Action != c.action {
			t.Errorf("%+v: %s", r.Verdict, &r.AuthenticationResults)
		}
		field := r.AuthenticationResults.String()
		if !strings.Contains(field, "arc="+string(c.arc)) || !strings.Contains(field, "smtp.remote-ip="+source.IP.String()) {
			t.Error(field)
		}
	}
	if r := run(t, &Verifier{Resolver: w.Zone}, source, set+changed); r.ARC != nil || strings.Contains(r.AuthenticationResults.String(), " arc=") {
		t.Errorf("ARC was looked at unasked: %s", &r.AuthenticationResults)
	}
	// Slow DNS does not slow Write here either, and nothing is left running.
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := (&Verifier{Resolver: &zone{w.Zone, time.Hour}, ARC: new(arc.Verifier)}).Begin(context.Background(), source)
		io.WriteString(p, set+changed)
		if r, err := p.Result(); err != nil || !errors.Is(r.ARC.Err, dkim.ErrKeyLookup) || time.Since(begin) != 20*time.Second {
			t.Errorf("%v, %v", r, err)
		}
		p = (&Verifier{Resolver: &zone{w.Zone, time.Hour}, ARC: new(arc.Verifier)}).Begin(context.Background(), source)
		io.WriteString(p, set+changed)
		p.Close()
	})
}
