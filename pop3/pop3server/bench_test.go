package pop3server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/pop3/pop3server"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

// open lets everybody in.
type open struct{}

func (open) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }
func (open) Start(context.Context, string, *login.Conn) (login.Exchange, error) {
	return openExchange{}, nil
}

type openExchange struct{}

func (openExchange) Next([]byte) ([]byte, bool, error) { return nil, true, nil }
func (openExchange) Identity() login.Identity          { return login.Identity{User: "alice", Login: "alice"} }

const messageSize = 2600

// maildrop starts a server over a maildrop of n messages and logs in.
func maildrop(b *testing.B, n int) (net.Conn, *bufio.Reader) {
	b.Helper()
	st := memstore.New()
	if err := st.CreateAccount(b.Context(), "alice"); err != nil {
		b.Fatal(err)
	}
	acc, err := st.Account(b.Context(), "alice")
	if err != nil {
		b.Fatal(err)
	}
	msg := "From: a@example.test\r\nSubject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 40)
	msg = msg[:messageSize-2] + "\r\n"
	drafts := make([]store.Draft, n)
	for i := range drafts {
		drafts[i].Body = strings.NewReader(msg)
	}
	if _, err := acc.Append(b.Context(), store.Inbox, drafts, store.AppendOptions{}); err != nil {
		b.Fatal(err)
	}
	srv := &pop3server.Server{Store: st, Auth: open{}, InsecureAuth: true, Log: slog.New(slog.DiscardHandler)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	b.Cleanup(func() { srv.Close(); <-served })
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nc.Close() })
	r := bufio.NewReaderSize(nc, 64<<10)
	io.WriteString(nc, "USER alice\r\nPASS x\r\n")
	for range 3 {
		if l, err := r.ReadString('\n'); err != nil || l[0] != '+' {
			b.Fatal(l, err)
		}
	}
	return nc, r
}

var end = []byte("\r\n.\r\n")

// multiline reads a multi-line reply away.
func multiline(b *testing.B, r *bufio.Reader) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			b.Fatal(err)
		}
		if bytes.Equal(line, end[2:]) {
			return
		}
	}
}

func BenchmarkRetr(b *testing.B) {
	nc, r := maildrop(b, 10_000)
	b.SetBytes(messageSize)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		fmt.Fprintf(nc, "RETR %d\r\n", i%10_000+1)
		multiline(b, r)
	}
}

// Pipelined is in units of 10,000 messages.
func BenchmarkRetrPipelined10k(b *testing.B) {
	nc, r := maildrop(b, 10_000)
	var cmds bytes.Buffer
	for i := range 10_000 {
		fmt.Fprintf(&cmds, "RETR %d\r\n", i+1)
	}
	// Each message is as long as the other: +OK line, body, dot.
	reply := int64(len("+OK 2600 octets\r\n") + messageSize + len(".\r\n"))
	b.SetBytes(10_000 * messageSize)
	b.ReportAllocs()
	for b.Loop() {
		go nc.Write(cmds.Bytes())
		if _, err := io.CopyN(io.Discard, r, 10_000*reply); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(10_000*b.N)/b.Elapsed().Seconds(), "msg/s")
}

func BenchmarkUIDL10k(b *testing.B) {
	nc, r := maildrop(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		io.WriteString(nc, "UIDL\r\n")
		multiline(b, r)
	}
}

func BenchmarkLogin10k(b *testing.B) {
	nc, _ := maildrop(b, 10_000)
	addr := nc.RemoteAddr().String()
	b.ReportAllocs()
	for b.Loop() {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		io.WriteString(nc, "USER alice\r\nPASS x\r\nSTAT\r\nQUIT\r\n")
		if out, err := io.ReadAll(nc); err != nil || !bytes.Contains(out, []byte("+OK 10000 ")) {
			b.Fatalf("%q %v", out, err)
		}
		nc.Close()
	}
}
