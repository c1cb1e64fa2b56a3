package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
)

// trips counts round trips to the database.
type trips struct{ n atomic.Int64 }

func (c *trips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}

func (c *trips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *trips) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	c.n.Add(1)
	return ctx
}

func (c *trips) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (c *trips) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// of is how many f takes.
func (c *trips) of(f func()) int64 {
	was := c.n.Load()
	f()
	return c.n.Load() - was
}

// counted is a store whose round trips are counted, and its pool.
func counted(t *testing.T, o Options, mode ...pgx.QueryExecMode) (*Store, *pgxpool.Pool, *trips) {
	t.Helper()
	c := new(trips)
	plain := pgtest.Pool(t)
	conf := plain.Config()
	conf.ConnConfig.Tracer = c
	for _, m := range mode {
		conf.ConnConfig.DefaultQueryExecMode = m
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	o.Schema, o.Log = pgtest.Schema(t, plain), slog.New(slog.DiscardHandler)
	s, err := Open(t.Context(), pool, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, pool, c
}

func newAccount(t *testing.T, s *Store, id string) *account {
	t.Helper()
	if err := s.CreateAccount(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	a, err := s.Account(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a.(*account)
}

func draft(text string) store.Draft {
	return store.Draft{Body: strings.NewReader("Subject: " + text + "\r\n\r\n"), MessageID: text}
}

// What each call costs, on a network where a round trip is what counts; with
// prepared statements and without, as behind an old PgBouncer. A node tells others of what it did a few times a second at most, which is not
// counted: the store here has nothing to tell any more.
func TestRoundTrips(t *testing.T) {
	for name, mode := range map[string]pgx.QueryExecMode{
		"prepared": pgx.QueryExecModeCacheStatement, "exec": pgx.QueryExecModeExec, "simple": pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(name, func(t *testing.T) { roundTrips(t, mode) })
	}
}

func roundTrips(t *testing.T, mode pgx.QueryExecMode) {
	ctx := t.Context()
	s, _, c := counted(t, Options{}, mode)
	a := newAccount(t, s, "a")
	var targets []store.Target
	for i := range 50 {
		id := fmt.Sprint("rcpt", i)
		newAccount(t, s, id)
		targets = append(targets, store.Target{Account: id, Head: []byte("Delivered-To: x\r\n"), Once: "1"})
	}
	s.hub.line.Close()
	if _, err := a.Append(ctx, store.Inbox, []store.Draft{{Flags: store.NewFlags(0, "known")}}, store.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	b, err := a.CreateMailbox(ctx, store.NewMailbox{Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	next := func() store.Draft { n++; return draft(fmt.Sprint("m", n)) }
	for _, x := range []struct {
		name string
		most int64
		call func() error
	}{
		{"Append", 1, func() error {
			_, err := a.Append(ctx, store.Inbox, []store.Draft{next()}, store.AppendOptions{})
			return err
		}},
		{"Append of many", 1, func() error {
			var d []store.Draft
			for range 50 {
				d = append(d, next())
			}
			_, err := a.Append(ctx, store.Inbox, d, store.AppendOptions{})
			return err
		}},
		{"Append with a keyword", 1, func() error {
			d := next()
			d.Flags = store.NewFlags(store.Seen, "KNOWN")
			r, err := a.Append(ctx, store.Inbox, []store.Draft{d}, store.AppendOptions{})
			if err == nil && !r.Messages[0].Flags.Equal(store.NewFlags(store.Seen, "known")) {
				err = fmt.Errorf("flags %v", r.Messages[0].Flags)
			}
			return err
		}},
		{"Append of a staged body", 1, func() error {
			st, err := s.Stage(ctx, -1)
			if err != nil {
				return err
			}
			defer st.Close()
			st.Write([]byte("Subject: staged\r\n\r\n"))
			_, err = a.Append(ctx, store.Inbox, []store.Draft{{Body: st}}, store.AppendOptions{})
			return err
		}},
		{"Deliver to 50", 1, func() error { return errors.Join(s.Deliver(ctx, next(), targets)...) }},
		{"Deliver to 50 again", 1, func() error { return errors.Join(s.Deliver(ctx, next(), targets)...) }},
		{"SetFlags", 3, func() error {
			_, err := a.SetFlags(ctx, store.Inbox, store.AllUIDs(), store.FlagOp{Flags: store.NewFlags(store.Flagged, "known")})
			return err
		}},
		{"SetFlags that changes nothing", 3, func() error {
			_, err := a.SetFlags(ctx, store.Inbox, store.AllUIDs(), store.FlagOp{Flags: store.NewFlags(store.Flagged)})
			return err
		}},
		{"Copy", 3, func() error {
			_, err := a.Copy(ctx, store.Inbox, store.AllUIDs(), b.ID, store.CopyOptions{})
			return err
		}},
		{"Move", 5, func() error {
			_, err := a.Copy(ctx, store.Inbox, store.UIDs(2), b.ID, store.CopyOptions{Move: true})
			return err
		}},
		{"Expunge", 3, func() error { _, err := a.Expunge(ctx, store.Inbox, store.UIDs(3), store.ExpungeOptions{}); return err }},
		{"Mailboxes", 1, func() error { _, _, err := a.Mailboxes(ctx, store.MailboxQuery{Counts: true}); return err }},
		{"Changes", 1, func() error { _, err := a.Changes(ctx, store.Inbox, 0); return err }},
		{"a list of 50", 3, func() error {
			for _, err := range a.Messages(ctx, store.Inbox, store.Query{}) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		if got := c.of(func() {
			if err := x.call(); err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
		}); got > x.most {
			t.Errorf("%s took %d round trips, want at most %d", x.name, got, x.most)
		}
	}
}

// held locks an account until the function it returns is called.
func held(t *testing.T, s *Store, pool *pgxpool.Pool, a *account) (release func()) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), s.sql(lockSQL), a.num); err != nil {
		t.Fatal(err)
	}
	return func() { tx.Rollback(context.Background()) }
}

// await waits until a condition holds that other goroutines bring about.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("waited a minute for ", what)
		}
	}
}

func (j *joiner) waits(account int64) (n int, runs bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	list, runs := j.waiting[account]
	return len(list), runs
}

// While one Append commits, others come: they are one transaction, and each
// has its own outcome.
func TestJoin(t *testing.T) {
	ctx := t.Context()
	s, pool, c := counted(t, Options{})
	a := newAccount(t, s, "a")
	if err := s.SetQuota(ctx, "a", 10_000); err != nil {
		t.Fatal(err)
	}
	other, err := a.CreateMailbox(ctx, store.NewMailbox{Name: "other"})
	if err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, calls []func() error) (errs []error, used int64) {
		t.Helper()
		release := held(t, s, pool, a)
		defer release()
		errs = make([]error, len(calls)+1)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, errs[len(calls)] = a.Append(ctx, store.Inbox, []store.Draft{draft(t.Name())}, store.AppendOptions{})
		})
		await(t, "the first to be under way", func() bool { n, runs := s.joiner.waits(a.num); return runs && n == 0 })
		for i, call := range calls {
			wg.Go(func() { errs[i] = call() })
		}
		await(t, "the others to wait", func() bool { n, _ := s.joiner.waits(a.num); return n == len(calls) })
		used = c.of(func() {
			release()
			wg.Wait()
		})
		return errs, used
	}
	add := func(box store.MailboxID, d store.Draft, out *store.Appended) func() error {
		return func() (err error) {
			r, err := a.Append(ctx, box, []store.Draft{d}, store.AppendOptions{})
			if out != nil {
				*out = r
			}
			return err
		}
	}
	t.Run("all well", func(t *testing.T) {
		outs := make([]store.Appended, 40)
		var calls []func() error
		for i := range outs {
			box := store.Inbox
			if i%2 == 1 {
				box = other.ID
			}
			calls = append(calls, add(box, draft(fmt.Sprint("all well ", i)), &outs[i]))
		}
		s.hub.line.Close() // what it tells is no round trip of ours
		errs, used := run(t, calls)
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		// The release of the lock, the first, and all others at once.
		if used > 3 {
			t.Errorf("40 Appends together took %d round trips", used)
		}
		// Each is a step of its own, from the ModSeq that its mailbox had.
		byPrev := make(map[string]bool)
		for i, r := range outs {
			if r.Prev >= r.ModSeq || len(r.Messages) != 1 || r.Messages[0].ModSeq != r.ModSeq || r.Messages[0].UID == 0 {
				t.Fatalf("Append %d: %+v", i, r)
			}
			key := fmt.Sprint(i%2, " ", r.Prev)
			if byPrev[key] {
				t.Errorf("two Appends to one mailbox have the same Commit.Prev")
			}
			byPrev[key] = true
		}
	})
	t.Run("some fail", func(t *testing.T) {
		big := store.Draft{Body: strings.NewReader(strings.Repeat("x", 20_000))}
		errs, _ := run(t, []func() error{
			add(store.Inbox, draft("good 1"), nil),
			add("nowhere", draft("no mailbox"), nil),
			add(store.Inbox, big, nil),
			add(store.Inbox, store.Draft{Flags: store.NewFlags(0, "new-keyword")}, nil),
			add(other.ID, draft("good 2"), nil),
		})
		// A name that cannot be a keyword does not even wait with the others.
		if err := add(store.Inbox, store.Draft{Flags: store.NewFlags(0, strings.Repeat("x", 2000))}, nil)(); !errors.Is(err, store.ErrLimit) {
			t.Errorf("a keyword of 2,000 octets: %v", err)
		}
		for i, want := range []error{nil, store.ErrNotExist, store.ErrQuota, nil, nil, nil} {
			if !errors.Is(errs[i], want) || want == nil && errs[i] != nil {
				t.Errorf("Append %d: %v, want %v", i, errs[i], want)
			}
		}
	})
	t.Run("one gives up", func(t *testing.T) {
		gone, cancel := context.WithCancel(ctx)
		release := held(t, s, pool, a)
		defer release()
		var wg sync.WaitGroup
		var first, second error
		wg.Go(func() {
			_, first = a.Append(gone, store.Inbox, []store.Draft{draft("under way")}, store.AppendOptions{})
		})
		await(t, "the first to be under way", func() bool { n, runs := s.joiner.waits(a.num); return runs && n == 0 })
		wg.Go(func() { _, second = a.Append(gone, store.Inbox, []store.Draft{draft("never")}, store.AppendOptions{}) })
		var third error
		var thirdOut store.Appended
		done := make(chan struct{})
		go func() {
			defer close(done)
			thirdOut, third = a.Append(ctx, store.Inbox, []store.Draft{draft("third")}, store.AppendOptions{})
		}()
		await(t, "two to wait", func() bool { n, _ := s.joiner.waits(a.num); return n == 2 })
		cancel()
		wg.Wait() // with the account still locked
		if !errors.Is(first, context.Canceled) || !errors.Is(second, context.Canceled) {
			t.Errorf("given up: %v, %v", first, second)
		}
		release()
		<-done
		if third != nil || len(thirdOut.Messages) != 1 {
			t.Fatalf("the one that did not give up: %+v, %v", thirdOut, third)
		}
		found := make(map[string]int)
		for m, err := range a.Messages(ctx, store.Inbox, store.Query{Fields: store.WithBody}) {
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, m.Body.Size())
			m.Body.ReadAt(b, 0)
			found[string(b)]++
		}
		if found["Subject: never\r\n\r\n"] != 0 || found["Subject: third\r\n\r\n"] != 1 || found["Subject: under way\r\n\r\n"] != 1 {
			t.Errorf("the mailbox has %v", found)
		}
	})
}

