package imapserver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/storetest"
)

// TestStoreErrors has one method of the store fail after the other: the reply
// has the code of the error, and the session goes on.
func TestStoreErrors(t *testing.T) {
	for _, c := range []struct {
		method, command string
		err             error
		want            string
	}{
		{"Mailboxes", "SELECT INBOX", store.ErrUnavailable, "NO [UNAVAILABLE]"},
		{"Mailboxes", `LIST "" *`, store.ErrUnavailable, "NO [UNAVAILABLE]"},
		{"Mailboxes", "STATUS INBOX (MESSAGES)", store.ErrPermission, "NO [NOPERM]"},
		{"CreateMailbox", "CREATE x", store.ErrLimit, "NO [LIMIT]"},
		{"CreateMailbox", "RENAME INBOX x", store.ErrPermission, "NO [NOPERM]"},
		{"UpdateMailboxes", "RENAME box z", store.ErrExist, "NO [ALREADYEXISTS]"},
		{"DeleteMailbox", "DELETE box", store.ErrPermission, "NO [NOPERM]"},
		{"Messages", "FETCH 1 ENVELOPE", store.ErrUnavailable, "NO [UNAVAILABLE]"},
		{"Messages", "FETCH 1 ENVELOPE", fmt.Errorf("%w, %w", store.ErrUnavailable, store.ErrDamaged), "NO [CORRUPTION]"},
		{"Messages", "SEARCH SUBJECT x", errors.New("secret host name"), "NO [SERVERBUG] Internal error"},
		{"Append", "APPEND INBOX {2+}\r\nhi", store.ErrQuota, "NO [OVERQUOTA]"},
		{"Append", "APPEND INBOX {2+}\r\nhi", store.ErrTooBig, "NO [TOOBIG]"},
		{"Append", "APPEND INBOX {2+}\r\nhi", store.ErrNotExist, "NO [TRYCREATE]"},
		{"SetFlags", "STORE 1 +FLAGS (a)", store.ErrLimit, "NO [LIMIT]"},
		{"SetFlags", "FETCH 1 BODY[TEXT]", store.ErrUnavailable, "NO [UNAVAILABLE]"},
		{"SetFlags", "FETCH 1 BODY[TEXT]", store.ErrPermission, "OK"},
		{"Copy", "COPY 1 box", store.ErrQuota, "NO [OVERQUOTA]"},
		{"Copy", "MOVE 1 box", store.ErrNotExist, "NO [TRYCREATE]"},
		{"Copy", "RENAME INBOX x", store.ErrUnavailable, "NO [UNAVAILABLE]"},
		{"Expunge", "EXPUNGE", store.ErrPermission, "NO [NOPERM]"},
		{"Expunge", "CLOSE", store.ErrUnavailable, "NO [UNAVAILABLE]"},
		{"Changes", "NOOP", store.ErrUnavailable, "OK"},
	} {
		t.Run(c.method+" "+c.command, func(t *testing.T) {
			srv, st := newServer(t)
			failing := ""
			srv.Store = storetest.StrictStore(st, storetest.StrictOptions{Fail: func(method string) error {
				if method == failing {
					return c.err
				}
				return nil
			}})
			add(t, st, "INBOX", 0, simple)
			near, far := net.Pipe()
			done := make(chan error, 1)
			go func() { done <- srv.ServeConn(far) }()
			cl := newClient(t, near)
			cl.line()
			cl.ok("LOGIN alice secret")
			cl.ok("CREATE box")
			cl.ok("SELECT INBOX")
			// The session reads failing only while it runs a command.
			failing = c.method
			_, tagged := cl.cmd(c.command)
			failing = ""
			if !strings.HasPrefix(tagged, c.want) {
				t.Errorf("got %q, want %q", tagged, c.want)
			}
			cl.transact("STATUS box (MESSAGES)", "OK", "* STATUS box (MESSAGES 0)")
			near.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMinimalStore serves an account that has none of the optional interfaces.
func TestMinimalStore(t *testing.T) {
	srv, st := newServer(t)
	srv.Store = minimal{st}
	add(t, st, "INBOX", 0, simple)
	c := start(t, serve(t, srv))
	un := c.ok("SELECT INBOX")
	if !strings.Contains(strings.Join(un, "\n"), "* 0 RECENT") {
		t.Errorf("got %q", un)
	}
	c.transact("SUBSCRIBE x", "NO [CANNOT]")
	c.transact(`LSUB "" *`, "OK", `* LSUB () "/" INBOX`)
	add(t, st, "INBOX", 0, simple)
	c.transact("NOOP", "OK", "* 2 EXISTS", "* 0 RECENT")
	c.transact("FETCH 1 ENVELOPE", "OK", "* 1 FETCH **")
}

type minimal struct{ store.Store }

func (m minimal) Account(ctx context.Context, id string) (store.Account, error) {
	a, err := m.Store.Account(ctx, id)
	return struct{ store.Account }{a}, err
}

// TestExpungedWhileRead has messages go away between the pages of a FETCH.
func TestExpungedWhileRead(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, simple, simple, simple, simple)
	var during func()
	srv.Store = storetest.StrictStore(st, storetest.StrictOptions{Between: func() {
		if f := during; f != nil {
			during = nil
			f()
		}
	}})
	c := start(t, serve(t, srv))
	c.ok("SELECT INBOX")
	acc, err := st.Account(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	during = func() {
		if _, err := acc.Expunge(t.Context(), store.Inbox, store.UIDs(3), store.ExpungeOptions{}); err != nil {
			t.Error(err)
		}
	}
	c.transact("FETCH 2:4 BODY.PEEK[TEXT]", "NO [EXPUNGEISSUED]", "* 2 FETCH **", "* 4 FETCH **")
	c.transact("NOOP", "OK", "* 3 EXPUNGE")
	during = func() {
		if _, err := acc.Expunge(t.Context(), store.Inbox, store.UIDs(1), store.ExpungeOptions{}); err != nil {
			t.Error(err)
		}
	}
	// The message itself goes away under the FETCH: it is still read within
	// the store's grace.
	c.transact("FETCH 1 BODY.PEEK[TEXT]", "OK", "* 1 FETCH **")
	c.transact("UID FETCH 1:4 FLAGS", "OK", "* 1 FETCH **", "* 2 FETCH **", "* 3 FETCH **", "* 1 EXPUNGE")
}

// TestDamagedSummary parses a message again whose Summary cannot be read, and
// keeps the new one.
func TestDamagedSummary(t *testing.T) {
	srv, st := newServer(t)
	acc, err := st.Account(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	msg := strings.ReplaceAll(nested, "\n", "\r\n")
	_, err = acc.Append(t.Context(), store.Inbox, []store.Draft{{Body: strings.NewReader(msg), Summary: []byte("\xffjunk")}}, store.AppendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, srv)
	c := start(t, addr)
	c.ok("SELECT INBOX")
	one := c.ok("FETCH 1 (ENVELOPE BODYSTRUCTURE)")
	two := c.ok("FETCH 1 (ENVELOPE BODYSTRUCTURE)")
	if fmt.Sprint(one) != fmt.Sprint(two) || !strings.Contains(one[0], "Quoted, Name") {
		t.Errorf("got %q, then %q", one, two)
	}
	for m, err := range acc.Messages(t.Context(), store.Inbox, store.Query{Fields: store.WithSummary}) {
		if err != nil || len(m.Summary) < 100 {
			t.Errorf("summary of %d octets, %v", len(m.Summary), err)
		}
	}
}

// TestServeConnClosed checks what a closed server says.
func TestServeConnClosed(t *testing.T) {
	srv, _ := newServer(t)
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	if err := srv.ServeConn(pipeEnd(t)); err != imapserver.ErrServerClosed {
		t.Errorf("got %v", err)
	}
}
