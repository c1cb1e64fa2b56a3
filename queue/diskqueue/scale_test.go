package diskqueue

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/queue"
)

// scaleSize is how many entries TestScale queues: POSTRIDER_SCALE=1000000 is
// the long form.
func scaleSize(t *testing.T) int {
	s := os.Getenv("POSTRIDER_SCALE")
	if s == "" {
		return 20_000
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 2000 {
		t.Fatalf("POSTRIDER_SCALE=%q is no number from 2000 on", s)
	}
	return n
}

// TestScale queues many entries in one lane, in 1,000 and in one lane each,
// and shows what opening, memory, enqueueing and leasing cost beside them. It
// is written down what they cost; that the work does not grow with the depth is
// what is tested.
func TestScale(t *testing.T) {
	n := scaleSize(t)
	cycles := min(n/100, 2000)
	empty := openAt(t, t.TempDir())
	defer empty.Close()
	for _, lanes := range []int{1, 1000, n} {
		t.Run(fmt.Sprintf("lanes=%d", lanes), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "q")
			s := openAt(t, dir)
			begun := time.Now()
			fill(t, s, n, lanes)
			filled := time.Since(begun)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			debug.FreeOSMemory()
			before := resident()
			begun = time.Now()
			s = openAt(t, dir)
			opened := time.Since(begun)
			defer s.Close()
			o := owner1(t, s)
			begun = time.Now()
			listed := 0
			for _, err := range s.Lanes(context.Background(), time.Now()) {
				if err != nil {
					t.Fatal(err)
				}
				listed++
			}
			list := time.Since(begun)
			if listed != lanes+1 { // and the alarms
				if listed != lanes {
					t.Errorf("%d lanes, want %d", listed, lanes)
				}
			}
			// In turn, so that whatever else the machine does slows both.
			var put, leased, emptyPut, emptyLease time.Duration
			for range cycles {
				cycle(t, s, &put, &leased)
				cycle(t, empty, &emptyPut, &emptyLease)
			}
			if got := lease(t, s, o, 10, "deep0.test"); len(got) != min(10, n/lanes) {
				t.Errorf("%d leased of the first lane", len(got))
			}
			debug.FreeOSMemory()
			t.Logf("%d entries in %d lanes: filled in %v, open %v, list %v, put %v (%.2f× of the empty one), lease and finish %v (%.2f×), memory %d MB more than before",
				n, lanes, filled, opened, list, put/time.Duration(cycles), float64(put)/float64(emptyPut), leased/time.Duration(cycles), float64(leased)/float64(emptyLease), (resident()-before)>>20)
		})
	}
}

// resident is how much memory this process has, in octets; 0 = not known.
func resident() int64 {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) > 1 && f[0] == "VmRSS:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

func openAt(t testing.TB, dir string) *Storage {
	t.Helper()
	s, err := Open(dir, &Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fill(t *testing.T, s *Storage, n, lanes int) {
	var subs []*queue.Submission
	for i := range n {
		sub := mailOf(foreignBody("Subject: deep\r\n\r\nA short one.\r\n"), 1)
		dest := fmt.Sprintf("deep%d.test", i%lanes)
		sub.Entries[0].Lane.Dest = dest
		sub.Entries[0].Envelope.To[0].Domain = dest
		if subs = append(subs, sub); len(subs) == 1000 || i == n-1 {
			if err := s.Put(context.Background(), subs...); err != nil {
				t.Fatal(err)
			}
			subs = subs[:0]
		}
	}
}

// cycle puts, leases and finishes one entry, and adds up what the one and the
// others take.
func cycle(t *testing.T, s *Storage, put, leased *time.Duration) {
	sub := mail(t, s, "Subject: one\r\n\r\nAnother.\r\n", 1)
	begun := time.Now()
	if err := s.Put(context.Background(), sub); err != nil {
		t.Fatal(err)
	}
	stored := time.Now()
	o := ownerOf(t, s)
	l := lease(t, s, o, 1, "d0.test")
	if len(l) != 1 {
		t.Fatalf("%d leased", len(l))
	}
	if err := s.Finish(context.Background(), &queue.Outcome{Lease: l[0], Done: []int{0}}); err != nil {
		t.Fatal(err)
	}
	*put += stored.Sub(begun)
	*leased += time.Since(stored)
}

// ownerOf returns the one owner of s.
func ownerOf(t *testing.T, s *Storage) queue.Owner {
	for o := range s.owners {
		return o
	}
	return owner1(t, s)
}
