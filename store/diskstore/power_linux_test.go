package diskstore

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
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

	"github.com/postrider/postrider/store"
)

// asLoad in the environment names the directory that this process is to load.
const asLoad = "DISKSTORE_LOAD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asLoad); dir != "" {
		fmt.Fprintln(os.Stderr, load(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// load uses a store until it is killed. It says what was promised: a message,
// and that it was flagged.
func load(dir string) error {
	s, err := Open(dir, nil)
	if err != nil {
		return err
	}
	run := strconv.FormatUint(rand.Uint64(), 36)
	errs := make(chan error, 8)
	for w := range cap(errs) {
		go func() {
			errs <- func() error {
				name := fmt.Sprint("account", w%3)
				if err := s.CreateAccount(ctx, name); err != nil {
					if _, err := s.Account(ctx, name); err != nil {
						return err
					}
				}
				a, err := s.Account(ctx, name)
				if err != nil {
					return err
				}
				for n := 0; ; n++ {
					id := fmt.Sprintf("%s.%d.%d", run, w, n)
					r, err := a.Append(ctx, store.Inbox, []store.Draft{{Body: strings.NewReader(powerText(id)), MessageID: id}}, store.AppendOptions{})
					if err != nil {
						return err
					}
					os.Stdout.WriteString(name + " " + id + " is there\n")
					if n%2 == 0 {
						if _, err := a.SetFlags(ctx, store.Inbox, store.UIDs(r.Messages[0].UID), store.FlagOp{Flags: store.NewFlags(store.Flagged)}); err != nil {
							return err
						}
						os.Stdout.WriteString(name + " " + id + " flagged\n")
					}
				}
			}()
		}()
	}
	return <-errs
}

// powerText is a message of up to 6 KB, now and then of 200.
func powerText(id string) string {
	h := hashOf(id)
	n := 1 + int(h[0])
	if h[1] < 8 {
		n = 10_000
	}
	return id + "\r\n" + strings.Repeat(id+"\r\n", n)
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// TestPowerLoss copies what a disk has at the moment its machine loses power,
// which is not what the files seem to hold, and opens the store on the copy:
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
	image, copied, at := filepath.Join(dir, "image"), filepath.Join(dir, "copy"), filepath.Join(dir, "mounted")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	f.Close()
	command(t, "mkfs.ext4", "-q", image)
	promised := make(map[string]bool) // by account and id: flagged, too
	for round := range rounds {
		// The journal is written when it is told to, so that nothing changes
		// while the image is copied.
		command(t, "mount", "-o", "loop,commit=300", image, at)
		t.Cleanup(func() { exec.Command("umount", at).Run() }) // if it fails in between
		before := len(promised)
		cutPower(t, filepath.Join(at, "mail"), promised)
		command(t, "cp", "--sparse=always", image, copied)
		command(t, "umount", at)
		command(t, "mount", "-o", "loop", copied, at)
		afterPowerLoss(t, filepath.Join(at, "mail"), promised)
		command(t, "umount", at)
		t.Logf("round %d: %d messages were promised", round+1, len(promised)-before)
		if len(promised)-before < 20 {
			t.Errorf("round %d: only %d messages were promised", round+1, len(promised)-before)
		}
		if err := os.Rename(copied, image); err != nil { // the next round goes on there
			t.Fatal(err)
		}
	}
}

// cutPower loads dir and kills the load at some moment.
func cutPower(t *testing.T, dir string, promised map[string]bool) {
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
		if len(f) < 3 {
			continue // cut in the middle
		}
		key := f[0] + " " + f[1]
		promised[key] = promised[key] || f[2] == "flagged"
		kill.Do(func() {
			time.AfterFunc(300*time.Millisecond+rand.N(700*time.Millisecond), func() { cmd.Process.Kill() })
		})
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("the load ended by itself: %v\n%s", err, stderr.Bytes())
	}
}

func afterPowerLoss(t *testing.T, dir string, promised map[string]bool) {
	t.Helper()
	s, err := Open(dir, &Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	check(t, s)
	names, err := s.Accounts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, name := range names {
		a, err := s.Account(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		for m, err := range a.Messages(ctx, store.Inbox, store.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			b, err := a.Open(ctx, m)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
			b.Close()
			id, _, _ := strings.Cut(string(text), "\r\n")
			if err != nil || string(text) != powerText(id) {
				t.Errorf("%s, UID %d: %d octets that were not sent, %v", name, m.UID, len(text), err)
			}
			found[name+" "+id] = true
			if promised[name+" "+id] && !m.Flags.System.Has(store.Flagged) {
				t.Errorf("%s: %s was flagged and is not", name, id)
			}
		}
	}
	for key := range promised {
		if !found[key] {
			t.Errorf("%s was promised and is lost", key)
		}
	}
}
