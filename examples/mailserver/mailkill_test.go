package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/diskstore"
)

// kept is what was promised of one message to one account.
type kept struct {
	flagged, moved bool // a change was acknowledged
	asked          bool // to be moved, maybe with no answer
}

// mailLedger is what was promised. Each line is synced before the next
// command, by this process, which nobody kills.
type mailLedger struct {
	mu   sync.Mutex
	file *os.File
	kept map[parcel]kept
}

func (l *mailLedger) note(p parcel, f func(*kept)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kept[p]
	f(&k)
	l.kept[p] = k
	if _, err := fmt.Fprintf(l.file, "%s %s %+v\n", p.to, p.id, k); err != nil {
		return err
	}
	return l.file.Sync()
}

// TestKillMail kills the program at random moments while mail is delivered,
// appended, flagged and moved, and then looks into its directory: nothing
// that was acknowledged is lost, and every mailbox passes Check.
// POSTRIDER_KILLS=200 is the long form.
func TestKillMail(t *testing.T) {
	messages := 0
	for rounds := killRounds(t); rounds > 0 && !t.Failed(); rounds -= 10 {
		messages += killMail(t, min(rounds, 10))
	}
	t.Logf("%d messages", messages)
}

// killMail is some rounds over one directory.
func killMail(t *testing.T, rounds int) (messages int) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	file, err := os.Create(filepath.Join(dir, "acknowledged"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	l := &mailLedger{file: file, kept: make(map[parcel]kept)}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	users := []string{"alice@example.test", "bob@example.test", "carol@example.test"}
	for round := 0; round < rounds && !t.Failed(); round++ {
		args := []string{"-data", data, "-insecure-auth", "-smtp", "", "-submission", "", "-submissions", "", "-imaps", "", "-pop3", "", "-pop3s", "",
			"-imap", "127.0.0.1:0", "-lmtp", "127.0.0.1:0"}
		for _, u := range users {
			args = append(args, "-user", u+":secret")
		}
		cmd := exec.Command(exe, args...)
		cmd.Env = append(os.Environ(), asServer+"=1")
		var log bytes.Buffer
		cmd.Stderr = &log
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		addr, ready := make(map[string]string), false
		for sc := bufio.NewScanner(out); !ready && sc.Scan(); {
			if f := strings.Fields(sc.Text()); len(f) > 1 {
				addr[f[0]] = f[1]
			}
			ready = sc.Text() == "ready"
		}
		if !ready {
			cmd.Wait()
			t.Fatalf("round %d: the server did not start:\n%s", round, log.Bytes())
		}
		var wg, busy sync.WaitGroup
		work := func(name string, f func(name string, begun func()) error) {
			busy.Add(1)
			wg.Go(func() {
				begun := sync.OnceFunc(busy.Done)
				defer begun()
				err := f(name, begun)
				var reply *textproto.Error
				if errors.As(err, &reply) || errors.Is(err, errRefused) { // it must be cut, not refused
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		for i := range 3 {
			work(fmt.Sprintf("d%d.%d", round, i), func(name string, begun func()) error {
				return deliverLoad(addr["lmtp"], name, users, l, begun)
			})
			work(fmt.Sprintf("i%d.%d", round, i), func(name string, begun func()) error {
				return imapLoad(addr["imap"], name, users[i], l, begun)
			})
		}
		busy.Wait()
		<-time.After(rand.N(300 * time.Millisecond)) // the moment is random
		cmd.Process.Kill()
		cmd.Wait()
		wg.Wait()
		lookInto(t, filepath.Join(data, "mail"), users, l)
	}
	if len(l.kept) < 5*rounds {
		t.Errorf("only %d messages were acknowledged in %d rounds", len(l.kept), rounds)
	}
	return len(l.kept)
}

var errRefused = errors.New("refused")

// lookInto holds what is on the disk against what was promised.
func lookInto(t *testing.T, dir string, users []string, l *mailLedger) {
	t.Helper()
	ctx := context.Background()
	s, err := diskstore.Open(dir, &diskstore.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Check(ctx)
	if err != nil || len(r.Problems) > 0 {
		t.Fatalf("Check: %v %v", r.Problems, err)
	}
	found := make(map[parcel][]string) // mailboxes
	flagged := make(map[parcel]bool)
	for _, u := range users {
		a, err := s.Account(ctx, u)
		if err != nil {
			t.Fatal(err)
		}
		boxes, _, err := a.Mailboxes(ctx, store.MailboxQuery{})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range boxes {
			for m, err := range a.Messages(ctx, b.ID, store.Query{}) {
				if err != nil {
					t.Fatal(err)
				}
				blob, err := a.Open(ctx, m)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
				blob.Close()
				id, whole := wholeLoad(string(text))
				if err != nil || !whole || int64(len(text)) != m.Size {
					t.Errorf("%s, %s, UID %d: it is not what was sent: %q, %v", u, b.Name, m.UID, id, err)
				}
				p := parcel{id, u}
				found[p] = append(found[p], b.Name)
				flagged[p] = m.Flags.System.Has(store.Flagged)
			}
		}
	}
	for p, k := range l.kept {
		in := found[p]
		switch {
		case len(in) == 0:
			t.Errorf("%v was acknowledged and is lost", p)
		case len(in) > 1:
			t.Errorf("%v is there %d times, in %v", p, len(in), in)
		case k.moved && in[0] != "Archive", !k.asked && in[0] != "INBOX":
			t.Errorf("%v is in %s; moved: %v, asked: %v", p, in[0], k.moved, k.asked)
		case k.flagged && !flagged[p]:
			t.Errorf("%v was flagged and is not", p)
		}
	}
}

// deliverLoad sends messages over LMTP until the server is gone.
func deliverLoad(addr, session string, users []string, l *mailLedger, begun func()) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	c := textproto.NewConn(nc)
	defer c.Close()
	if _, _, err := c.ReadResponse(220); err != nil {
		return err
	}
	if err := command(c, 250, "LHLO load.test"); err != nil {
		return err
	}
	begun()
	for n := 0; ; n++ {
		id := fmt.Sprintf("%s-%d", session, n)
		to := users[:1+rand.IntN(len(users))]
		if err := command(c, 250, "MAIL FROM:<x@load.test>"); err != nil {
			return err
		}
		for _, u := range to {
			if err := command(c, 250, "RCPT TO:<"+u+">"); err != nil {
				return err
			}
		}
		if err := command(c, 354, "DATA"); err != nil {
			return err
		}
		if _, err := io.WriteString(nc, loadText(id, loadSize())+".\r\n"); err != nil {
			return err
		}
		for _, u := range to {
			if _, _, err := c.ReadResponse(250); err != nil {
				return err
			}
			if err := l.note(parcel{id, u}, func(*kept) {}); err != nil {
				return err
			}
		}
	}
}

// wholeLoad reads what loadText made, behind what delivery put before it.
func wholeLoad(text string) (id string, whole bool) {
	text = text[max(strings.Index(text, "From: alice@"), 0):]
	_, rest, _ := strings.Cut(text, "X-Load: ")
	id, _, _ = strings.Cut(rest, "\r\n")
	return id, text == loadText(id, len(text)-len("end of "+id+"\r\n"))
}

func loadSize() int {
	if rand.IntN(50) == 0 {
		return 200_000 // a file of its own
	}
	return rand.IntN(4000)
}

var appendUID = regexp.MustCompile(`APPENDUID \d+ (\d+)`)

// imapLoad appends, flags and moves until the server is gone.
func imapLoad(addr, session, user string, l *mailLedger, begun func()) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	br := bufio.NewReader(nc)
	tag := 0
	run := func(format string, args ...any) (string, error) {
		tag++
		t := fmt.Sprintf("t%d ", tag)
		if _, err := fmt.Fprintf(nc, t+format+"\r\n", args...); err != nil {
			return "", err
		}
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return "", err
			}
			if rest, ok := strings.CutPrefix(line, t); ok {
				if !strings.HasPrefix(rest, "OK") {
					err = fmt.Errorf("%w: %s", errRefused, rest)
				}
				return rest, err
			}
		}
	}
	if _, err := run("LOGIN %s secret", user); err != nil {
		return err
	}
	if _, err := run("SELECT INBOX"); err != nil {
		return err
	}
	begun()
	for n := 0; ; n++ {
		p := parcel{fmt.Sprintf("%s-%d", session, n), user}
		text := loadText(p.id, loadSize())
		rest, err := run("APPEND INBOX {%d+}\r\n%s", len(text), text)
		if err != nil {
			return err
		}
		if err := l.note(p, func(*kept) {}); err != nil {
			return err
		}
		uid := appendUID.FindStringSubmatch(rest)
		if uid == nil {
			return fmt.Errorf("%w: no APPENDUID: %s", errRefused, rest)
		}
		if rand.IntN(2) == 0 {
			if _, err := run(`UID STORE %s +FLAGS (\Flagged)`, uid[1]); err != nil {
				return err
			}
			if err := l.note(p, func(k *kept) { k.flagged = true }); err != nil {
				return err
			}
		}
		if rand.IntN(4) == 0 {
			if err := l.note(p, func(k *kept) { k.asked = true }); err != nil {
				return err
			}
			if _, err := run("UID MOVE %s Archive", uid[1]); err != nil {
				return err
			}
			if err := l.note(p, func(k *kept) { k.moved = true }); err != nil {
				return err
			}
		}
	}
}
