package main

import (
	"fmt"
	"io"
	"os"
	"runtime/metrics"
	"strings"
	"time"
)

// look is how much the output can do.
type look struct {
	live   bool // a terminal: the bar moves
	colour bool
}

// terminal looks at a file: what goes into a file or a pipe has no bar, and
// NO_COLOR is respected.
func terminal(f *os.File) look {
	info, err := f.Stat()
	live := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	return look{live, live && os.Getenv("NO_COLOR") == ""}
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// bar shows how far it is.
type bar struct {
	w io.Writer
	look
	peak uint64 // octets that live on the heap, at most
	last time.Time
	done int
	rate float64 // messages a second, lately
}

func newBar(w io.Writer, l look) *bar { return &bar{w: w, look: l, last: time.Now()} }

func (b *bar) paint(code, s string) string {
	if !b.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// show draws the bar anew; it is called some times a second.
func (b *bar) show(s sums) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	b.peak = max(b.peak, sample[0].Value.Uint64())
	done := s.delivered + s.bounced + s.suppressed
	if d := time.Since(b.last).Seconds(); d > 0.2 {
		b.rate, b.last, b.done = float64(done-b.done)/d, time.Now(), done
	}
	if !b.live {
		return
	}
	const width = 30
	total := max(s.waiting+done, 1)
	part := func(n int) int { return n * width / total }
	ok, no, late := part(s.delivered), part(s.bounced+s.suppressed), part(s.deferred)
	rest := max(width-ok-no-late, 0)
	line := b.paint(green, strings.Repeat("█", ok)) + b.paint(red, strings.Repeat("█", no)) + b.paint(yellow, strings.Repeat("▒", late)) + b.paint(dim, strings.Repeat("░", rest))
	of := "of " + count(total)
	if !s.merged {
		of += "…" // the file goes on
	}
	fmt.Fprintf(b.w, "\r%s  %s %s  %s bounced  %s put off  %s/s\x1b[K", line, b.paint(bold, count(s.delivered)), of, count(s.bounced), count(s.deferred), count(int(b.rate)))
}

// table writes what became of all.
func (b *bar) table(s sums, where string) {
	if b.live {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
	total := s.delivered + s.bounced + s.suppressed + s.waiting + s.bad + s.again
	line := func(code, name string, n int, note string) {
		share := ""
		if total > 0 {
			share = fmt.Sprintf("%5.1f %%", 100*float64(n)/float64(total))
		}
		fmt.Fprintln(b.w, strings.TrimRight(fmt.Sprintf("%s %9s  %8s  %s", b.paint(code, fmt.Sprintf("%-16s", name)), count(n), share, b.paint(dim, note)), " "))
	}
	line(green, "delivered", s.delivered, "")
	line(red, "bounced", s.bounced, "")
	for _, c := range s.classes {
		note := ""
		if c.Hard() {
			note = "do not write again"
		}
		fmt.Fprintln(b.w, strings.TrimRight(fmt.Sprintf("  %-14s %9s            %s", c, count(s.counts[c]), b.paint(dim, note)), " "))
	}
	if s.suppressed > 0 {
		line(yellow, "suppressed", s.suppressed, "not written to")
	}
	line(yellow, "deferred", s.waiting, where)
	if n := s.waiting - s.deferred; n > 0 {
		fmt.Fprintf(b.w, "  %-14s %9s            %s\n", "not tried", count(n), b.paint(dim, "their host is down, or it was not their turn yet"))
	}
	if s.again > 0 {
		line(dim, "sent before", s.again, "by an earlier run, or twice in the file")
	}
	if s.bad > 0 {
		line(red, "unusable", s.bad, "")
		for _, why := range s.unusable {
			fmt.Fprintln(b.w, "  ", b.paint(dim, why))
		}
	}
	rate := 0
	if d := s.took.Seconds(); d > 0 {
		rate = int(float64(s.delivered+s.bounced) / d)
	}
	line(bold, "recipients", total, fmt.Sprintf("in %.1f s, %s a second, with %d MB of heap at most", s.took.Seconds(), count(rate), b.peak>>20))
}

// count writes a number with its thousands apart.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
