package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

// plain hides everything optional.
type plain struct{ s *memstore.Store }

func (p plain) Account(ctx context.Context, id string) (store.Account, error) {
	a, err := p.s.Account(ctx, id)
	if err != nil {
		return nil, err
	}
	return struct{ store.Account }{a}, nil
}

func TestWatchPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := account(t, memstore.New(), "alice")
		var calls atomic.Int64
		stop := store.Watch(struct{ store.Account }{a}, time.Minute, func() { calls.Add(1) })
		step := func(want int64, what string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := calls.Swap(0); got != want {
				t.Errorf("%s: %d calls, want %d", what, got, want)
			}
		}
		synctest.Wait()
		step(0, "nothing happened")
		fill(t, a, 1)
		step(1, "an append")
		step(0, "nothing more")
		if _, err := a.CreateMailbox(ctx, store.NewMailbox{Name: "x"}); err != nil {
			t.Fatal(err)
		}
		step(1, "a new mailbox")
		stop()
		stop()
		fill(t, a, 1)
		step(0, "after stop")
	})
}

func TestDeliverWithoutDeliverer(t *testing.T) {
	s := memstore.New()
	for _, id := range []string{"a", "b", "c"} {
		account(t, s, id)
	}
	st, err := store.Stage(ctx, plain{s}, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(st, "body"); err != nil {
		t.Fatal(err)
	}
	d := store.Draft{Head: []byte("head "), Body: st, Summary: []byte("of all")}
	errs := store.Deliver(ctx, plain{s}, d, []store.Target{
		{Account: "a"}, {Account: "none"}, {Account: "b", Mailbox: "none"},
		{Account: "c", Head: []byte("own "), Summary: []byte("own"), Flags: store.NewFlags(store.Flagged)},
	})
	if len(errs) != 4 || errs[0] != nil || !errors.Is(errs[1], store.ErrNotExist) || !errors.Is(errs[2], store.ErrNotExist) || errs[3] != nil {
		t.Fatalf("errors: %v", errs)
	}
	st.Close()
	for id, want := range map[string][2]string{"a": {"head body", "of all"}, "c": {"own head body", "own"}} {
		a, _ := s.Account(ctx, id)
		for m, err := range a.Messages(ctx, store.Inbox, store.Query{Fields: store.WithBody | store.WithSummary}) {
			b, _ := io.ReadAll(io.NewSectionReader(m.Body, 0, m.Size))
			if err != nil || string(b) != want[0] || string(m.Summary) != want[1] {
				t.Errorf("%s: %q, %q, %v", id, b, m.Summary, err)
			}
			if id == "c" && m.Flags.System != store.Flagged {
				t.Errorf("c: flags %v", m.Flags)
			}
		}
	}
	if len(store.Deliver(ctx, plain{s}, d, nil)) != 0 {
		t.Error("errors for no targets")
	}
	if _, err := st.Write(nil); err == nil {
		t.Error("a closed Staged can be written to")
	}
}

func TestReadOnly(t *testing.T) {
	var r store.ReadOnly
	_, e1 := r.CreateMailbox(ctx, store.NewMailbox{})
	_, e2 := r.Append(ctx, "", nil, store.AppendOptions{})
	_, e3 := r.SetFlags(ctx, "", nil, store.FlagOp{})
	_, e4 := r.Copy(ctx, "", nil, "", store.CopyOptions{})
	_, e5 := r.Expunge(ctx, "", nil, store.ExpungeOptions{})
	for _, err := range []error{e1, e2, e3, e4, e5, r.UpdateMailboxes(ctx), r.DeleteMailbox(ctx, "")} {
		if !errors.Is(err, store.ErrPermission) {
			t.Errorf("got %v", err)
		}
	}
}

func TestStageLinks(t *testing.T) {
	s := memstore.New()
	a := account(t, s, "alice")
	st, err := store.Stage(ctx, s, 4)
	if err != nil {
		t.Fatal(err)
	}
	st.Write([]byte("body"))
	if _, err := a.Append(ctx, store.Inbox, []store.Draft{{Body: st}, {Body: bytes.NewReader([]byte("body"))}}, store.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(st.Close(), st.Close()); err != nil {
		t.Error(err)
	}
	for m, err := range a.Messages(ctx, store.Inbox, store.Query{Fields: store.WithBody}) {
		b := make([]byte, 4)
		if _, err2 := m.Body.ReadAt(b, 0); err != nil || err2 != nil || string(b) != "body" {
			t.Errorf("UID %d: %q, %v, %v", m.UID, b, err, err2)
		}
	}
}
