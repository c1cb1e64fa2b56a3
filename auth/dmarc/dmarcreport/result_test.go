package dmarcreport

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/authtest"
	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/verify"
)

// TestFromResult counts and reports messages as auth/verify decided about them.
func TestFromResult(t *testing.T) {
	w := authtest.New("example.org", "list.example")
	w.Zone["_dmarc.example.org"] = []string{"TXT v=DMARC1; p=reject; rua=mailto:a@example.org; ruf=mailto:f@example.org; fo=1"}
	w.Zone["_dmarc.test.example"] = []string{"TXT v=DMARC1; p=reject; t=y; rua=mailto:a@test.example"}
	s, err := arc.NewSealer(arc.SealOptions{Domain: "list.example", Selector: authtest.Selector, Key: w.Key("list.example")})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, w.Message("example.org"))
	set, err := s.Seal(auth.AuthenticationResults{AuthServID: "mail.list.example"})
	if err != nil {
		t.Fatal(err)
	}
	say := func(v verify.Verdict) func(context.Context, *verify.Result) verify.Verdict {
		return func(context.Context, *verify.Result) verify.Verdict { return v }
	}
	sealed := "by list.example arc=pass as[1].d=list.example as[1].s=test"
	for name, c := range map[string]struct {
		from, set   string
		policy      func(context.Context, *verify.Result) verify.Verdict
		disposition string
		delivery    string
		reasons     []Reason
	}{
		"as asked for":       {from: "example.org", disposition: "reject", delivery: "reject"},
		"test mode":          {from: "test.example", disposition: "quarantine", delivery: "spam", reasons: []Reason{{TestMode, ""}}},
		"milder":             {from: "example.org", policy: say(verify.Verdict{Action: verify.Quarantine, Reason: "why"}), disposition: "quarantine", delivery: "spam", reasons: []Reason{{LocalPolicy, "why"}}},
		"accepted":           {from: "example.org", policy: say(verify.Verdict{}), disposition: "none", delivery: "delivered", reasons: []Reason{{LocalPolicy, ""}}},
		"unknown words":      {from: "example.org", policy: say(verify.Verdict{Override: "moon phase"}), disposition: "none", delivery: "delivered", reasons: []Reason{{Other, ""}}},
		"a trusted list":     {from: "example.org", set: set, policy: say(verify.Verdict{Reason: "by list.example", Override: "trusted_forwarder"}), disposition: "none", delivery: "delivered", reasons: []Reason{{TrustedForwarder, sealed}}},
		"sealed and refused": {from: "example.org", set: set, disposition: "reject", delivery: "reject"},
	} {
		v := &verify.Verifier{Resolver: w.Zone, ARC: new(arc.Verifier), Policy: c.policy}
		p := v.Begin(t.Context(), verify.Source(w.Source("elsewhere.example")))
		io.WriteString(p, c.set+w.Message(c.from))
		r, err := p.Result()
		p.Close()
		if err != nil {
			t.Fatal(err)
		}
		m := FromResult(r)
		m.Time = noon
		storage := new(Memory)
		if err := (&Collector{Storage: storage}).Add(t.Context(), m.Message); err != nil {
			t.Fatal(err)
		}
		keys, err := storage.Due(t.Context(), noon.AddDate(0, 0, 1))
		if err != nil || len(keys) != 1 {
			t.Fatalf("%s: %v, %v", name, keys, err)
		}
		_, records, err := storage.Load(t.Context(), keys[0])
		if err != nil || len(records) != 1 {
			t.Fatalf("%s: %v, %v", name, records, err)
		}
		row := records[0]
		if row.Source != r.Source.IP || row.Disposition != c.disposition || row.DKIM != auth.Fail || row.SPF != auth.Fail || row.HeaderFrom != c.from ||
			len(row.Reasons) != len(c.reasons) || len(c.reasons) > 0 && row.Reasons[0] != c.reasons[0] {
			t.Errorf("%s: %+v", name, row)
		}
		if m.DeliveryResult != c.delivery || !strings.Contains(m.Header.Get("Subject"), "Lunch") {
			t.Errorf("%s: %+v", name, m)
		}
		if Wanted(&m.Message) != (c.from == "example.org") {
			t.Errorf("%s: a failure report is wanted: %v", name, Wanted(&m.Message))
		}
	}
	// What passes, and what cannot be said, is nobody's decision.
	for from, want := range map[string]auth.Result{"example.org": auth.Pass, "list.example": auth.TempError} {
		w.Zone["_dmarc.list.example"] = []string{"SERVFAIL"}
		p := (&verify.Verifier{Resolver: w.Zone, Policy: say(verify.Verdict{Action: verify.Reject})}).Begin(t.Context(), verify.Source(w.Source(from)))
		io.WriteString(p, w.Message(from))
		r, err := p.Result()
		p.Close()
		if m := FromResult(r); err != nil || r.DMARC.Result != want || m.Reasons != nil || m.Applied != dmarc.Reject {
			t.Errorf("%+v, %v", m, err)
		}
	}
}