// A call that comes after Close is nobody's goroutine but its caller's.
func TestAppendAfterClose(t *testing.T) {
	s, _, _ := counted(t, Options{})
	a := newAccount(t, s, "a")
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := a.Append(t.Context(), store.Inbox, []store.Draft{draft("late")}, store.AppendOptions{})
	if err != nil || len(r.Messages) != 1 {
		t.Errorf("Append after Close: %+v, %v", r, err)
	}
	if _, err := a.Append(t.Context(), "nowhere", []store.Draft{draft("later")}, store.AppendOptions{}); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("Append to no mailbox after Close: %v", err)
	}
}

// Of messages that refer to one another and come together the later ones are
// in the thread of the first.
func TestJoinThreads(t *testing.T) {
	ctx := t.Context()
	s, pool, _ := counted(t, Options{})
	a := newAccount(t, s, "a")
	release := held(t, s, pool, a)
	defer release()
	outs := make([]store.Appended, 8)
	errs := make([]error, len(outs))
	var wg sync.WaitGroup
	for i := range outs {
		d := store.Draft{MessageID: fmt.Sprint("m", i)}
		if i > 0 {
			d.References = []string{"root", "m0"}
		} else {
			d.References = []string{"root"}
		}
		wg.Go(func() { outs[i], errs[i] = a.Append(ctx, store.Inbox, []store.Draft{d}, store.AppendOptions{}) })
	}
	await(t, "all but one to wait", func() bool { n, runs := s.joiner.waits(a.num); return runs && n == len(outs)-1 })
	release()
	wg.Wait()
	for i, r := range outs {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if r.Messages[0].ThreadID != outs[0].Messages[0].ThreadID {
			t.Errorf("message %d is in thread %s, the first in %s", i, r.Messages[0].ThreadID, outs[0].Messages[0].ThreadID)
		}
	}
}

