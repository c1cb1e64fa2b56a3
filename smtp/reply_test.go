package smtp

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestReplyFor(t *testing.T) {
	secret := errors.New("/srv/db7 is gone")
	neutral := "451 4.3.0 Local error, try again later"
	tests := []struct {
		err  error
		want string
	}{
		{nil, "250 2.0.0 OK"},
		{&Error{Code: 550, Enhanced: EnhancedCode{5, 1, 1}, Text: "No such user", Err: secret}, "550 5.1.1 No such user"},
		{fmt.Errorf("quota of x: %w", &Error{Code: 552, Enhanced: EnhancedCode{5, 2, 2}, Text: "Full"}), "552 5.2.2 Full"},
		{errors.Join(secret, &Error{Code: 450, Text: "Later"}), "450 Later"},
		{&Error{Code: 550}, "550 Refused"},
		{&Error{Code: 450}, "450 Try again later"},
		{&Error{}, neutral},
		{&Error{Code: 250, Text: "OK"}, neutral},
		{&Error{Code: 999, Text: "x"}, neutral},
		{secret, neutral},
		{fmt.Errorf("x: %w", context.Canceled), "421 4.3.2 Service not available, closing transmission channel"},
		{context.DeadlineExceeded, "421 4.3.2 Service not available, closing transmission channel"},
		{&Error{Code: 451, Text: "Slow", Err: context.DeadlineExceeded}, "451 Slow"},
	}
	for _, tt := range tests {
		if got := ReplyFor(tt.err).String(); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestError(t *testing.T) {
	cause := errors.New("cause")
	e := &Error{Code: 450, Enhanced: EnhancedCode{4, 2, 1}, Text: "Busy", Err: cause}
	if e.Error() != "450 4.2.1 Busy: cause" || !errors.Is(e, cause) || !e.Temporary() || e.Reply().Positive() {
		t.Errorf("%v", e)
	}
	e = Errorf(550, EnhancedCode{5, 7, 1}, "no: %w", cause)
	if e.Text != "no: cause" || !errors.Is(e, cause) || e.Temporary() {
		t.Errorf("%+v", e)
	}
	if (&Error{Code: 554, Text: "No"}).Error() != "554 No" {
		t.Error("Error without a cause")
	}
}

func TestReply(t *testing.T) {
	r := Reply{250, EnhancedCode{2, 0, 0}, "one\ntwo"}
	if r.String() != "250 2.0.0 one two" || !r.Positive() {
		t.Error(r)
	}
	if s := (Reply{Code: 354}).String(); s != "354" {
		t.Error(s)
	}
	if (EnhancedCode{}).String() != "" || (EnhancedCode{5, 1, 10}).String() != "5.1.10" {
		t.Error("EnhancedCode.String")
	}
	for s, want := range map[Scope]string{ScopeRecipient: "recipient", ScopeMessage: "message", ScopeHost: "host", ScopeRoute: "route", 9: "scope 9"} {
		if s.String() != want {
			t.Error(s)
		}
	}
}
