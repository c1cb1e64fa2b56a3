package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/postrider/postrider/store/transfer"
)

// screen shows how far it is: a bar in a terminal, and a line for each account
// or mailbox wherever it goes.
type screen struct {
	w     io.Writer
	live  bool
	name  string
	start time.Time
	shown time.Time
}

func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	return &screen{w: f, live: err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"}
}

func (s *screen) begin(name string) { s.name, s.start, s.shown = name, time.Now(), time.Time{} }

const width = 30

func (s *screen) progress(p transfer.Progress) {
	if !s.live || time.Since(s.shown) < 100*time.Millisecond {
		return
	}
	s.shown = time.Now()
	rate := float64(p.Messages) / max(time.Since(s.start).Seconds(), 0.001)
	if p.MessagesTotal == 0 {
		fmt.Fprintf(s.w, "\r\x1b[K%s: %d messages, %.0f/s", s.name, p.Messages, rate)
		return
	}
	done := width * p.Messages / p.MessagesTotal
	fmt.Fprintf(s.w, "\r\x1b[K%s [%s%s] %d of %d, %.0f/s, %s", s.name, strings.Repeat("#", done), strings.Repeat(".", width-done),
		p.Messages, p.MessagesTotal, rate, p.Mailbox)
}

func (s *screen) end(r transfer.Report) {
	if s.live {
		fmt.Fprint(s.w, "\r\x1b[K")
	}
	fmt.Fprintf(s.w, "%s: %d messages, %.1f MB in %v", s.name, r.Messages, float64(r.Octets)/1e6, time.Since(s.start).Round(time.Millisecond))
	if r.Flagged > 0 || r.Expunged > 0 {
		fmt.Fprintf(s.w, "; %d with other flags, %d expunged", r.Flagged, r.Expunged)
	}
	fmt.Fprintln(s.w)
}
