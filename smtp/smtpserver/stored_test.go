package smtpserver_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/delivery"
	"github.com/postrider/postrider/store/memstore"
)

// mailStore is a server before a store, where one may look at what is stored.
type mailStore struct {
	t testing.TB
	s *memstore.Store
	smtpserver.Server
}

func newMailStore(t testing.TB) *mailStore {
	w := &mailStore{t: t, s: memstore.New()}
	for _, user := range []string{"alice", "bob"} {
		if err := w.s.CreateAccount(t.Context(), user); err != nil {
			t.Fatal(err)
		}
	}
	w.Hostname, w.Log = "mx.test", quiet()
	w.Backend = &delivery.Backend{
		Recipients: func(_ context.Context, to smtp.Address) ([]store.Target, error) {
			switch {
			case to.Domain != "two.test":
				return nil, delivery.ErrRelay
			case to.Local != "alice" && to.Local != "bob":
				return nil, delivery.ErrNoUser
			}
			return []store.Target{{Account: to.Local}}, nil
		},
		Target: delivery.To(w.s),
		Log:    quiet(),
	}
	return w
}

// stored returns what is in the mailboxes of all users, trace fields removed.
func (w *mailStore) stored() []string {
	w.t.Helper()
	var all []string
	for _, user := range []string{"alice", "bob"} {
		ctx := context.Background()
		acc, err := w.s.Account(ctx, user)
		if err != nil {
			w.t.Fatal(err)
		}
		boxes, _, err := acc.Mailboxes(ctx, store.MailboxQuery{})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, box := range boxes {
			for m, err := range acc.Messages(ctx, box.ID, store.Query{Fields: store.WithBody}) {
				if err != nil {
					w.t.Fatal(err)
				}
				b, err := io.ReadAll(io.NewSectionReader(m.Body, 0, m.Size))
				if err != nil {
					w.t.Fatal(err)
				}
				text := string(b)
				if i := strings.Index(text, "X-First: "); i >= 0 {
					text = text[i:]
				}
				all = append(all, user+": "+text)
			}
		}
	}
	return all
}

// storeHello is hello of a session without DSN.
var storeHello = strings.Replace(hello, "	< 250-DSN\n", "", 1)

var intoStore = storeHello + `
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK
	> RCPT TO:<alice@two.test>
	< 250 2.1.5 Recipient OK
	> RCPT TO:<bob@two.test>
	< 250 2.1.5 Recipient OK
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
	> X-First: 1
`

