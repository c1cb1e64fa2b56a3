package diskstore

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/store"
)

// needRoot skips a test that mounts a file system, or fails it when
// POSTRIDER_REQUIRE is set.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("POSTRIDER_REQUIRE") != "" {
		t.Fatal("only root can mount a file system")
	}
	t.Skip("only root can mount a file system")
}

// smallDisk mounts a file system of so many octets in memory.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// noise cannot be compressed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

// inTime fails the test where a call does not return: what hangs on a full
// disk hangs for ever.
func inTime(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(4 * time.Minute):
		t.Fatalf("%s hangs", what)
	}
}

// TestDiskFull fills a disk with mail: then there is ErrFull, nothing is lost,
// mail can be flagged and expunged, and its room is used again.
func TestDiskFull(t *testing.T) {
	for _, size := range []int{24 << 10, 200 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dir := smallDisk(t, 96<<20)
			inTime(t, "a full disk", func() { diskFull(t, filepath.Join(dir, "mail"), size) })
		})
	}
}

func diskFull(t *testing.T, dir string, size int) {
	s, err := Open(dir, &Options{Grace: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { s.Close() }()
	a := newAccount(t, s, "a")
	n := 0
	fill := func() bool {
		for ; n < 100_000; n++ {
			_, err := a.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(noise(size, uint64(n)))}}, store.AppendOptions{})
			if errors.Is(err, ErrFull) && errors.Is(err, store.ErrUnavailable) {
				return true
			}
			if err != nil {
				t.Errorf("message %d: %v", n, err)
				return false
			}
		}
		t.Error("the disk never gets full")
		return false
	}
	if !fill() {
		return
	}
	first := n
	if first*size < 12<<20 {
		t.Errorf("full after %d messages of %d", first, size)
	}
	if _, err := s.Stage(ctx, 16<<20); !errors.Is(err, ErrFull) {
		t.Errorf("Stage: %v", err)
	}
	if r, err := a.SetFlags(ctx, store.Inbox, store.AllUIDs(), store.FlagOp{Flags: store.NewFlags(store.Seen)}); err != nil || r.Changed.Count() != int64(first) {
		t.Errorf("SetFlags on a full disk: %v, %v", r.Changed, err)
	}
	// Somebody else takes all that is left.
	other, err := os.Create(filepath.Join(filepath.Dir(dir), "other"))
	if err != nil {
		t.Error(err)
		return
	}
	for err == nil {
		_, err = other.Write(make([]byte, 64<<10))
	}
	other.Close()
	refused := 0
	for i := range 20_000 { // it may still fit, and then it does not
		_, err := a.SetFlags(ctx, store.Inbox, store.UIDs(store.UID(1+i%first)), store.FlagOp{Mode: store.FlagMode(i / first % 2), Flags: store.NewFlags(store.Flagged)})
		if err != nil {
			if !errors.Is(err, ErrFull) {
				t.Errorf("on a disk that is full to the last: %v", err)
				return
			}
			if refused++; refused == 20 {
				break
			}
		}
	}
	if err := os.Remove(other.Name()); err != nil {
		t.Error(err)
	}
	until := func(what string, f func() error) bool {
		begun := time.Now()
		for {
			err := f()
			if err == nil {
				return true
			}
			if !errors.Is(err, ErrFull) || time.Since(begun) > 3*time.Minute {
				t.Errorf("%s: %v", what, err)
				return false
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	most := store.UIDSet{{First: 1, Last: store.UID(first * 3 / 4)}}
	if !until("Expunge", func() error {
		return second(a.Expunge(ctx, store.Inbox, most, store.ExpungeOptions{}))
	}) {
		return
	}
	if !until("Append after Expunge", func() error {
		return second(a.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(noise(size, uint64(n)))}}, store.AppendOptions{}))
	}) {
		return
	}
	check(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if s, err = Open(dir, &Options{Grace: -1, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Error(err)
		return
	}
	check(t, s)
	if a, err = s.Account(ctx, "a"); err != nil {
		t.Error(err)
		return
	}
	left := 0
	for m, err := range a.Messages(ctx, store.Inbox, store.Query{}) {
		if err != nil || !m.Flags.System.Has(store.Seen) && int(m.UID) <= first {
			t.Errorf("UID %d: %v, %v", m.UID, m.Flags, err)
			return
		}
		left++
	}
	if want := first - first*3/4 + 1; left != want {
		t.Errorf("%d messages are left, want %d", left, want)
	}
	t.Logf("full after %d messages; %d changes refused on a disk full to the last", first, refused)
}
