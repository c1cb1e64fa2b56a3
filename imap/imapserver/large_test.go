package imapserver_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/postrider/postrider/store"
)

// TestLargeMessage sends a message through that is larger than any buffer.
func TestLargeMessage(t *testing.T) {
	srv, _ := newServer(t)
	c := start(t, serve(t, srv))
	var b strings.Builder
	b.WriteString("Subject: large\r\n\r\n")
	for i := 0; b.Len() < 3<<20; i++ {
		fmt.Fprintf(&b, "line %d of a large message\r\n", i)
	}
	msg := b.String()
	c.transact("APPEND INBOX "+literal(msg), "OK [APPENDUID")
	c.ok("SELECT INBOX")
	un := c.ok("FETCH 1 BODY.PEEK[]")
	if want := fmt.Sprintf("* 1 FETCH (BODY[] {%d}\r\n%s)", len(msg), msg); len(un) != 1 || un[0] != want {
		t.Error("the message came back changed")
	}
	un = c.ok("FETCH 1 BODY.PEEK[TEXT]<2000000.50000>")
	if _, text, _ := strings.Cut(msg, "\r\n\r\n"); len(un) != 1 || !strings.Contains(un[0], "BODY[TEXT]<2000000> {50000}\r\n"+text[2000000:2050000]) {
		t.Error("the middle came back changed")
	}
	c.transact(`SEARCH BODY "line 70000 of"`, "OK", "* SEARCH 1")
	c.transact(`SEARCH BODY "line 700000 of"`, "OK", "* SEARCH")
}

// brokenStore has bodies that cannot be read to their end.
type brokenStore struct{ store.Store }

func (b brokenStore) Account(ctx context.Context, id string) (store.Account, error) {
	a, err := b.Store.Account(ctx, id)
	return brokenAccount{a}, err
}

type brokenAccount struct{ store.Account }

func (a brokenAccount) Messages(ctx context.Context, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
	q.Fields &^= store.WithBody
	return a.Account.Messages(ctx, box, q)
}

func (a brokenAccount) Open(ctx context.Context, m store.Message) (store.Blob, error) {
	b, err := a.Account.Open(ctx, m)
	return brokenBlob{b}, err
}

type brokenBlob struct{ store.Blob }

func (b brokenBlob) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > 50 {
		return 0, errors.New("disk error")
	}
	return b.Blob.ReadAt(p, off)
}

// TestUnreadableBody: when the octets that a literal announced cannot be had,
// nothing else is sent in their place.
func TestUnreadableBody(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, simple)
	srv.Store = brokenStore{srv.Store}
	c := start(t, serve(t, srv))
	c.ok("SELECT INBOX")
	c.transact("FETCH 1 ENVELOPE", "NO [SERVERBUG] Internal error")
	c.transact("FETCH 1 BODY.PEEK[]<0.20>", "OK", "* 1 FETCH (BODY[]<0> {20}\r\n"+simple[:20]+")")
	c.write("x FETCH 1 BODY.PEEK[]\r\n")
	l, err := c.readLine()
	if err == nil || strings.Contains(l, "x ") {
		t.Errorf("got %q, %v", l, err)
	}
}
