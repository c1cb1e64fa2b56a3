package spf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/smtp"
)

func TestTrace(t *testing.T) {
	z := records{
		"example.org":      txt("other", "v=spf1 include:_a.example.org -MX ptr redirect=_r.%{d}"),
		"_a.example.org":   txt("v=spf1 a:h.example.org/24 ?all"),
		"_r.example.org":   txt("v=spf1 exists:%{p}.x.example -all exp=why.example.org"),
		"why.example.org":  txt("no"),
		"h.example.org":    {a: []netip.Addr{netip.MustParseAddr("198.51.100.1")}},
		"name.example.net": {a: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		"1.2.0.192.in-addr.arpa": {
			ptr: []string{"name.example.net."}},
	}
	e := (&Checker{Resolver: z, Receiver: "mx.example.net"}).Check(t.Context(), source("192.0.2.1"))
	var got []string
	for _, l := range e.Lookups {
		got = append(got, fmt.Sprintf("%s %s %d by %q of %q: %q", l.Type, l.Name, l.Answers, l.Term, l.Domain, l.Record))
	}
	want := []string{
		`TXT example.org 2 by "" of "": "v=spf1 include:_a.example.org -MX ptr redirect=_r.%{d}"`,
		`TXT _a.example.org 1 by "include:_a.example.org" of "example.org": "v=spf1 a:h.example.org/24 ?all"`,
		`A h.example.org 1 by "a:h.example.org/24" of "_a.example.org": ""`,
		`MX example.org 0 by "-MX" of "example.org": ""`,
		`PTR 192.0.2.1 1 by "ptr" of "example.org": ""`,
		`TXT _r.example.org 1 by "redirect=_r.%{d}" of "example.org": "v=spf1 exists:%{p}.x.example -all exp=why.example.org"`,
		`A name.example.net 1 by "exists:%{p}.x.example" of "_r.example.org": ""`,
		`A name.example.net.x.example 0 by "exists:%{p}.x.example" of "_r.example.org": ""`,
		`TXT why.example.org 1 by "exp=why.example.org" of "_r.example.org": ""`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if e.Result != auth.Fail || e.Explanation != "no" || e.Receiver != "mx.example.net" || e.Source != source("192.0.2.1") {
		t.Errorf("%+v", e)
	}
}

// slow takes a while for each answer, and may not care that it is not wanted
// any more.
type slow struct {
	records
	each time.Duration
	deaf bool
}

func (s slow) wait(ctx context.Context) error {
	if s.deaf {
		time.Sleep(s.each)
		return nil
	}
	select {
	case <-time.After(s.each):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slow) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.records.LookupTXT(ctx, name)
}

func (s slow) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.records.LookupAddr(ctx, addr)
}

// TestTimeout has RFC 7208 §4.6.4: a check takes at least 20 seconds if it
// must, and what exceeds the limit is temperror.
func TestTimeout(t *testing.T) {
	include := func(n int) *recordSet {
		text := "v=spf1"
		for i := range n {
			text += fmt.Sprintf(" include:i%d.example.org", i)
		}
		return txt(text + " -all")
	}
	z := records{"four.example.org": include(4), "ptr.example.org": txt("v=spf1 ptr -all"), "macro.example.org": txt("v=spf1 a:%{p}.example.net -all")}
	for i := range 4 {
		z[fmt.Sprintf("i%d.example.org", i)] = txt("v=spf1 -all")
	}
	for name, c := range map[string]struct {
		domain  string
		timeout time.Duration
		each    time.Duration
		deaf    bool
		want    auth.Result
		took    time.Duration
	}{
		"within":          {"four", 0, 3900 * time.Millisecond, false, auth.Fail, 19500 * time.Millisecond},
		"too long":        {"four", 0, 4100 * time.Millisecond, false, auth.TempError, 20 * time.Second},
		"set":             {"four", time.Second, time.Minute, false, auth.TempError, time.Second},
		"off":             {"four", -1, time.Minute, false, auth.Fail, 5 * time.Minute},
		"deaf":            {"four", time.Minute, 50 * time.Second, true, auth.TempError, 100 * time.Second},
		"in ptr":          {"ptr", 0, 11 * time.Second, false, auth.TempError, 20 * time.Second},
		"in ptr, deaf":    {"ptr", 0, 11 * time.Second, true, auth.TempError, 22 * time.Second},
		"in a macro":      {"macro", 0, 11 * time.Second, false, auth.TempError, 20 * time.Second},
		"ptr, in time":    {"ptr", 0, 9 * time.Second, false, auth.Fail, 18 * time.Second},
		"context's limit": {"four", -1, 2 * time.Hour, false, auth.TempError, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				s := source("192.0.2.1")
				s.From.Domain = c.domain + ".example.org"
				begin := time.Now()
				e := (&Checker{Resolver: slow{z, c.each, c.deaf}, Timeout: c.timeout}).Check(ctx, s)
				if took := time.Since(begin); e.Result != c.want || took != c.took {
					t.Errorf("%s (%v) after %v", e.Result, e.Err, took)
				}
				if e.Result == auth.TempError && !(errors.Is(e.Err, ErrLookup) && errors.Is(e.Err, context.DeadlineExceeded)) {
					t.Errorf("%v", e.Err)
				}
			})
		})
	}
}

