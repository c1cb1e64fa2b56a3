package delivery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/mime"
)

// seeds are messages with the troubles that matter here.
var seeds = []string{
	message, "", "\r\n", "\r\n\r\n", "body", " x\r\nSubject: y\r\n\r\n", ":\r\n\r\n",
	"Authentication-Results: mx.example.org; spf=pass\r\n" + message,
	"Authentication-Results:\r\n\tmx.example.org\r\n ; spf=pass\r\nA: b\r\n",
	"Authentication-Results : \"mx.example.org\"; none\r\n\r\n",
	"A: b\r\nauthentication-results: (x) other; none\r\nReceived: x\r\nAuthentication-Results: mx.example.org",
	"Content-Type: multipart/mixed; boundary=x\r\n\r\npre\r\n--x\r\nA: b\r\n\r\none\r\n--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nbody\r\n--x--\r\nepi\r\n",
	"Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/digest; boundary=y\r\n\r\n--y\r\n\r\nSubject: z\r\n\r\n--y--",
	"A\r\n\r\nB: c\r\n", "A: b\n\nc", "A: b\r\n \r\n\r\n", "\r\r\n\n", strings.Repeat("X: y\r\n", 300) + "\r\n",
}

// run sends a message through the pass in pieces.
func run(tb testing.TB, text string, piece int) (*Inbound, []byte) {
	var body bytes.Buffer
	p := pass{body: &body, hash: sha256.New(), max: -1}
	p.header.ids = []string{"mx.example.org"}
	for rest := text; len(rest) > 0; {
		n := min(piece, len(rest))
		b := []byte(rest[:n])
		if _, err := p.Write(b); err != nil {
			return nil, nil // too long a header
		}
		clear(b) // the caller's buffer is its own again
		rest = rest[n:]
	}
	if err := p.end(); err != nil {
		tb.Fatal(err)
	}
	return &Inbound{Message: p.parser.Close(), Body: bytes.NewReader(body.Bytes())}, body.Bytes()
}

func FuzzReceive(f *testing.F) {
	for _, s := range seeds {
		f.Add(s, 7)
		f.Add(s, 4096)
	}
	f.Fuzz(func(t *testing.T, text string, piece int) {
		if piece < 1 || piece > 1<<16 {
			return
		}
		in, body := run(t, text, piece)
		if in == nil {
			return
		}
		// However it is cut, the same comes out.
		if _, again := run(t, text, len(text)+1); !bytes.Equal(body, again) {
			t.Fatalf("pieces of %d give %q, the whole %q", piece, body, again)
		}
		// Nothing that claims to be ours is left, and nothing else is gone.
		h := mime.ParseHeader(body)
		for field := range h.All(auth.FieldName) {
			if auth.Claims(field.Value, "mx.example.org") && strings.Contains(strings.ToLower(field.Value), "mx.example.org") {
				t.Fatalf("a forged field is left: %q", field.Raw)
			}
		}
		if !strings.Contains(strings.ToLower(text), "authentication-results") && string(body) != text {
			t.Fatalf("%q became %q", text, body)
		}
		// The Summary over a head is that of the whole.
		for _, head := range []string{"Received: x\r\n", "Return-Path: <>\r\nDelivered-To: a@b\r\n" + auth.FieldName + ": mx.example.org; none\r\nReceived: by\r\n\tx\r\n"} {
			whole := append([]byte(head), body...)
			p, err := mime.Parse(bytes.NewReader(whole), int64(len(whole)), mime.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			got, want := in.Summary([]byte(head)), p.Summary()
			if !bytes.Equal(got, want) {
				t.Fatalf("%q: the Summary is\n%q, that of the whole is\n%q", text, got, want)
			}
		}
	})
}

// discard is a Target that takes everything.
type discard struct{}

func (discard) Deliver(ctx context.Context, in *Inbound) []error {
	return make([]error, len(in.Recipients))
}

func BenchmarkReceive(b *testing.B) {
	for name, size := range map[string]int{"4KB": 4 << 10, "1MB": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			text := message + strings.Repeat("0123456789012345678901234567890123456789012345678901234567890123456789\r\n", size/72)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if in, _ := run(b, text, 32<<10); in == nil {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkSMTPDelivery(b *testing.B) {
	s, rcpt := mailboxes(b, "alice")
	for name, target := range map[string]Target{"discard": discard{}, "memstore": To(s)} {
		b.Run(name, func(b *testing.B) {
			c := dial(b, &Backend{Recipients: rcpt, Target: target}, false)
			text := "Subject: x\r\n\r\n" + strings.Repeat("0123456789012345678901234567890123456789012345678901234567890123456789\r\n", 56)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				c.mail("alice")
				c.data(text, "250")
			}
		})
	}
}
