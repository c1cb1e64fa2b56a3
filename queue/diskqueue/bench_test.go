package diskqueue

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/queue"
)

// inParallel runs f b.N times in so many goroutines.
func inParallel(b *testing.B, writers int, f func() error) {
	var wg sync.WaitGroup
	todo := make(chan struct{}, 1024)
	for range writers {
		wg.Go(func() {
			for range todo {
				if err := f(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		todo <- struct{}{}
	}
	close(todo)
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// reportDisk reports what goes to the disk for one operation.
func reportDisk(b *testing.B, s *Storage) {
	m := s.db.Metrics()
	written := m.WAL.BytesWritten
	for _, l := range m.Levels {
		written += l.TableBytesFlushed + l.TableBytesCompacted + l.BlobBytesFlushed + l.BlobBytesCompacted
	}
	n := float64(b.N)
	b.ReportMetric(float64(m.WAL.BytesWritten)/n, "log-B/op")
	b.ReportMetric(float64(written)/n, "disk-B/op")
}

func putOne(b *testing.B, s *Storage, text []byte, dest string) error {
	body, err := s.Stage(context.Background(), int64(len(text)))
	if err != nil {
		return err
	}
	if _, err := body.Write(text); err != nil {
		return err
	}
	sub := mailOf(body, 1)
	sub.Entries[0].Lane.Dest = dest
	return s.Put(context.Background(), sub)
}

// Stage, Write and Put, durable.
func BenchmarkPut(b *testing.B) {
	for _, c := range []struct{ size, writers int }{{4 << 10, 1}, {4 << 10, 50}, {4 << 10, 200}, {64 << 10, 1}, {64 << 10, 50}} {
		b.Run(fmt.Sprintf("size=%dKB/writers=%d", c.size>>10, c.writers), func(b *testing.B) {
			s := openAt(b, b.TempDir())
			defer s.Close()
			text := []byte(noise(c.size))
			b.SetBytes(int64(c.size))
			inParallel(b, c.writers, func() error { return putOne(b, s, text, "a.test") })
			reportDisk(b, s)
		})
	}
}

// Lease in batches as the queue does, Open, and Finish.
func BenchmarkLeaseFinish(b *testing.B) {
	for _, writers := range []int{1, 50, 200} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := openAt(b, b.TempDir())
			defer s.Close()
			text := []byte(noise(4 << 10))
			todo := b.N
			var wg sync.WaitGroup
			var mu sync.Mutex
			for range 50 {
				wg.Go(func() {
					for {
						mu.Lock()
						n := todo
						todo--
						mu.Unlock()
						if n <= 0 {
							return
						}
						if err := putOne(b, s, text, "a.test"); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			o := queue.NewOwner()
			if _, err := s.Renew(context.Background(), o, time.Hour); err != nil {
				b.Fatal(err)
			}
			var leases []*queue.Lease
			inParallel(b, writers, func() error {
				mu.Lock()
				if len(leases) == 0 {
					var err error
					leases, err = s.Lease(context.Background(), o, []queue.Want{{Lane: queue.Lane{Dest: "a.test"}, Max: 16}})
					if err != nil || len(leases) == 0 {
						mu.Unlock()
						return fmt.Errorf("%d leased, %w", len(leases), err)
					}
				}
				l := leases[0]
				leases = leases[1:]
				mu.Unlock()
				blob, err := s.Open(context.Background(), l.Entry.Message)
				if err != nil {
					return err
				}
				blob.Close()
				return s.Finish(context.Background(), &queue.Outcome{Lease: l, Done: []int{0}})
			})
		})
	}
}
