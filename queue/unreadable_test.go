package queue_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
)

// damaged is a storage in which one message cannot be read: not opened, or not
// beyond its first octets.
type damaged struct {
	*memqueue.Storage
	id   queue.ID
	open bool
}

var errDamaged = errors.New("damaged on the disk")

func (d *damaged) Open(ctx context.Context, m *queue.Message) (queue.Blob, error) {
	b, err := d.Storage.Open(ctx, m)
	if err != nil || m.ID != d.id {
		return b, err
	}
	if !d.open {
		b.Close()
		return nil, errDamaged
	}
	return torn{b}, nil
}

type torn struct{ queue.Blob }

func (t torn) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > 10 {
		n, _ := t.Blob.ReadAt(p[:max(10-off, 0)], off)
		return n, errDamaged
	}
	return t.Blob.ReadAt(p, off)
}

// A message that cannot be read delays no other, is not half delivered, and its
// sender hears of it in the end.
func TestUnreadable(t *testing.T) {
	for name, open := range map[string]bool{"not opened": false, "torn": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := &damaged{Storage: w.st, open: open}
				w.q.Storage = d
				w.q.MaxAge = 24 * time.Hour
				d.id = w.enqueue(mail("bad@one.test"))
				w.run()
				for range 20 {
					w.enqueue(mail("good@one.test"))
				}
				synctest.Wait()
				if n := w.count(queue.EventDelivered); n != 20 || w.count(queue.EventDeferred) != 1 {
					t.Errorf("%d delivered, %d deferred", n, w.count(queue.EventDeferred))
				}
				time.Sleep(30 * time.Hour)
				synctest.Wait()
				if w.count(queue.EventExpired) != 1 || len(w.left()) != 0 {
					t.Errorf("events %+v", w.events)
				}
				all := w.notices()
				last := all[len(all)-1]
				if last.Recipients[0].Final != "bad@one.test" || strings.Contains(last.Recipients[0].Diagnostic, "disk") {
					t.Errorf("notice %+v", last)
				}
				w.stop()
			})
		})
	}
}