// All connections are in use: callers hear of it in time, and all is well when
// there are some again.
func TestPoolExhausted(t *testing.T) {
	ctx := t.Context()
	s, pool, _ := counted(t, Options{Timeout: time.Second})
	a := newAccount(t, s, "a")
	var all []*pgxpool.Conn
	for range pool.Config().MaxConns {
		c, err := pool.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for name, call := range map[string]func() error{
		"Append": func() error {
			_, err := a.Append(ctx, store.Inbox, []store.Draft{draft("x")}, store.AppendOptions{})
			return err
		},
		"Mailboxes": func() error { _, _, err := a.Mailboxes(ctx, store.MailboxQuery{}); return err },
		"SetFlags": func() error {
			_, err := a.SetFlags(ctx, store.Inbox, store.AllUIDs(), store.FlagOp{Flags: store.NewFlags(store.Seen)})
			return err
		},
		"Account": func() error { _, err := s.Account(ctx, "a"); return err },
		"Deliver": func() error { return s.Deliver(ctx, draft("y"), []store.Target{{Account: "a"}})[0] },
		"Messages": func() error {
			for _, err := range a.Messages(ctx, store.Inbox, store.Query{}) {
				return err
			}
			return nil
		},
	} {
		if err := call(); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s without a connection: %v", name, err)
		}
	}
	if _, err := s.acquire(timeout(t, ctx, 50*time.Millisecond)); !errors.Is(err, errBusy) {
		t.Errorf("acquire says %v", err)
	}
	for _, c := range all {
		c.Release()
	}
	if _, err := a.Append(ctx, store.Inbox, []store.Draft{draft("z")}, store.AppendOptions{}); err != nil {
		t.Errorf("with connections again: %v", err)
	}
}

func timeout(t *testing.T, ctx context.Context, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(ctx, d)
	t.Cleanup(cancel)
	return ctx
}

// A node that has nothing to do but watches many accounts asks next to nothing:
// one query each Poll, and a few each minute for the sweep.
func TestIdle(t *testing.T) {
	ctx := t.Context()
	s, _, c := counted(t, Options{Poll: time.Hour})
	for i := range 200 {
		stop := newAccount(t, s, fmt.Sprint("a", i)).Watch(func() {})
		defer stop()
	}
	s.hub.line.Close()
	polls := c.of(func() {
		if err := s.hub.poll(ctx); err != nil {
			t.Error(err)
		}
	})
	sweeps := c.of(func() {
		if err := s.sweepDue(ctx); err != nil {
			t.Error(err)
		}
	})
	if polls != 1 || sweeps != 1 {
		t.Errorf("looking for other nodes' commits takes %d round trips, an idle sweep %d, want 1 each", polls, sweeps)
	}
	// A second node does no more than this one, and LISTEN asks nothing.
	if each := 1/defaultPoll.Seconds() + 1/sweepEvery.Seconds(); each > 5 {
		t.Errorf("an idle node asks %.1f times a second", each)
	}
}
