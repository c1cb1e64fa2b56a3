package pgqueue_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
)

func BenchmarkPut(b *testing.B) {
	for _, sessions := range []int{1, 50, 128} {
		b.Run(fmt.Sprint("sessions=", sessions), func(b *testing.B) { benchmarkPut(b, sessions) })
	}
}

func benchmarkPut(b *testing.B, sessions int) {
	pool := pgtest.Pool(b)
	s := open(b, pool, pgqueue.Options{Schema: pgtest.Schema(b, pool)})
	b.ResetTimer()
	b.SetParallelism(max(1, sessions/runtime.GOMAXPROCS(0)))
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
		leases, err := s.Lease(b.Context(), o, []queue.Want{{Lane: queue.Lane{Dest: "to.test"}, Max: 200}})
		if err != nil || len(leases) == 0 {
			b.Fatal(len(leases), err)
		}
		var wg sync.WaitGroup
		for _, l := range leases {
			wg.Go(func() {
				if err := s.Finish(b.Context(), &queue.Outcome{Lease: l, Done: []int{0}}); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		done += len(leases)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
