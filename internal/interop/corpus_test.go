package interop

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// maxLine is the server's documented limit of a line of a message, CRLF
// included.
const maxLine = 65536

// corpus returns the real messages of the conformance data, line ends made
// CRLF, by name.
func corpus(t *testing.T) map[string][]byte {
	t.Helper()
	dir := os.Getenv("POSTRIDER_CONFORMANCE")
	if dir == "" {
		dir = "../../../shared/conformance"
	}
	dir = filepath.Join(dir, "mime")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("POSTRIDER_REQUIRE") != "" {
			t.Fatal(err)
		}
		t.Skipf("conformance data absent (set POSTRIDER_CONFORMANCE): %v", err)
	}
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) == ".json" || strings.Contains(strings.ToUpper(d.Name()), "LICENSE") {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
		name, _ := filepath.Rel(dir, p)
		files[name] = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// why says why a message must be refused, "" if it must be taken.
func why(b []byte) string {
	if bytes.IndexByte(b, 0) >= 0 {
		return "NUL"
	}
	for l := range bytes.SplitAfterSeq(b, []byte("\r\n")) {
		if bytes.IndexByte(bytes.TrimSuffix(l, []byte("\r\n")), '\r') >= 0 {
			return "bare CR"
		}
		if len(l) > maxLine {
			return "line"
		}
	}
	return ""
}

// TestCorpus sends every real message through SMTP and reads it back over
// IMAP and POP3.
func TestCorpus(t *testing.T) {
	files := corpus(t)
	s := start(t)
	c, err := net.Dial("tcp", s.addr["smtp"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	cmd := func(format string, args ...any) string {
		t.Helper()
		c.SetDeadline(time.Now().Add(time.Minute))
		if format != "" {
			fmt.Fprintf(c, format+"\r\n", args...)
		}
		for {
			l, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("smtp: %v", err)
			}
			if len(l) > 3 && l[3] == ' ' {
				return strings.TrimSpace(l)
			}
		}
	}
	cmd("")
	cmd("EHLO corpus.test")
	var sent []string
	var taken [][]byte
	refused := map[string]int{}
	for name, b := range files {
		cmd("MAIL FROM:<carol@elsewhere.test> BODY=8BITMIME")
		if got := cmd("RCPT TO:<%s>", bob); !strings.HasPrefix(got, "250") {
			t.Fatalf("%s: %s", name, got)
		}
		if got := cmd("DATA"); !strings.HasPrefix(got, "354") {
			t.Fatalf("%s: %s", name, got)
		}
		w := bufio.NewWriter(c)
		for l := range bytes.SplitAfterSeq(b, []byte("\r\n")) {
			if bytes.HasPrefix(l, []byte(".")) {
				w.WriteByte('.')
			}
			w.Write(l)
		}
		if !bytes.HasSuffix(b, []byte("\r\n")) {
			w.WriteString("\r\n")
			b = append(b, "\r\n"...)
		}
		w.WriteString(".\r\n")
		if err := w.Flush(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := cmd("")
		switch reason := why(b); {
		case reason == "" && strings.HasPrefix(got, "250"):
			sent, taken = append(sent, name), append(taken, b)
		case reason != "" && strings.HasPrefix(got, "554 5.6.0 "):
			refused[reason]++
		default:
			t.Errorf("%s (%q): %s", name, reason, got)
		}
	}
	cmd("QUIT")
	t.Logf("corpus: %d messages taken, refused as documented: %v", len(taken), refused)
	if len(taken) < 200 {
		t.Errorf("the corpus is too small to mean anything: %d", len(taken))
	}

	box := s.imap(t, bob, bobPass)
	box.wait("INBOX", len(taken))
	box.ok("SELECT INBOX")
	pop := s.pop(t)
	for i, b := range taken {
		over := box.message(i + 1)
		if !strings.HasSuffix(over, string(b)) {
			t.Errorf("%s: IMAP gives back something else", sent[i])
		} else if head := over[:len(over)-len(b)]; !strings.HasPrefix(head, "Return-Path: <carol@elsewhere.test>\r\n") || strings.Contains(head, "\r\n\r\n") {
			t.Errorf("%s: trace header: %q", sent[i], head)
		}
		if got := pop.retr(i + 1); got != over {
			t.Errorf("%s: POP3 and IMAP differ", sent[i])
		}
		// The structure and every part must be there for the asking.
		box.ok(fmt.Sprintf("FETCH %d (ENVELOPE BODYSTRUCTURE BODY.PEEK[1] BODY.PEEK[HEADER] BODY.PEEK[TEXT])", i+1))
	}
}

type popConn struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func (s *server) pop(t *testing.T) *popConn {
	t.Helper()
	c, err := tls.Dial("tcp", s.addr["pop3s"], s.tls())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p := &popConn{t, c, bufio.NewReader(c)}
	p.ok("")
	p.ok("USER " + bob)
	p.ok("PASS " + bobPass)
	return p
}

func (p *popConn) ok(cmd string) {
	p.t.Helper()
	p.c.SetDeadline(time.Now().Add(time.Minute))
	if cmd != "" {
		io.WriteString(p.c, cmd+"\r\n")
	}
	l, err := p.r.ReadString('\n')
	if err != nil || !strings.HasPrefix(l, "+OK") {
		p.t.Fatalf("pop3: %s: %q %v", cmd, l, err)
	}
}

func (p *popConn) retr(n int) string {
	p.t.Helper()
	p.ok(fmt.Sprintf("RETR %d", n))
	var b strings.Builder
	for {
		l, err := p.r.ReadString('\n')
		if err != nil {
			p.t.Fatalf("pop3: %v", err)
		}
		if l == ".\r\n" {
			return b.String()
		}
		b.WriteString(strings.TrimPrefix(l, "."))
	}
}
