package pop3

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseStatus(t *testing.T) {
	for line, want := range map[string]struct {
		text string
		err  error
	}{
		"+OK":                        {"", nil},
		"+OK 2 320":                  {"2 320", nil},
		"+ok ready":                  {"ready", nil},
		"-ERR":                       {"", &Error{}},
		"-ERR no such message":       {"", &Error{Text: "no such message"}},
		"-ERR [in-use] do you have?": {"", &Error{Code: InUse, Text: "do you have?"}},
		"-ERR [SYS/TEMP]":            {"", &Error{Code: SysTemp}},
		"-ERR [broken":               {"", &Error{Text: "[broken"}},
		"":                           {"", ErrStatus},
		"+OKAY":                      {"", ErrStatus},
		"* OK IMAP4rev1":             {"", ErrStatus},
	} {
		text, err := ParseStatus(line)
		if text != want.text || !reflect.DeepEqual(err, want.err) {
			t.Errorf("%q: %q, %v", line, text, err)
		}
	}
}

func TestErrorStatus(t *testing.T) {
	cause := errors.New("disk /srv/7 is gone")
	e := &Error{Code: SysTemp, Text: "later\r\n+OK", Err: cause}
	if got := e.Status(); got != "-ERR [SYS/TEMP] later  +OK" {
		t.Error(got)
	}
	if !errors.Is(e, cause) || !e.Temporary() || (&Error{Code: Auth}).Temporary() {
		t.Error("cause or class")
	}
	if got := (&Error{}).Status(); got != "-ERR" {
		t.Error(got)
	}
}

func TestListings(t *testing.T) {
	if s, err := ParseStat("2 320 octets"); err != nil || s != (Stat{2, 320}) {
		t.Error(s, err)
	}
	if s, err := ParseStat("0 0"); err != nil || s != (Stat{}) {
		t.Error(s, err)
	}
	if l, err := ParseListing("1 120"); err != nil || l != (Listing{1, 120}) {
		t.Error(l, err)
	}
	if u, err := ParseUniqueID("1 17.42"); err != nil || u != (UniqueID{1, "17.42"}) {
		t.Error(u, err)
	}
	for _, bad := range []string{"", "1", "x 1", "-1 5", "+1 5", "1 -5", "0 5", "99999999999 1", "1 99999999999999999999"} {
		if l, err := ParseListing(bad); !errors.Is(err, ErrListing) {
			t.Errorf("%q: %v %v", bad, l, err)
		}
	}
	for _, bad := range []string{"", "1", "0 a", "1 \x7f", "1 " + strings.Repeat("a", 71), "1 ä"} {
		if u, err := ParseUniqueID(bad); !errors.Is(err, ErrListing) {
			t.Errorf("%q: %v %v", bad, u, err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	var caps Capabilities
	for _, l := range []string{"TOP", "SASL PLAIN SCRAM-SHA-256", "EXPIRE 60", ""} {
		if c, ok := ParseCapability(l); ok {
			caps = append(caps, c)
		}
	}
	if len(caps) != 3 || !caps.Has("top") || caps.Has("UIDL") || !caps.HasMechanism("plain") || caps.HasMechanism("LOGIN") {
		t.Error(caps)
	}
	if a, ok := caps.Args(CapExpire); !ok || a[0] != "60" || caps[1].String() != "SASL PLAIN SCRAM-SHA-256" {
		t.Error(a, ok)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"+OK 2 320", "-ERR [SYS/TEMP] x", "1 120", "1 17.42", "SASL PLAIN"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := ParseStatus(s); err != nil {
			var e *Error
			if errors.As(err, &e) {
				if strings.ContainsAny(e.Status(), "\r\n") {
					t.Errorf("%q", e.Status())
				}
			} else if !errors.Is(err, ErrStatus) {
				t.Error(err)
			}
		}
		if l, err := ParseListing(s); err == nil && (l.Number < 1 || l.Size < 0) {
			t.Error(l)
		}
		if u, err := ParseUniqueID(s); err == nil && !ValidUniqueID(u.ID) {
			t.Error(u)
		}
		ParseStat(s)
		ParseCapability(s)
	})
}
