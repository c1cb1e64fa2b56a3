package diskqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/queue"
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

// fillDisk takes all that is left of a disk but for so many octets.
func fillDisk(t *testing.T, dir string, leave int64) (name string) {
	t.Helper()
	name = filepath.Join(dir, "somebody else's")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 64<<10)
	for {
		free := freeOn(t, dir)
		if free <= leave {
			return name
		}
		if _, err := f.Write(chunk[:min(int64(len(chunk)), free-leave)]); errors.Is(err, syscall.ENOSPC) {
			return name
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func freeOn(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// within fails the test where a call does not return: what hangs on a full
// disk hangs for ever.
func within(t *testing.T, what string, f func()) {
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

// awaitRoom waits until mail is taken again.
func awaitRoom(t *testing.T, s *Storage) {
	t.Helper()
	begun := time.Now()
	for {
		sub, err := tryMail(s, "again\r\n")
		if err == nil {
			err = s.Put(context.Background(), sub)
		}
		if err == nil {
			t.Logf("mail is taken again after %v", time.Since(begun).Round(time.Millisecond))
			return
		}
		if !errors.Is(err, queue.ErrFull) || time.Since(begun) > 2*time.Minute {
			t.Fatalf("no mail is taken after %v: %v", time.Since(begun), err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestDiskFull fills a disk with mail: then there is queue.ErrFull, nothing is
// lost, outcomes with notices fit, and what they give back is used again.
func TestDiskFull(t *testing.T) {
	for _, body := range []int{6 << 10, 40 << 10, 300 << 10} {
		t.Run(fmt.Sprintf("body=%d", body), func(t *testing.T) { diskFull(t, body) })
	}
}

func diskFull(t *testing.T, body int) {
	dir := smallDisk(t, 64<<20)
	const minFree = 12 << 20
	s, err := Open(filepath.Join(dir, "q"), &Options{MinFree: minFree, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	text := noise(body)
	var stored []*queue.Submission
	within(t, "filling the disk", func() {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for range 8 {
			wg.Go(func() {
				for {
					sub, err := tryMail(s, text)
					if err == nil {
						if err = s.Put(context.Background(), sub); err != nil {
							sub.Body.Close()
						}
					}
					if errors.Is(err, queue.ErrFull) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					stored = append(stored, sub)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	})
	t.Logf("%d messages of %d octets; %d octets are free", len(stored), len(text), freeOn(t, dir))
	if free := freeOn(t, dir); free < minFree/2 {
		t.Errorf("%d octets are left for outcomes, want about %d", free, minFree)
	}
	// An outcome with a notice for each entry, and all of them are there.
	o := owner1(t, s)
	n := 0
	within(t, "writing outcomes", func() {
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, l := range lease(t, s, o, len(stored)+1, "d0.test") {
			n++
			out := &queue.Outcome{Lease: l, Done: []int{0}}
			if n%4 == 0 {
				out.Put = []*queue.Submission{mailOf(foreignBody(noise(1500)), 1)}
			}
			finish := func() {
				if err := s.Finish(context.Background(), out); err != nil {
					t.Errorf("an outcome: %v", err)
				}
			}
			if wg.Go(finish); n%100 == 0 {
				wg.Wait()
			}
		}
	})
	if n != len(stored) {
		t.Errorf("%d entries could be leased, want %d", n, len(stored))
	}
	within(t, "taking mail", func() { awaitRoom(t, s) })
	if r, err := s.Check(context.Background()); err != nil || len(r.Problems) > 0 {
		t.Errorf("%v, %v", r.Problems, err)
	}
}

// tryMail is mail with the errors that a full disk gives.
func tryMail(s *Storage, text string) (*queue.Submission, error) {
	body, err := s.Stage(context.Background(), int64(len(text)))
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(body, text); err != nil {
		body.Close()
		return nil, err
	}
	return mailOf(body, 1), nil
}

// TestDiskFilledByOthers leaves no octet free: no mail is taken, and nothing
// hangs or ends the process; when there is room again, all goes on.
func TestDiskFilledByOthers(t *testing.T) {
	dir := smallDisk(t, 64<<20)
	s, err := Open(filepath.Join(dir, "q"), &Options{Log: slog.New(slog.DiscardHandler), KeepEvents: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 500
	for range n {
		if err := s.Put(context.Background(), mail(t, s, noise(8<<10), 1)); err != nil {
			t.Fatal(err)
		}
	}
	filler := fillDisk(t, dir, 0)
	within(t, "refusing mail", func() {
		<-time.After(200 * time.Millisecond) // what was known of the disk is forgotten
		if _, err := tryMail(s, noise(8<<10)); !errors.Is(err, queue.ErrFull) {
			t.Errorf("Stage on a full disk: %v", err)
		}
		if err := s.Put(context.Background(), mailOf(foreignBody("x"), 1)); !errors.Is(err, queue.ErrFull) {
			t.Errorf("Put on a full disk: %v", err)
		}
	})
	// Outcomes hold, or say that they do not.
	o := owner1(t, s)
	held := 0
	var undone []*queue.Lease
	within(t, "writing outcomes", func() {
		for _, l := range lease(t, s, o, n, "d0.test") {
			// Much to write: the results of many attempts.
			err := s.Finish(context.Background(), &queue.Outcome{Lease: l, Due: time.Now().Add(time.Hour), Attempt: 1,
				Events: []queue.Event{{ID: queue.NewID(), Kind: queue.EventDeferred}},
				Put:    []*queue.Submission{mailOf(foreignBody(noise(24<<10)), 1)}})
			if errors.Is(err, queue.ErrFull) {
				undone = append(undone, l)
			} else if err != nil {
				t.Fatalf("an outcome: %v", err)
			} else {
				held++
			}
		}
	})
	t.Logf("%d outcomes held on the full disk, %d were refused", held, len(undone))
	if n := len(s.events.pending); n > 0 {
		t.Errorf("%d events are waited for that will never be written", n)
	}
	if held == 0 {
		t.Error("no outcome held on the full disk: the ballast is of no use")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	within(t, "going on", func() {
		for _, l := range undone {
			for begun := time.Now(); ; {
				err := s.Finish(context.Background(), &queue.Outcome{Lease: l, Due: time.Now().Add(time.Hour), Attempt: 1})
				if err == nil {
					break
				}
				if !errors.Is(err, queue.ErrFull) || time.Since(begun) > 30*time.Second {
					t.Fatalf("an outcome with room again: %v", err)
				}
				<-time.After(10 * time.Millisecond)
			}
		}
		awaitRoom(t, s)
	})
	if _, err := os.Stat(s.db.Path("BALLAST")); err != nil {
		t.Errorf("no ballast again: %v", err)
	}
	if r, err := s.Check(context.Background()); err != nil || len(r.Problems) > 0 || r.Entries != n+held+1 {
		t.Errorf("%d entries, want %d: %v, %v", r.Entries, n+held+1, r.Problems, err)
	}
}

// TestOpenOnFullDisk ends and begins on a disk with no octet free: what was
// stored is there, and outcomes hold.
func TestOpenOnFullDisk(t *testing.T) {
	dir := smallDisk(t, 64<<20)
	name := filepath.Join(dir, "q")
	open := func() (s *Storage) {
		t.Helper()
		within(t, "Open", func() {
			var err error
			if s, err = Open(name, &Options{Log: slog.New(slog.DiscardHandler)}); err != nil {
				t.Errorf("Open: %v", err)
			}
		})
		if s == nil {
			t.FailNow()
		}
		return s
	}
	s := open()
	const n = 200
	for range n {
		if err := s.Put(context.Background(), mail(t, s, noise(8<<10), 1)); err != nil {
			t.Fatal(err)
		}
	}
	filler := fillDisk(t, dir, 0)
	within(t, "Close", func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	s = open()
	defer s.Close()
	if _, err := tryMail(s, noise(8<<10)); !errors.Is(err, queue.ErrFull) {
		t.Errorf("Stage on a full disk: %v", err)
	}
	leases := lease(t, s, owner1(t, s), n, "d0.test")
	if len(leases) != n {
		t.Errorf("%d leased, want %d", len(leases), n)
	}
	within(t, "writing outcomes", func() {
		for i, l := range leases {
			if err := s.Finish(context.Background(), &queue.Outcome{Lease: l, Done: []int{0}}); err != nil {
				t.Errorf("outcome %d: %v", i, err)
				return
			}
		}
	})
	// And once more, when even the ballast is somebody else's.
	within(t, "Close", func() { s.Close() })
	fillDisk(t, dir, 0)
	within(t, "Open", func() {
		again, err := Open(name, &Options{Log: slog.New(slog.DiscardHandler)})
		if err == nil { // its log was short enough
			again.Close()
		} else if !errors.Is(err, queue.ErrFull) {
			t.Errorf("Open with no room at all: %v", err)
		}
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	within(t, "going on", func() { awaitRoom(t, s) })
}
