package pop3server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/store"
)

// box is a Maildrop of three methods.
type box struct {
	mu       sync.Mutex
	uids     []store.UID
	bodies   map[store.UID]string
	ride     bool // bodies come with Messages
	broken   error
	expunged int
	closed   int
}

func newBox(bodies ...string) *box {
	b := &box{bodies: map[store.UID]string{}}
	for i, s := range bodies {
		uid := store.UID(10 * (i + 1))
		b.uids = append(b.uids, uid)
		b.bodies[uid] = s
	}
	return b
}

type blob struct {
	io.ReaderAt
	size int64
}

func (b blob) Size() int64  { return b.size }
func (b blob) Close() error { return nil }

func newBlob(s string) blob { return blob{strings.NewReader(s), int64(len(s))} }

func (b *box) Messages(_ context.Context, _ store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
	return func(yield func(store.Message, error) bool) {
		for _, uid := range b.uids {
			in := q.UIDs == nil
			for _, r := range q.UIDs {
				in = in || r.First <= uid && uid <= r.Last
			}
			b.mu.Lock()
			body, ok := b.bodies[uid]
			broken := b.broken
			b.mu.Unlock()
			if broken != nil {
				yield(store.Message{}, broken)
				return
			}
			if !in || !ok {
				continue
			}
			m := store.Message{UID: uid, ID: fmt.Sprint(uid), Size: int64(len(body))}
			if b.ride && q.Fields&store.WithBody != 0 {
				m.Body = newBlob(body)
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

func (b *box) Open(_ context.Context, m store.Message) (store.Blob, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.bodies[m.UID]; ok {
		return newBlob(s), nil
	}
	return nil, store.ErrNotExist
}

func (b *box) Expunge(_ context.Context, _ store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return store.Expunged{}, b.broken
	}
	b.expunged++
	for _, r := range uids {
		for uid := r.First; uid <= r.Last; uid++ {
			delete(b.bodies, uid)
		}
	}
	return store.Expunged{UIDs: uids}, nil
}

func (b *box) Close() error { b.closed++; return nil }

// auth accepts alice with the password secret.
type auth struct{ err error }

func (auth) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }

func (a auth) Start(_ context.Context, mech string, c *login.Conn) (login.Exchange, error) {
	if mech != "PLAIN" {
		return nil, login.ErrMechanism
	}
	return &exchange{a: a}, nil
}

type exchange struct {
	a  auth
	id login.Identity
}

func (x *exchange) Next(resp []byte) ([]byte, bool, error) {
	switch {
	case x.a.err != nil:
		return nil, false, x.a.err
	case resp == nil:
		return []byte{}, false, nil
	case bytes.Count(resp, []byte{0}) != 2:
		return nil, false, login.ErrMalformed
	case string(resp) != "\x00alice\x00secret":
		return nil, false, login.ErrCredentials
	}
	x.id = login.Identity{User: "alice", Login: "alice", Mechanism: "PLAIN"}
	return nil, true, nil
}

func (x *exchange) Identity() login.Identity { return x.id }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func server(b Maildrop) *Server {
	return &Server{Auth: auth{}, InsecureAuth: true, Log: quiet(),
		Maildrop: func(context.Context, login.Identity) (Maildrop, error) { return b, nil }}
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour)}
	der, _ := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// dial connects to s over net.Pipe; the session is joined at the test's end.
func dial(t testing.TB, s *Server) net.Conn {
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() { s.ServeConn(b); close(done) }()
	t.Cleanup(func() { a.Close(); <-done })
	return a
}

// transcript plays lines that begin with "C: " and expects those that begin
// with "S: "; "…" at the end stands for any rest. An "S: EOF" is the end.
func transcript(t *testing.T, nc net.Conn, script string) {
	t.Helper()
	r := bufio.NewReader(nc)
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		text, _ := strings.CutPrefix(line[2:], " ")
		if line[0] == 'C' {
			text = strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00").Replace(text)
			if _, err := io.WriteString(nc, text+"\r\n"); err != nil {
				t.Fatalf("sending %q: %v", text, err)
			}
			continue
		}
		got, err := r.ReadString('\n')
		if text == "EOF" {
			if err == nil {
				t.Fatalf("got %q, want the end", got)
			}
			continue
		}
		if err != nil {
			t.Fatalf("want %q: %v", text, err)
		}
		got = strings.TrimRight(got, " \r\n")
		if prefix, ok := strings.CutSuffix(text, "…"); ok && strings.HasPrefix(got, prefix) {
			continue
		}
		if got != text {
			t.Fatalf("got %q, want %q", got, text)
		}
	}
}

// scriptConn is a peer that said everything it will say.
type scriptConn struct {
	io.Reader
	io.Writer
}

func (*scriptConn) Close() error                     { return nil }
func (*scriptConn) LocalAddr() net.Addr              { return nil }
func (*scriptConn) RemoteAddr() net.Addr             { return nil }
func (*scriptConn) SetDeadline(time.Time) error      { return nil }
func (*scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (*scriptConn) SetWriteDeadline(time.Time) error { return nil }
