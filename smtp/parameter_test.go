package smtp

import (
	"errors"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func TestDeliverBy(t *testing.T) {
	for _, tt := range []struct {
		in         string
		left       time.Duration
		ret, trace bool
		out        string // "" = malformed
	}{
		{"120;R", 120 * time.Second, true, false, "120;R"},
		{"+120;r", 120 * time.Second, true, false, "120;R"},
		{"60;RT", 60 * time.Second, true, true, "60;RT"},
		{"0;N", 0, false, false, "0;N"},
		{"-15;NT", -15 * time.Second, false, true, "-15;NT"},
		{"999999999;N", 999999999 * time.Second, false, false, "999999999;N"},
		{in: "0;R"}, {in: "-1;R"}, {in: "1000000000;N"}, {in: "5"}, {in: ";N"}, {in: "5;"}, {in: "5;X"}, {in: "5;NR"}, {in: "--5;N"}, {in: "1e3;N"}, {in: ""},
	} {
		at, ret, trace, err := ParseDeliverBy(tt.in, noon)
		if tt.out == "" {
			if !errors.Is(err, ErrParameter) {
				t.Errorf("%q: error %v", tt.in, err)
			}
			continue
		}
		if err != nil || at.Sub(noon) != tt.left || ret != tt.ret || trace != tt.trace {
			t.Errorf("%q: %v %v %v %v", tt.in, at.Sub(noon), ret, trace, err)
		}
		o := MailOptions{DeliverBy: at, ByReturn: ret, ByTrace: trace}
		if s := o.DeliverByValue(noon); s != tt.out {
			t.Errorf("%q: written as %q", tt.in, s)
		}
	}
	if s := new(MailOptions).DeliverByValue(noon); s != "" {
		t.Errorf("none: %q", s)
	}
}

func TestFutureRelease(t *testing.T) {
	if d, err := ParseHoldFor("3600"); d != time.Hour || err != nil {
		t.Error(d, err)
	}
	for _, bad := range []string{"", "0", "-1", "1.5", "1234567890"} {
		if _, err := ParseHoldFor(bad); !errors.Is(err, ErrParameter) {
			t.Errorf("HOLDFOR=%s: %v", bad, err)
		}
	}
	at, err := ParseHoldUntil("2026-11-25T13:00:00+01:00")
	if err != nil || !at.Equal(noon) {
		t.Error(at, err)
	}
	for _, bad := range []string{"", "2026-11-25", "2026-11-25T12:00:00", "2026-11-25T12:00:00.5Z", "2026-13-25T12:00:00Z", "tomorrow"} {
		if _, err := ParseHoldUntil(bad); !errors.Is(err, ErrParameter) {
			t.Errorf("HOLDUNTIL=%s: %v", bad, err)
		}
	}
	o := MailOptions{HoldUntil: noon.Add(time.Millisecond)}
	if s := o.HoldUntilValue(); s != "2026-11-25T12:00:01Z" {
		t.Errorf("released early: %s", s)
	}
	s := FormatFutureRelease(24*time.Hour, noon)
	longest, latest, err := ParseFutureRelease(s)
	if s != "86400 2026-11-25T12:00:00Z" || longest != 24*time.Hour || !latest.Equal(noon) || err != nil {
		t.Error(s, longest, latest, err)
	}
	for _, bad := range []string{"", "86400", "x 2026-11-25T12:00:00Z"} {
		if _, _, err := ParseFutureRelease(bad); err == nil {
			t.Errorf("FUTURERELEASE %s", bad)
		}
	}
}

func TestPriority(t *testing.T) {
	for s, want := range map[string]int8{"0": 0, "9": 9, "-9": -9, "-1": -1} {
		if got, err := ParsePriority(s); got != want || err != nil {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, bad := range []string{"", "-", "+1", "10", "-0", "--1", "a", "1 "} {
		if _, err := ParsePriority(bad); !errors.Is(err, ErrParameter) {
			t.Errorf("%q taken", bad)
		}
	}
}

func TestSolicit(t *testing.T) {
	for _, s := range []string{"org.example:ADV:ADLT", "net.example:ADV,a", "a_b-9"} {
		if got, err := ParseSolicit(s); got != s || err != nil {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, bad := range []string{"", ",", "a,,b", "9a", "a b", "a;b", "a\n", strings.Repeat("a", 1001)} {
		if _, err := ParseSolicit(bad); !errors.Is(err, ErrParameter) {
			t.Errorf("%q taken", bad)
		}
	}
}

func TestValidSince(t *testing.T) {
	for _, tt := range []struct {
		in, out string
		c       bool
	}{
		{"2026-11-25T12:00:00Z", "2026-11-25T12:00:00Z", false},
		{"2026-11-25t13:00:00+01:00;R", "2026-11-25T12:00:00Z", false},
		{"2026-11-25T12:00:00Z;c", "2026-11-25T12:00:00Z;C", true},
	} {
		at, c, err := ParseValidSince(tt.in)
		o := RcptOptions{ValidSince: at, RelayUnchecked: c}
		if err != nil || c != tt.c || !at.Equal(noon) || o.ValidSinceValue() != tt.out {
			t.Errorf("%s: %v %v %v %s", tt.in, at, c, err, o.ValidSinceValue())
		}
	}
	for _, bad := range []string{"", ";C", "2026-11-25T12:00:00Z;", "2026-11-25T12:00:00Z;X", "2026-11-25T12:00:00.25Z"} {
		if _, _, err := ParseValidSince(bad); !errors.Is(err, ErrParameter) {
			t.Errorf("%q taken", bad)
		}
	}
}

func TestLimits(t *testing.T) {
	for in, want := range map[string]Limits{
		"":                                     {},
		"RCPTMAX=20":                           {RcptMax: 20},
		"mailmax=5 RCPTMAX=20 RCPTDOMAINMAX=1": {5, 20, 1},
		"RCPTMAX=0 MAILMAX=x OTHER=3 RCPTDOMAINMAX=1234567 RCPTMAX": {},
	} {
		if got := ParseLimits(in); got != want {
			t.Errorf("%q: %+v", in, got)
		}
		if got := ParseLimits(want.String()); got != want {
			t.Errorf("round trip of %+v: %+v", want, got)
		}
	}
}

func TestNotify(t *testing.T) {
	for _, s := range []string{"NEVER", "SUCCESS", "FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"} {
		n, err := ParseNotify(strings.ToLower(s))
		if err != nil || n.String() != s {
			t.Errorf("%s: %v, %v", s, n, err)
		}
	}
	for _, bad := range []string{"", "NEVER,DELAY", "SUCCESS,", "WHENEVER"} {
		if _, err := ParseNotify(bad); !errors.Is(err, ErrParameter) {
			t.Errorf("%q taken", bad)
		}
	}
}

func TestAttributes(t *testing.T) {
	list, err := ParseAttributes("name=spike.example ADDR=192.0.2.1 HELO=a+20b LOGIN=[UNAVAILABLE]")
	if err != nil || len(list) != 4 || list[0].Name != "NAME" || list[2].Value != "a b" || list[3].Value != AttributeUnavailable {
		t.Fatal(list, err)
	}
	if s := FormatAttributes(list); s != "NAME=spike.example ADDR=192.0.2.1 HELO=a+20b LOGIN=[UNAVAILABLE]" {
		t.Error(s)
	}
	for _, bad := range []string{"", "NAME", "=x", "N1=x", "NAME=+0D+0A", "NAME=+zz", "NAME=" + strings.Repeat("x", 256), strings.Repeat("A=b ", 33)} {
		if _, err := ParseAttributes(bad); !errors.Is(err, ErrParameter) {
			t.Errorf("%.40q taken", bad)
		}
	}
}

// FuzzParameters: what is read and written again reads the same.
func FuzzParameters(f *testing.F) {
	for _, s := range []string{"120;RT", "3600", "2026-11-25T12:00:00Z;C", "-9", "org.example:ADV,a", "RCPTMAX=20 MAILMAX=3", "86400 2026-11-25T12:00:00Z", "NEVER", "NAME=a+20b PORT=25"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if at, ret, trace, err := ParseDeliverBy(s, noon); err == nil {
			o := MailOptions{DeliverBy: at, ByReturn: ret, ByTrace: trace}
			if at2, ret2, trace2, err := ParseDeliverBy(o.DeliverByValue(noon), noon); err != nil || !at2.Equal(at) || ret2 != ret || trace2 != trace {
				t.Errorf("BY=%q", s)
			}
		}
		if at, c, err := ParseValidSince(s); err == nil && at.Year() > 0 && at.UTC().Year() < 10000 {
			o := RcptOptions{ValidSince: at, RelayUnchecked: c}
			if v := o.ValidSinceValue(); v != "" {
				if at2, c2, err := ParseValidSince(v); err != nil || !at2.Equal(at) || c2 != c {
					t.Errorf("RRVS=%q", s)
				}
			}
		}
		if n, err := ParseNotify(s); err == nil {
			if n2, err := ParseNotify(n.String()); n2 != n || err != nil {
				t.Errorf("NOTIFY=%q", s)
			}
		}
		if l := ParseLimits(s); ParseLimits(l.String()) != l {
			t.Errorf("LIMITS %q", s)
		}
		if a, err := ParseAttributes(s); err == nil {
			b, err := ParseAttributes(FormatAttributes(a))
			if err != nil || len(a) != len(b) {
				t.Fatalf("attributes %q", s)
			}
			for i := range a {
				if a[i] != b[i] {
					t.Errorf("attributes %q", s)
				}
			}
		}
		ParsePriority(s)
		ParseSolicit(s)
		ParseHoldFor(s)
		ParseHoldUntil(s)
		ParseFutureRelease(s)
	})
}
