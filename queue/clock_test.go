package queue_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// The storage's clock jumps while mail is on its way: nothing is lost or hangs,
// and nothing comes twice but what was under way when leases ended.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 48 * time.Hour, -48 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var offset atomic.Int64
				w.st.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
				w.q.Retry = queue.Backoff(time.Minute, 10*time.Minute)
				var began atomic.Int64 // deliveries that ended well before the jump, and those after
				w.tr.Answer = func(ctx context.Context, d *queuetest.Delivery) []smtp.Result {
					select {
					case <-time.After(3 * time.Second):
					case <-ctx.Done():
						return d.All(smtp.Result{Err: ctx.Err()})
					}
					if d.Nth%5 == 0 {
						return d.Refuse(451, smtp.ScopeRecipient)
					}
					began.Add(1)
					return d.All(smtp.Result{})
				}
				const n = 300
				for i := range n {
					m := mail(fmt.Sprintf("r@d%d.test", i%30))
					m.Envelope.From = smtp.Address{}
					w.enqueue(m)
				}
				w.run()
				time.Sleep(4 * time.Second)
				offset.Store(int64(jump))
				time.Sleep(4 * time.Second)
				offset.Store(0)
				// A jump back makes what was due late by so much, at most.
				time.Sleep(60 * time.Hour)
				synctest.Wait()
				if left := w.left(); len(left) != 0 {
					t.Errorf("%d left, such as %+v", len(left), left[0])
				}
				// In flight were at most so many.
				if d := int(began.Load()); d < n || d > n+200 {
					t.Errorf("%d deliveries of %d messages", d, n)
				}
				if ends := w.count(queue.EventDelivered) + w.count(queue.EventExpired); ends != n || w.count(queue.EventExpired) > 0 {
					t.Errorf("%d delivered, %d expired", w.count(queue.EventDelivered), w.count(queue.EventExpired))
				}
				w.stop()
			})
		})
	}
}
