package memqueue_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/smtp"
)

func put(b *testing.B, s *memqueue.Storage, lane queue.Lane) {
	body, err := s.Stage(context.Background(), 4)
	if err != nil {
		b.Fatal(err)
	}
	io.WriteString(body, "x\r\n")
	m := &queue.Message{ID: queue.NewID()}
	e := &queue.Entry{ID: queue.NewID(), Message: m, Lane: lane, Due: time.Now(),
		Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: smtp.Address{Local: "r", Domain: lane.Dest}}}}}
	if err := s.Put(context.Background(), &queue.Submission{Message: m, Body: body, Entries: []*queue.Entry{e}}); err != nil {
		b.Fatal(err)
	}
}

// One Put, Lease and Finish, beside what is queued already.
func BenchmarkCycle(b *testing.B) {
	for _, c := range []struct{ lanes, deep int }{{1, 0}, {1000, 0}, {1000, 1_000_000}, {1_000_000, 1_000_000}} {
		b.Run(fmt.Sprintf("lanes=%d/deep=%d", c.lanes, c.deep), func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			s := &memqueue.Storage{MaxBytes: -1}
			owner := queue.NewOwner()
			if _, err := s.Renew(context.Background(), owner, time.Hour); err != nil {
				b.Fatal(err)
			}
			lanes := make([]queue.Lane, c.lanes)
			for i := range lanes {
				lanes[i].Dest = fmt.Sprintf("d%d.test", i)
			}
			for i := range c.deep {
				put(b, s, lanes[i%c.lanes])
			}
			if c.deep > 0 {
				runtime.GC()
				runtime.ReadMemStats(&after)
				defer b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(c.deep), "B/queued")
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				lane := lanes[n%c.lanes]
				n++
				put(b, s, lane)
				leases, err := s.Lease(context.Background(), owner, []queue.Want{{Lane: lane, Max: 1}})
				if err != nil || len(leases) != 1 {
					b.Fatal(leases, err)
				}
				if err := s.Finish(context.Background(), &queue.Outcome{Lease: leases[0], Done: []int{0}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
