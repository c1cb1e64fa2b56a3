package smtpclient

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp"
)

func FuzzReply(f *testing.F) {
	for _, s := range []string{
		"220 mx.test ESMTP\r\n", "250\r\n", "250-a\r\n250-b\r\n250 c\r\n", "550 5.1.1 no\n", "452-4.5.3 a\r\n452 4.5.3 b\r\n",
		"250 2.0.0\r\n", "250 2.0.0x\r\n", "550 4.1.1 x\r\n", "250-\xff\x00\t\x1b[0m\r\n250 \u2028\u0085\r\n", "199 x\r\n", "25", "250x\r\n", "\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		br := bufio.NewReaderSize(bytes.NewReader(b), readBuffer)
		for {
			r, err := readReply(br)
			if err != nil {
				if !errors.Is(err, ErrProtocol) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("unexpected error %v", err)
				}
				return
			}
			if r.Code < 200 || r.Code > 599 || len(r.Text) > 2*maxReplyText {
				t.Fatalf("%+v", r)
			}
			if r.Enhanced != (smtp.EnhancedCode{}) && int(r.Enhanced[0]) != r.Code/100 {
				t.Fatalf("classes differ: %+v", r)
			}
			for _, c := range r.Text {
				if c < ' ' && c != '\n' || c == 0x7f {
					t.Fatalf("control character in %q", r.Text)
				}
			}
		}
	})
}

// hostile answers with what the fuzzer made, whatever is sent.
type hostile struct {
	r    *bytes.Reader
	mu   sync.Mutex
	sent bytes.Buffer
}

func (h *hostile) Read(p []byte) (int, error) { return h.r.Read(p[:min(len(p), 7)]) }
func (h *hostile) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent.Write(p)
	return len(p), nil
}

// ends counts the messages that were sent to their end.
func (h *hostile) ends() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Count(h.sent.String(), "\r\n.\r\n") + strings.Count(h.sent.String(), " LAST\r\n")
}
func (h *hostile) Close() error                     { return nil }
func (h *hostile) LocalAddr() net.Addr              { return nil }
func (h *hostile) RemoteAddr() net.Addr             { return nil }
func (h *hostile) SetDeadline(time.Time) error      { return nil }
func (h *hostile) SetReadDeadline(time.Time) error  { return nil }
func (h *hostile) SetWriteDeadline(time.Time) error { return nil }

// FuzzClient sends two messages, with a login, to a host that says anything:
// one after the other or the second behind the first, as text or in chunks.
func FuzzClient(f *testing.F) {
	const hello = "220 hi\r\n250-hi\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 1000\r\n250-SMTPUTF8\r\n250-DSN\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-LIMITS RCPTMAX=5\r\n250 AUTH PLAIN LOGIN\r\n235 ok\r\n"
	for _, s := range []string{
		hello + "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n250 ok\r\n550 no\r\n452 4.5.3 many\r\n503 no\r\n",
		hello + "250 ok\r\n250 ok\r\n452 4.5.3 later\r\n354 go\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n",
		hello + "250 ok\r\n421 bye\r\n", hello + "250 ok\r\n550 no\r\n550 no\r\n354 go\r\n554 nobody\r\n",
		hello + "250 ok\r\n250 ok\r\n250 ok\r\n250 taken\r\n250 ok\r\n550 no\r\n250 ok\r\n552 big\r\n250 reset\r\n",
		"220 hi\r\n502 no\r\n250 hi\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n421 no\r\n",
		"220 hi\r\n250-hi\r\n250 AUTH LOGIN\r\n334 \r\n334 \r\n235 ok\r\n250 ok\r\n",
		"220 hi\r\n250-hi\r\n250 AUTH SCRAM-SHA-256\r\n334 cj1h\r\n235 ok\r\n250 ok\r\n",
		"220 hi\r\n250-hi\r\n250 STARTTLS\r\n220 go\r\n", "554 no\r\n",
	} {
		for mode := range uint8(8) {
			f.Add([]byte(s), mode)
		}
	}
	env := &smtp.Envelope{From: smtp.Address{Local: "a", Domain: "b.test"}}
	for _, l := range []string{"c", "dörte"} {
		env.To = append(env.To, smtp.Recipient{Address: smtp.Address{Local: l, Domain: "d.test"}, RcptOptions: smtp.RcptOptions{Notify: smtp.NotifyFailure}})
	}
	f.Fuzz(func(t *testing.T, b []byte, mode uint8) {
		env := *env
		if mode&2 != 0 {
			env.Body = smtp.BodyBinary
		}
		h := &hostile{r: bytes.NewReader(b)}
		target := Target{Addr: "mx.test:25", LMTP: mode&1 != 0, Auth: &Auth{User: "u", Password: "p", Insecure: true}}
		c, err := (&Dialer{Hello: "me.test"}).Client(context.Background(), h, target)
		if err != nil {
			if !errors.As(err, new(*smtp.Error)) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		var wg sync.WaitGroup
		var results [2][]smtp.Result
		for i := range results {
			send := func() {
				results[i] = c.Send(context.Background(), &env, strings.NewReader("Subject: x\r\n\r\nb\xc3\xa4\r\n"))
			}
			if mode&4 != 0 {
				wg.Go(send)
			} else {
				send()
			}
		}
		wg.Wait()
		ends, delivered := h.ends(), 0
		for _, list := range results {
			if len(list) != len(env.To) {
				t.Fatalf("%d results", len(list))
			}
			for _, r := range list {
				var e *smtp.Error
				switch {
				case r.Err == nil:
					if delivered++; ends == 0 || r.Reply.Code/100 != 2 {
						t.Fatalf("delivered without a message: %+v", r)
					}
				case !errors.As(r.Err, &e):
					t.Fatalf("%T %v", r.Err, r.Err)
				case e.Unsure && ends == 0:
					t.Fatal("unsure without a dot")
				case e.Code < 400 || e.Code > 599:
					t.Fatalf("code %d", e.Code)
				}
				if r.Hop == nil {
					t.Fatal("no hop")
				}
			}
		}
		if delivered > ends*len(env.To) {
			t.Fatalf("%d deliveries of %d messages", delivered, ends)
		}
		c.Close()
	})
}
