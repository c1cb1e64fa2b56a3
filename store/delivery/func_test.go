package delivery_test

import (
	"context"
	"errors"
	"testing"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/store/delivery"
)

func TestTargetFunc(t *testing.T) {
	fault := errors.New("no")
	f := delivery.TargetFunc(func(context.Context, *delivery.Inbound) error { return fault })
	errs := f.Deliver(t.Context(), &delivery.Inbound{Recipients: make([]delivery.Recipient, 3)})
	if len(errs) != 3 || errs[0] != fault || errs[2] != fault {
		t.Errorf("%v", errs)
	}
}

func TestCatchAll(t *testing.T) {
	f := delivery.CatchAll("a.test", "b.test")
	for to, want := range map[smtp.Address]string{
		{Local: "Any+one", Domain: "a.test"}:     "Any+one@a.test",
		{Local: "x", Domain: "b.test"}:           "x@b.test",
		{Local: "Postmaster"}:                    "Postmaster@a.test",
		{Local: "x", Domain: "sub.a.test"}:       "",
		{Local: "x@a.test", Domain: "evil.test"}: "",
	} {
		got, err := f(t.Context(), to)
		switch {
		case want == "" && (!errors.Is(err, delivery.ErrRelay) || got != nil):
			t.Errorf("%s: %v, %v", to, got, err)
		case want != "" && (err != nil || len(got) != 1 || got[0].Account != want):
			t.Errorf("%s: %v, %v, want %s", to, got, err, want)
		}
	}
	if _, err := delivery.CatchAll()(t.Context(), smtp.Address{Local: "Postmaster"}); !errors.Is(err, delivery.ErrRelay) {
		t.Errorf("no domains: %v", err)
	}
}
