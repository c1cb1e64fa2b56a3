package milter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// filter is a scripted filter: for each command its answers, "c" otherwise.
type filter struct {
	negotiation []byte // nil = version 6, all changes, no steps left out
	answers     map[byte]string

	mu   sync.Mutex
	seen []string
	open int
	wg   sync.WaitGroup
}

// packets writes answers one after the other: "h" + data, each packet's data
// behind its code, separated by "|".
func packets(s string) []byte {
	var out []byte
	for p := range strings.SplitSeq(s, "|") {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p)))
		out = append(out, p...)
	}
	return out
}

func (f *filter) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	f.wg.Go(func() { f.serve(theirs) })
	f.mu.Lock()
	f.open++
	f.mu.Unlock()
	return ours, nil
}

func (f *filter) serve(nc net.Conn) {
	defer nc.Close()
	steps := uint32(0)
	for {
		var head [5]byte
		if _, err := io.ReadFull(nc, head[:]); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint32(head[:])-1)
		if _, err := io.ReadFull(nc, data); err != nil {
			return
		}
		cmd := head[4]
		if cmd == cmdNegotiate {
			n := f.negotiation
			if n == nil {
				n = negotiation(6, 0x1ff&^actQuarantine&^0x100, 0)
			}
			if len(n) >= 12 {
				steps = binary.BigEndian.Uint32(n[8:])
			}
			nc.Write(packets("O" + string(n)))
			continue
		}
		text := string(cmd) + " " + strings.ReplaceAll(strings.TrimSuffix(string(data), "\x00"), "\x00", "|")
		f.mu.Lock()
		f.seen = append(f.seen, text)
		f.mu.Unlock()
		switch cmd {
		case cmdMacro, cmdAbort:
			continue
		case cmdQuit:
			f.mu.Lock()
			f.open--
			f.mu.Unlock()
			return
		}
		if cmd == cmdHeader && steps&nrHeader != 0 || cmd == cmdBody && steps&nrBody != 0 {
			continue
		}
		answer, ok := f.answers[cmd]
		if !ok {
			answer = "c"
		}
		if answer == "" { // hang up
			return
		}
		if _, err := nc.Write(packets(answer)); err != nil {
			return
		}
	}
}

// commands returns what was heard once all connections have ended.
func (f *filter) commands(withMacros bool) string {
	f.wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, s := range f.seen {
		if withMacros || s[0] != cmdMacro {
			out = append(out, s)
		}
	}
	return strings.Join(out, "\n")
}

func negotiation(version, actions, steps uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, version)
	b = binary.BigEndian.AppendUint32(b, actions)
	return binary.BigEndian.AppendUint32(b, steps)
}

// inner writes down what the backend's session was asked.
type inner struct {
	log  *[]string
	data *string
}

func (in inner) say(format string, args ...any) {
	*in.log = append(*in.log, fmt.Sprintf(format, args...))
}

func (in inner) Mail(_ context.Context, from smtp.Address, _ smtp.MailOptions) error {
	in.say("mail %s", from)
	return nil
}

func (in inner) Rcpt(_ context.Context, to smtp.Address, _ smtp.RcptOptions) error {
	in.say("rcpt %s", to)
	if to.Local == "nobody" {
		return smtp.Errorf(550, smtp.EnhancedCode{5, 1, 1}, "No such user")
	}
	return nil
}

func (in inner) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	b, err := io.ReadAll(r)
	*in.data = string(b)
	in.say("data")
	return smtp.Reply{Code: 250, Text: "queued"}, err
}
func (in inner) Reset()       { in.say("reset") }
func (in inner) Close() error { in.say("close"); return nil }

// each is an inner that answers for each recipient.
type each struct {
	inner
	n *int
}

func (e each) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	err := e.inner.Rcpt(ctx, to, o)
	if err == nil {
		*e.n++
	}
	return err
}

func (e each) Reset() { *e.n = 0; e.inner.Reset() }

func (e each) DataLMTP(ctx context.Context, r io.Reader) []smtp.Result {
	e.inner.Data(ctx, r)
	var out []smtp.Result
	for i := range *e.n {
		out = append(out, smtp.Result{Reply: smtp.Reply{Code: 250, Text: fmt.Sprint("for ", i)}})
	}
	return out
}

type talkResult struct {
	replies, data string
	backend       []string
}

// talk runs one connection through m and returns everything.
func talk(t *testing.T, m *Client, lmtp bool, text string) talkResult {
	t.Helper()
	var res talkResult
	quiet := slog.New(slog.DiscardHandler)
	if m.Log == nil {
		m.Log = quiet
	}
	s := &smtpserver.Server{Hostname: "mx.test", LMTP: lmtp, Log: quiet, Backend: smtpserver.Wrap(smtpserver.BackendFunc(
		func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) {
			in := inner{&res.backend, &res.data}
			if lmtp {
				return each{in, new(int)}, nil
			}
			return in, nil
		}), m.Wrap)}
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		s.ServeConn(peer{theirs})
		close(done)
	}()
	go io.WriteString(ours, text+"QUIT\r\n")
	b, _ := io.ReadAll(ours)
	ours.Close()
	<-done
	res.replies = string(b)
	return res
}

type peer struct{ net.Conn }

func (peer) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4711} }

const (
	envelope = "EHLO x.test\r\nMAIL FROM:<a@b.test> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<c@d.test>\r\nRCPT TO:<e@f.test>\r\n"
	text     = "Subject: One\r\n\tand two\r\nX-A: 1\r\nx-a: 2\r\n\r\nBody\r\n.dot\r\n"
	whole    = envelope + "DATA\r\nSubject: One\r\n\tand two\r\nX-A: 1\r\nx-a: 2\r\n\r\nBody\r\n..dot\r\n.\r\n"
)

var errAway = errors.New("away")
