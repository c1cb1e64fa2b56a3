package diskstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/store"
)

func openMem(t testing.TB, disk vfs.FS, o Options) *Store {
	t.Helper()
	o.fs, o.Log = disk, slog.New(slog.DiscardHandler)
	s, err := Open("mail", &o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fact is what a test knows of one message, by its text: before each call and
// after it.
type fact struct {
	acked   bool // an append returned
	flagged bool // as did a change of flags
	moved   bool // and a move
	removed bool // and an expunge
	// What was asked for and maybe is not there.
	asks struct{ flag, move, remove bool }
}

type ledger struct {
	mu    sync.Mutex
	facts map[string]fact
	// seen are UIDs as readers were shown them: they mean one message for ever.
	seen map[string]string
}

func (l *ledger) note(f func(fact) fact, texts ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range texts {
		l.facts[t] = f(l.facts[t])
	}
}

func (l *ledger) copy() (map[string]fact, map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.facts), maps.Clone(l.seen)
}

// TestCrash takes the disk as it may be after a power loss, at any moment of
// many writers' work, and holds what is on it against what was promised.
func TestCrash(t *testing.T) {
	for seed := range uint64(3) {
		for _, unsynced := range []int{0, 50} {
			t.Run(fmt.Sprintf("seed=%d/unsynced=%d", seed, unsynced), func(t *testing.T) { crash(t, seed, unsynced) })
		}
	}
}

func crash(t *testing.T, seed uint64, unsynced int) {
	const writers, steps, crashes = 4, 60, 12
	o := Options{BodyMemory: 2000, Grace: time.Millisecond, lengths: lengths{8, 10, 4}}
	disk := vfs.NewCrashableMem()
	s := openMem(t, disk, o)
	accounts := []string{"a", "b", "c"}
	dest := make(map[string]store.MailboxID)
	for _, name := range accounts {
		m, err := newAccount(t, s, name).CreateMailbox(ctx, store.NewMailbox{Name: "dest"})
		if err != nil {
			t.Fatal(err)
		}
		dest[name] = m.ID
	}
	l := &ledger{facts: make(map[string]fact), seen: make(map[string]string)}
	type image struct {
		disk   *vfs.MemFS
		before map[string]fact
		after  map[string]fact
		seen   map[string]string
	}
	var images []image
	var mu sync.Mutex
	take := func(rng *rand.Rand) {
		mu.Lock()
		defer mu.Unlock()
		if len(images) == crashes {
			return
		}
		im := image{}
		im.before, im.seen = l.copy()
		im.disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rng})
		im.after, _ = l.copy()
		images = append(images, im)
	}
	key := func(acct string, m store.MailboxID, uid store.UID) string { return fmt.Sprint(acct, " ", m, " ", uid) }
	var wg, readers sync.WaitGroup
	stop := make(chan struct{})
	readers.Go(func() { // a reader who remembers all
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, name := range accounts {
				a, err := s.Account(ctx, name)
				if err != nil {
					t.Error(err)
					return
				}
				for m, err := range a.Messages(ctx, store.Inbox, store.Query{}) {
					if err != nil {
						t.Error(err)
						return
					}
					l.mu.Lock()
					l.seen[key(name, store.Inbox, m.UID)] = m.ID
					l.mu.Unlock()
				}
			}
		}
	})
	for w := range writers {
		rng := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			type mine struct {
				acct, text string
				uid        store.UID
			}
			var have []mine
			for i := range steps {
				text := strings.Repeat(fmt.Sprintf("writer %d message %d\r\n", w, i), 1+rng.IntN(200))
				if rng.IntN(5) == 0 { // one body for all
					st, err := s.Stage(ctx, -1)
					if err != nil {
						t.Error(err)
						return
					}
					// A copy: vfs files may change what they are given.
					st.Write([]byte(text))
					var targets []store.Target
					var texts []string
					for _, name := range accounts {
						head := "To: " + name + "\r\n"
						targets = append(targets, store.Target{Account: name, Head: []byte(head), Once: text})
						texts = append(texts, name+" "+head+text)
					}
					l.note(func(f fact) fact { return f }, texts...)
					for k, err := range s.Deliver(ctx, store.Draft{Body: st}, targets) {
						if err != nil {
							t.Error(err)
						}
						l.note(func(f fact) fact { f.acked = true; return f }, texts[k])
					}
					st.Close()
				} else {
					name := accounts[rng.IntN(len(accounts))]
					a, err := s.Account(ctx, name)
					if err != nil {
						t.Error(err)
						return
					}
					known := name + " " + text
					l.note(func(f fact) fact { return f }, known)
					r, err := a.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader([]byte(text)), MessageID: "x"}}, store.AppendOptions{})
					if err != nil {
						t.Error(err)
						return
					}
					l.note(func(f fact) fact { f.acked = true; return f }, known)
					have = append(have, mine{name, known, r.Messages[0].UID})
				}
				if rng.IntN(5) == 0 {
					take(rng)
				}
				if len(have) == 0 {
					continue
				}
				k := rng.IntN(len(have))
				m := have[k]
				a, err := s.Account(ctx, m.acct)
				if err != nil {
					t.Error(err)
					return
				}
				switch rng.IntN(3) {
				case 0:
					l.note(func(f fact) fact { f.asks.flag = true; return f }, m.text)
					_, err = a.SetFlags(ctx, store.Inbox, store.UIDs(m.uid), store.FlagOp{Flags: store.NewFlags(store.Flagged, "kw")})
					l.note(func(f fact) fact { f.flagged = true; return f }, m.text)
				case 1:
					l.note(func(f fact) fact { f.asks.move = true; return f }, m.text)
					_, err = a.Copy(ctx, store.Inbox, store.UIDs(m.uid), dest[m.acct], store.CopyOptions{Move: true})
					l.note(func(f fact) fact { f.moved = true; return f }, m.text)
					have = append(have[:k], have[k+1:]...)
				case 2:
					l.note(func(f fact) fact { f.asks.remove = true; return f }, m.text)
					_, err = a.Expunge(ctx, store.Inbox, store.UIDs(m.uid), store.ExpungeOptions{})
					l.note(func(f fact) fact { f.removed = true; return f }, m.text)
					have = append(have[:k], have[k+1:]...)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	readers.Wait()
	take(rand.New(rand.NewPCG(seed, 99)))
	check(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if len(images) < 5 {
		t.Fatalf("only %d crashes", len(images))
	}
	for i, im := range images {
		again := openMem(t, im.disk, o)
		inboxes, moved := make(map[string]int), make(map[string]int)
		for _, name := range accounts {
			a, err := again.Account(ctx, name)
			if err != nil {
				t.Fatal(err)
			}
			for box, found := range map[store.MailboxID]map[string]int{store.Inbox: inboxes, dest[name]: moved} {
				for m, err := range a.Messages(ctx, box, store.Query{}) {
					if err != nil {
						t.Fatal(err)
					}
					if was, ok := im.seen[key(name, box, m.UID)]; ok && was != m.ID {
						t.Errorf("crash %d: a reader saw UID %d as %s, it is %s", i, m.UID, was, m.ID)
					}
					b, err := a.Open(ctx, m)
					if err != nil {
						t.Fatalf("crash %d: UID %d: %v", i, m.UID, err)
					}
					text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
					b.Close()
					known := name + " " + string(text)
					found[known]++
					f, was := im.after[known]
					if err != nil || !was || int64(len(text)) != m.Size {
						t.Errorf("crash %d: a message of %d octets that nobody sent, %v", i, len(text), err)
					}
					if has := m.Flags.System.Has(store.Flagged) && m.Flags.Has("kw"); im.before[known].flagged && !has || has && !f.asks.flag {
						t.Errorf("crash %d: flags of %.30q are %v", i, known, m.Flags)
					}
				}
			}
			next, _, err := a.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{store.Inbox}})
			if err != nil {
				t.Fatal(err)
			}
			for k := range im.seen {
				var uid store.UID
				if n, _ := fmt.Sscanf(k, name+" INBOX %d", &uid); n == 1 && uid >= next[0].UIDNext {
					t.Errorf("crash %d: a reader saw UID %d, which will be given again", i, uid)
				}
			}
		}
		for known, f := range im.before {
			n, after := inboxes[known]+moved[known], im.after[known]
			switch {
			case n > 1:
				t.Errorf("crash %d: %.30q is there %d times", i, known, n)
			case f.acked && !after.asks.remove && n == 0:
				t.Errorf("crash %d: %.30q was acknowledged and is lost", i, known)
			case f.moved && moved[known] != 1, !after.asks.move && moved[known] > 0:
				t.Errorf("crash %d: %.30q was moved: %v, asked: %v; is there: %v", i, known, f.moved, after.asks.move, moved[known])
			case f.removed && n > 0:
				t.Errorf("crash %d: %.30q was expunged and is back", i, known)
			}
		}
		check(t, again)
		if _, err := again.sweep(ctx, time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
		check(t, again)
		for _, name := range accounts {
			if err := again.DeleteAccount(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := again.sweep(ctx, time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
		nothingLeft(t, again, "Ano")
		if err := again.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			return
		}
	}
}

// TestOrphans shows that a body that was never appended is gone after a crash.
func TestOrphans(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openMem(t, disk, Options{BodyMemory: 100})
	defer s.Close()
	st, err := s.Stage(ctx, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(bytes.Repeat([]byte("x"), 1000)); err != nil {
		t.Fatal(err)
	}
	if err := st.(*staged).seal(); err != nil {
		t.Fatal(err)
	}
	image := disk.CrashClone(vfs.CrashCloneCfg{})
	if l, _ := image.List("mail/blobs"); len(l) != 1 {
		t.Fatalf("blobs %v before", l)
	}
	again := openMem(t, image, Options{})
	nothingLeft(t, again, "")
	again.Close()
	st.Close()
	nothingLeft(t, s, "")
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	o := &Options{MinFree: -1}
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	a := newAccount(t, s, "a")
	if _, err := Open(dir, o); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := s.Account(ctx, "a"); !errors.Is(err, ErrClosed) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Account after Close: %v", err)
	}
	if _, err := a.Append(ctx, store.Inbox, nil, store.AppendOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close: %v", err)
	}
	write := func(disk vfs.FS, name, text string) {
		disk.MkdirAll("mail", 0o700)
		f, err := disk.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		f.Write([]byte(text))
		f.Close()
	}
	for name, text := range map[string]string{"mail/FORMAT": "postrider diskstore 7\n", "mail/holiday.jpg": "x"} {
		disk := vfs.NewMem()
		write(disk, name, text)
		if _, err := Open("mail", &Options{fs: disk}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
}
