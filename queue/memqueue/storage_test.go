package memqueue_test

import (
	"testing"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/queuetest"
)

func TestStorage(t *testing.T) {
	queuetest.Run(t, func(t *testing.T, c queuetest.Config) queue.Storage {
		s := &memqueue.Storage{Now: c.Now, MaxBytes: c.MaxBytes, Dir: t.TempDir(), KeepEvents: true}
		t.Cleanup(func() {
			if n := s.Used(); n < 0 {
				t.Errorf("%d octets in use", n)
			}
		})
		return s
	})
}
