package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/postrider/postrider/examples/internal/control"
	"github.com/postrider/postrider/queue"
)

// state is what a queue is like at a moment.
type state struct {
	At                              time.Time
	Total, Sending, Held, Suspended int
	New, Retried                    int  // of those that wait: never tried, and tried
	More                            bool // there is more than was looked at
	Rules                           []string
	Dests                           []dest           // the largest first
	Entries                         []*control.Entry // the soonest first
}

// dest is what waits for one destination.
type dest struct {
	Name    string
	N       int
	Oldest  time.Time
	Last    string // what was said there last, as far as was seen
	attempt int
}

// maxLooked bounds how many entries one look takes, and so the memory for
// their destinations.
const maxLooked = 100_000

// look reads the queue and keeps the limit entries that are due first, 0 = all.
func look(ctx context.Context, c *control.Client, f queue.Filter, limit int) (*state, error) {
	s := &state{At: time.Now()}
	rules, err := c.Suspended(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		s.Rules = append(s.Rules, describe(r))
	}
	dests := map[string]*dest{}
	for e, err := range c.List(ctx, f) {
		if err != nil {
			return nil, err
		}
		if s.Total == maxLooked && limit > 0 {
			s.More = true
			break
		}
		s.count(e)
		d := dests[e.Dest]
		if d == nil {
			d = &dest{Name: e.Dest, Oldest: e.Since}
			dests[e.Dest] = d
		}
		d.N++
		if e.Since.Before(d.Oldest) {
			d.Oldest = e.Since
		}
		if e.Last != "" && e.Attempt >= d.attempt {
			d.Last, d.attempt = e.Last, e.Attempt
		}
		s.keep(e, limit)
	}
	if limit == 0 {
		slices.SortFunc(s.Entries, sooner)
	}
	for _, d := range dests {
		s.Dests = append(s.Dests, *d)
	}
	slices.SortFunc(s.Dests, func(a, b dest) int { return cmp.Or(b.N-a.N, strings.Compare(a.Name, b.Name)) })
	return s, nil
}

func (s *state) count(e *control.Entry) {
	s.Total++
	switch {
	case e.Sending:
		s.Sending++
	case e.Suspended:
		s.Suspended++
	case e.Held:
		s.Held++
	case e.Attempt > 0:
		s.Retried++
	default:
		s.New++
	}
}

// sooner orders entries.
func sooner(a, b *control.Entry) int {
	return cmp.Or(a.Due.Compare(b.Due), slices.Compare(a.ID[:], b.ID[:]))
}

// keep puts e in its place among the soonest.
func (s *state) keep(e *control.Entry, limit int) {
	if limit == 0 { // look sorts
		s.Entries = append(s.Entries, e)
		return
	}
	i, _ := slices.BinarySearchFunc(s.Entries, e, sooner)
	if len(s.Entries) == limit {
		if i == limit {
			return
		}
		s.Entries = s.Entries[:limit-1]
	}
	s.Entries = slices.Insert(s.Entries, i, e)
}

// Sum is the queue in a line.
func (s *state) Sum() string {
	more := ""
	if s.More {
		more = "more than "
	}
	t := fmt.Sprintf("%s%d queued: %d being sent, %d new, %d tried before", more, s.Total, s.Sending, s.New, s.Retried)
	if s.Held > 0 {
		t += fmt.Sprintf(", %d held", s.Held)
	}
	if s.Suspended > 0 {
		t += fmt.Sprintf(", %d suspended", s.Suspended)
	}
	return t
}

// next says when e is tried again.
func next(e *control.Entry, now time.Time) string {
	switch {
	case e.Sending:
		return "sending"
	case e.Suspended:
		return "suspended"
	case e.Held:
		return "held"
	case !e.Due.After(now):
		return "now"
	}
	return "in " + span(e.Due.Sub(now))
}

// span is a duration for people.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// size is a number of octets for people.
func size(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// rcpts names the first recipients.
func rcpts(to []string) string {
	if len(to) > 2 {
		return fmt.Sprintf("%s and %d more", to[0], len(to)-1)
	}
	return strings.Join(to, ", ")
}

// clean keeps what strangers said from speaking to the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	yellow = "33"
	cyan   = "36"
)

// print writes the state for a terminal.
func print(w io.Writer, s *state, colour bool) error {
	paint := func(code, t string) string {
		if !colour {
			return t
		}
		return "\x1b[" + code + "m" + t + "\x1b[0m"
	}
	var b strings.Builder
	fmt.Fprintln(&b, paint(bold, s.Sum()))
	for _, r := range s.Rules {
		fmt.Fprintln(&b, paint(yellow, "suspended: "+clean(r)))
	}
	if len(s.Entries) > 0 {
		fmt.Fprintf(&b, "%s\n", paint(dim, fmt.Sprintf("%-26s %4s %9s %5s  %-9s  %s", "ID", "AGE", "SIZE", "TRIES", "NEXT", "FROM → TO")))
	}
	for _, e := range s.Entries {
		n, code := next(e, s.At), cyan
		if e.Held {
			code = yellow
		}
		fmt.Fprintf(&b, "%s %4s %9s %5d  %s  %s → %s\n", e.ID, span(s.At.Sub(e.Since)), size(e.Size), e.Attempt,
			paint(code, fmt.Sprintf("%-9s", n)), clean(cmp.Or(e.From, "<>")), clean(rcpts(e.To)))
		if e.Last != "" {
			fmt.Fprintf(&b, "%26s %s\n", "", paint(red, clean(e.Last)))
		}
	}
	if n := s.Total - len(s.Entries); n > 0 {
		fmt.Fprintln(&b, paint(dim, fmt.Sprintf("and %d more: -limit", n)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
