package diskqueue_test

import (
	"testing"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/queue/queuetest"
)

func TestStorage(t *testing.T) {
	queuetest.Run(t, func(t *testing.T, c queuetest.Config) queue.Storage {
		s, err := diskqueue.Open(t.TempDir(), &diskqueue.Options{Now: c.Now, MaxBytes: c.MaxBytes, KeepEvents: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}
