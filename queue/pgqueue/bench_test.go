package pgqueue_test

import (
	"testing"
	"time"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
)

func BenchmarkPut(b *testing.B) {
	pool := pgtest.Pool(b)
	s := open(b, pool, pgqueue.Options{Schema: pgtest.Schema(b, pool)})
	b.SetParallelism(25)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Put(b.Context(), submission("to.test", "", 4096)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

func BenchmarkLeaseAndFinish(b *testing.B) {
	pool := pgtest.Pool(b)
	s := open(b, pool, pgqueue.Options{Schema: pgtest.Schema(b, pool)})
	var subs []*queue.Submission
	for range b.N {
		if subs = append(subs, submission("to.test", "", 100)); len(subs) == 500 {
			if err := s.Put(b.Context(), subs...); err != nil {
				b.Fatal(err)
			}
			subs = nil
		}
	}
	if err := s.Put(b.Context(), subs...); err != nil {
		b.Fatal(err)
	}
	o := queue.NewOwner()
	if _, err := s.Renew(b.Context(), o, time.Hour); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		leases, err := s.Lease(b.Context(), o, []queue.Want{{Lane: queue.Lane{Dest: "to.test"}, Max: 20}})
		if err != nil || len(leases) == 0 {
			b.Fatal(len(leases), err)
		}
		for _, l := range leases {
			if err := s.Finish(b.Context(), &queue.Outcome{Lease: l, Done: []int{0}}); err != nil {
				b.Fatal(err)
			}
		}
		done += len(leases)
	}
}