// keeper keeps the context it was given.
type keeper struct {
	records
	ctx *context.Context
}

func (k keeper) LookupTXT(ctx context.Context, name string) ([]string, error) {
	*k.ctx = ctx
	return k.records.LookupTXT(ctx, name)
}

// TestContext holds the context that resolvers get against the rules for
// contexts.
func TestContext(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "value")
	var got context.Context
	c := &Checker{Resolver: keeper{records{"example.org": txt("v=spf1 -all")}, &got}, Timeout: time.Hour}
	c.Check(ctx, source("192.0.2.1"))
	if deadline, ok := got.Deadline(); !ok || time.Until(deadline) > time.Hour {
		t.Errorf("deadline %v", deadline)
	}
	if got.Value(key{}) != "value" {
		t.Error("the value is lost")
	}
	child, cancel := context.WithCancel(got)
	defer cancel()
	<-child.Done() // what outlives the check is cut
	if got.Err() != context.Canceled {
		t.Error(got.Err())
	}
}

// TestBounded has the RFC's result for what is made to cost, and that it
// costs no more than the limits allow.
func TestBounded(t *testing.T) {
	long := func(term string) string {
		return "v=spf1 " + strings.Repeat(term+" ", (64<<10-11)/(len(term)+1)) + "-all"
	}
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.example.net.", i)
	}
	for name, c := range map[string]struct {
		record string
		want   auth.Result
		err    error
		most   int // lookups
	}{
		"64 KB of networks":          {long("ip4:198.51.100.1"), auth.Fail, nil, 1},
		"64 KB of a":                 {long("a"), auth.PermError, ErrVoid, 4},
		"64 KB of includes":          {long("include:example.org"), auth.PermError, ErrLimit, 11},
		"64 KB of ptr":               {long("ptr"), auth.PermError, ErrLimit, 13},
		"64 KB that is broken":       {long("a") + " %", auth.PermError, ErrSyntax, 1},
		"64 KB of modifiers":         {long("x=%{d}"), auth.Fail, nil, 1},
		"64 KB in one term":          {"v=spf1 a:" + strings.Repeat("a", 64<<10) + ".example -all", auth.Fail, nil, 2},
		"thousands of macros":        {"v=spf1 exists:" + strings.Repeat("%{d}", 16<<10) + " -all", auth.Fail, nil, 1},
		"thousands of p":             {"v=spf1 exists:" + strings.Repeat("%{p}", 16<<10) + " -all", auth.Fail, nil, 13},
		"thousands of empty macros":  {"v=spf1 exists:" + strings.Repeat("%{h}", 16<<10) + ".x.example -all", auth.Fail, nil, 2},
		"thousands of macros open":   {"v=spf1 exists:" + strings.Repeat("%{", 32<<10) + " -all", auth.PermError, ErrSyntax, 1},
		"a macro with many digits":   {"v=spf1 exists:%{d" + strings.Repeat("9", 60<<10) + "}.x.example -all", auth.Fail, nil, 2},
		"a macro with many limits":   {"v=spf1 exists:%{d" + strings.Repeat(".-+,/_=", 9000) + "}.x.example -all", auth.Fail, nil, 2},
		"an include of itself":       {"v=spf1 include:example.org -all", auth.PermError, ErrLimit, 11},
		"a redirect to itself":       {"v=spf1 redirect=example.org", auth.PermError, ErrLimit, 11},
		"includes that multiply":     {"v=spf1 include:example.org include:example.org redirect=example.org", auth.PermError, ErrLimit, 11},
		"explanations that multiply": {"v=spf1 -all exp=" + strings.Repeat("%{p}", 16<<10), auth.Fail, nil, 13},
	} {
		z := records{"example.org": txt(c.record), "1.2.0.192.in-addr.arpa": {ptr: names}}
		s := source("192.0.2.1")
		s.Hello = ""
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		e := (&Checker{Resolver: z}).Check(t.Context(), s)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<18 {
			t.Errorf("%s: %d octets allocated", name, n)
		}
		if e.Result != c.want || c.err != nil && !errors.Is(e.Err, c.err) || len(e.Lookups) > c.most {
			t.Errorf("%s: %s (%.200v), %d lookups", name, e.Result, e.Err, len(e.Lookups))
		}
		if text := fmt.Sprint(e.Err); len(text) > 500 {
			t.Errorf("%s: an error of %d octets", name, len(text))
		}
	}
	// The sender may be as large as it likes.
	s := source("192.0.2.1")
	s.From = smtp.Address{Local: strings.Repeat("a.", 1<<20), Domain: "example.org"}
	e := (&Checker{Resolver: records{"example.org": txt("v=spf1 exists:" + strings.Repeat("%{l1r}", 1000) + strings.Repeat("%{L}", 1000) + " -all")}}).Check(t.Context(), s)
	if e.Result != auth.Fail {
		t.Errorf("%s, %v", e.Result, e.Err)
	}
}
