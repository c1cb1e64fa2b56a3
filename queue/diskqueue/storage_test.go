package diskqueue_test

import (
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/queue/queuetest"
)

func TestStorage(t *testing.T) {
	queuetest.Run(t, func(t *testing.T, c queuetest.Config) queue.Storage {
		if c.Step != nil {
			return newCrasher(t, vfs.NewCrashableMem(), c)
		}
		s, err := diskqueue.Open(t.TempDir(), &diskqueue.Options{Now: c.Now, MaxBytes: c.MaxBytes, KeepEvents: true})
		if err != nil {
			t.Fatal(err)
		}
		closeLater(t, s)
		return s
	})
}

func closeLater(t *testing.T, s io.Closer) {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// crasher is a storage on a disk in memory that knows what was synced.
type crasher struct {
	*diskqueue.Storage
	disk *vfs.MemFS
	rng  *rand.Rand
}

func newCrasher(t *testing.T, disk *vfs.MemFS, c queuetest.Config) *crasher {
	o := &diskqueue.Options{Now: c.Now, MaxBytes: c.MaxBytes, KeepEvents: true, Log: slog.New(slog.DiscardHandler)}
	o.SetFS(disk)
	if c.Step != nil {
		o.SetFS(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				c.Step()
			}
			return nil
		})))
	}
	s, err := diskqueue.Open("q", o)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, s)
	return &crasher{s, disk, rand.New(rand.NewPCG(1, 2))}
}

// Crash implements queuetest.Crasher. Some of what was not synced may be there
// all the same; all of it, if only the process ends.
func (c *crasher) Crash() queuetest.Opener {
	percent := []int{0, 50, 100}[c.rng.IntN(3)]
	image := c.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng})
	return func(t *testing.T, config queuetest.Config) queue.Storage { return newCrasher(t, image, config) }
}
