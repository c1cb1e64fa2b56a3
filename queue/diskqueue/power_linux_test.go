package diskqueue

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/queue"
)

// asLoad in the environment names the directory that this process is to load.
const asLoad = "DISKQUEUE_LOAD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asLoad); dir != "" {
		if err := load(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// load uses a queue until it is killed, and says of each entry what it asks
// and what was promised.
func load(dir string) error {
	s, err := Open(dir, nil)
	if err != nil {
		return err
	}
	o := queue.NewOwner()
	if _, err := s.Renew(context.Background(), o, time.Hour); err != nil {
		return err
	}
	errs := make(chan error, 8)
	say := func(p promise, e *queue.Entry, size int) {
		os.Stdout.WriteString(fmt.Sprintf("%d %v %d\n", p, e.ID, size))
	}
	for range cap(errs) {
		go func() {
			errs <- func() error {
				for {
					size := rand.IntN(6000)
					if rand.IntN(30) == 0 {
						size = 150_000 + rand.IntN(100_000)
					}
					sub := mailOf(foreignBody(noise(size)), 1+rand.IntN(3))
					for _, e := range sub.Entries {
						say(putAsked, e, len(sub.Head)+int(sub.Body.Size()))
					}
					if err := s.Put(context.Background(), sub); err != nil {
						return err
					}
					for _, e := range sub.Entries {
						say(putDone, e, 0)
					}
					leases, err := s.Lease(context.Background(), o, []queue.Want{{Lane: queue.Lane{Dest: fmt.Sprintf("d%d.test", rand.IntN(3))}, Max: 2}})
					if err != nil {
						return err
					}
					for _, l := range leases {
						out := &queue.Outcome{Lease: l, Due: time.Now(), Alarm: time.Now().Add(time.Hour)}
						if rand.IntN(3) > 0 {
							out.Done = []int{0}
							say(finishAsked, l.Entry, 0)
						}
						if err := s.Finish(context.Background(), out); err != nil {
							return err
						}
						if out.Done != nil {
							say(finishDone, l.Entry, 0)
						}
					}
				}
			}()
		}()
	}
	return <-errs
}

// TestPowerLoss copies what a disk has at the moment its machine loses power,
// which is not what the files seem to hold, and opens the queue on the copy:
// all that was promised is there. POSTRIDER_POWER=6 is the long form.
func TestPowerLoss(t *testing.T) {
	needRoot(t)
	for _, program := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("POSTRIDER_REQUIRE") != "" {
				t.Fatalf("%s is required and not installed", program)
			}
			t.Skipf("%s is not installed", program)
		}
	}
	rounds := 1
	if s := os.Getenv("POSTRIDER_POWER"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(512 << 20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	command(t, "mkfs.ext4", "-q", image)
	book := make(map[queue.ID]promise)
	sizes := make(map[queue.ID]int)
	for round := range rounds {
		// The journal is written when it is told to, so that nothing changes
		// while the image is copied.
		command(t, "mount", "-o", "loop,commit=300", image, at)
		t.Cleanup(func() { exec.Command("umount", at).Run() }) // if it fails in between
		cut(t, filepath.Join(at, "q"), book, sizes)
		copied := filepath.Join(dir, "copy")
		command(t, "cp", "--sparse=always", image, copied)
		command(t, "umount", at)
		command(t, "mount", "-o", "loop", copied, at)
		found := afterPowerLoss(t, filepath.Join(at, "q"), book, sizes)
		command(t, "umount", at)
		n := 0
		for id, p := range book {
			if p == putDone {
				n++
			}
			// From here on it is certain.
			switch {
			case found[id]:
				book[id] = putDone
			default:
				book[id] = finishDone
			}
		}
		t.Logf("round %d: %d entries asked for so far, %d of them promised and not asked to be finished, %d there", round+1, len(book), n, len(found))
		if n < 20 {
			t.Errorf("only %d entries were promised", n)
		}
		if err := os.Rename(copied, image); err != nil { // the next round goes on there
			t.Fatal(err)
		}
	}
}

// cut loads dir and kills the load at some moment.
func cut(t *testing.T, dir string, book map[queue.ID]promise, sizes map[queue.ID]int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), asLoad+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kill sync.Once
	for sc := bufio.NewScanner(out); sc.Scan(); {
		f := strings.Fields(sc.Text())
		p, _ := strconv.Atoi(f[0])
		id, err := queue.ParseID(f[1])
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := strconv.Atoi(f[2]); n > 0 {
			sizes[id] = n
		}
		book[id] = max(book[id], promise(p))
		kill.Do(func() {
			time.AfterFunc(300*time.Millisecond+rand.N(700*time.Millisecond), func() { cmd.Process.Kill() })
		})
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("the load ended by itself: %v\n%s", err, stderr.Bytes())
	}
}

func afterPowerLoss(t *testing.T, dir string, book map[queue.ID]promise, sizes map[queue.ID]int) map[queue.ID]bool {
	t.Helper()
	s, err := Open(dir, &Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	found := make(map[queue.ID]bool)
	for e, err := range s.List(context.Background(), queue.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		found[e.ID] = true
		if book[e.ID] == finishDone {
			t.Errorf("entry %v was finished and is back", e.ID)
		}
		b, err := s.Open(context.Background(), e.Message)
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, b.Size())
		if n, err := b.ReadAt(text, 0); n != len(text) || n != sizes[e.ID] || bytes.IndexByte(text, 0) >= 0 {
			t.Errorf("message %v: %d octets of %d, want %d, or some that were never written: %v", e.Message.ID, n, len(text), sizes[e.ID], err)
		}
		b.Close()
	}
	for id, p := range book {
		if p == putDone && !found[id] {
			t.Errorf("entry %v was acknowledged and is lost", id)
		}
	}
	if r, err := s.Check(context.Background()); err != nil || len(r.Problems) > 0 {
		t.Errorf("%v, %v", r.Problems, err)
	}
	return found
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