// TestNothingHalfStored sends bad input to a server before a store: the right
// reply, the state of the connection after it (it takes a good message, or is
// closed), and nothing in any mailbox but what was answered with 250.
func TestNothingHalfStored(t *testing.T) {
	const good = `
	> RSET
	< 250 2.0.0 OK
	> MAIL FROM:<a@one.test>
	< 250 2.1.0 Sender OK
	> RCPT TO:<alice@two.test>
	< 250 2.1.5 Recipient OK
	> DATA
	< 354 End data with <CR><LF>.<CR><LF>
	> X-First: good
	> .
	< 250 …
	`
	const goodStored = "alice: X-First: good\r\n"
	both := func(text string) []string { return []string{"alice: " + text, "bob: " + text} }
	for _, tt := range []struct {
		name, text string
		max        int64
		want       []string
	}{
		{name: "cut in the header", text: intoStore + "x"},
		{name: "cut in a line", text: intoStore + ">\n> half a li\\\nx"},
		{name: "cut behind a line", text: intoStore + ">\n> a line\nx"},
		{name: "cut behind the dot", text: intoStore + ">\n> a line\n> .\\\nx"},
		{name: "cut within the last line end", text: intoStore + ">\n> a line\n> .\\r\\\nx"},
		{name: "hangs in the message", text: intoStore + ">\n> a line\n" + timeoutLine},
		{name: "gone before the reply", text: intoStore + "> .\nx", want: both("X-First: 1\r\n")},
		{name: "over the size", max: 1000, text: intoStore + "> " + strings.Repeat("x", 1100) + "\n> .\n< 552 5.3.4 …" + good, want: []string{goodStored}},
		{name: "over the size without end", max: 1000, text: intoStore + "> " + strings.Repeat("x", 10000) + "\\\n< 552 5.3.4 …\n!"},
		{name: "announced over the size", max: 1000, text: storeHello + "> MAIL FROM:<a@one.test> SIZE=1001\n< 552 5.3.4 …" + good, want: []string{goodStored}},
		{name: "NUL", text: intoStore + ">\n> a\\0b\n> .\n< 554 5.6.0 Message has a NUL" + good, want: []string{goodStored}},
		{name: "bare LF", text: intoStore + ">\n> a\\nb\n> .\n< 554 5.6.0 Message has an LF without CR" + good, want: []string{goodStored}},
		{name: "bare CR", text: intoStore + ">\n> a\\rb\n> .\n< 554 5.6.0 Message has a CR without LF" + good, want: []string{goodStored}},
		{name: "bad at its very end", text: intoStore + ">\n> a\\r\n> .\n< 554 5.6.0 Message has a CR without LF" + good, want: []string{goodStored}},
		{name: "a line over the limit", text: intoStore + "> " + strings.Repeat("x", 66000) + "\n> .\n< 554 5.6.0 Message has a line that is too long" + good, want: []string{goodStored}},
		{name: "unparsable header", text: intoStore + "> no field at all\n> .\n< 250 …" + good,
			want: []string{"alice: X-First: 1\r\nno field at all\r\n", goodStored, "bob: X-First: 1\r\nno field at all\r\n"}},
		{name: "unparsable MIME", text: intoStore + "> Content-Type: multipart/mixed; boundary=\"x\n>\n> --x\n> Content-Transfer-Encoding: base64\n>\n> !!\\xff\n> .\n< 250 …",
			want: both("X-First: 1\r\nContent-Type: multipart/mixed; boundary=\"x\r\n\r\n--x\r\nContent-Transfer-Encoding: base64\r\n\r\n!!\xff\r\n")},
		{name: "unknown user", text: storeHello + "> MAIL FROM:<a@one.test>\n< 250 …\n> RCPT TO:<nobody@two.test>\n< 550 5.1.1 …\n> RCPT TO:<alice@elsewhere.test>\n< 550 5.7.1 …\n> DATA\n< 554 5.5.1 No valid recipients" + good,
			want: []string{goodStored}},
		{name: "pipelined behind a refused sender", text: storeHello + "> MAIL FROM:<broken\n> RCPT TO:<alice@two.test>\n> DATA\n< 501 5.1.7 …\n< 503 5.5.1 …\n< 503 5.5.1 …" + good, want: []string{goodStored}},
		{name: "too many bad commands in front", text: storeHello + strings.Repeat("> XYZZY\n< 500 5.5.1 …\n", 20) + "< 421 4.7.0 Too many errors, closing connection\n!"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newMailStore(t)
				if w.MaxMessageBytes = tt.max; tt.max > 0 {
					tt.text = strings.ReplaceAll(tt.text, "52428800", "1000")
				}
				dialogue(t, &w.Server, nil, tt.text)
				if got := w.stored(); strings.Join(got, "\x00") != strings.Join(tt.want, "\x00") {
					t.Errorf("stored %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// TestStoreLMTP is the cut and the refusal with a reply for each recipient.
func TestStoreLMTP(t *testing.T) {
	into := strings.NewReplacer("EHLO", "LHLO", "ESMTP", "LMTP").Replace(intoStore)
	for _, tt := range []struct {
		name, text string
		want       int
	}{
		{"cut", into + ">\n> a line\nx", 0},
		{"NUL", into + ">\n> a\\0b\n> .\n< 554 5.6.0 Message has a NUL\n< 554 5.6.0 Message has a NUL" + noop, 0},
		{"good", into + "> .\n< 250 …\n< 250 …" + noop, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newMailStore(t)
				w.LMTP = true
				dialogue(t, &w.Server, nil, tt.text)
				if got := w.stored(); len(got) != tt.want {
					t.Errorf("stored %q", got)
				}
			})
		})
	}
}

// TestCloseHalfStored: Close in the middle of a message over a socket leaves
// nothing, and Close returns after the session has.
func TestCloseHalfStored(t *testing.T) {
	w := newMailStore(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.Serve(l) }()
	p := dial(t, l.Addr().String())
	p.must(t, intoStore+">\n> half\n")
	w.Close()
	<-served
	if _, err := io.Copy(io.Discard, p.r); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	if got := w.stored(); len(got) != 0 {
		t.Errorf("stored %q", got)
	}
}

// TestCutMemory: nothing of a large message that is cut stays in memory.
func TestCutMemory(t *testing.T) {
	w := newMailStore(t)
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- w.ServeConn(theirs) }()
	p := &peer{Conn: ours, r: bufio.NewReader(ours)}
	p.must(t, intoStore)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	line := []byte(strings.Repeat("x", 998) + "\r\n")
	for range 20_000 { // 20 MB of a message
		if _, err := p.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	p.Close()
	<-done
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("%d octets are kept of a message that was cut", grown)
	}
	if got := w.stored(); len(got) != 0 {
		t.Errorf("%d messages", len(got))
	}
}
