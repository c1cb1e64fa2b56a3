package main

import (
	"bufio"
	"context"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp/smtptest"
)

// TestMain runs the program itself when a test started it.
func TestMain(m *testing.M) {
	if os.Getenv("LISTEN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestSmall keeps the program short enough to be read before it is copied.
func TestSmall(t *testing.T) {
	b, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if lines, ours := strings.Count(string(b), "\n"), strings.Count(string(b), "\"github.com/postrider/"); lines > 60 || ours > 5 {
		t.Errorf("%d lines and %d imports of ours, want at most 60 and 5", lines, ours)
	}
}

// program is the web server in a process of its own.
type program struct {
	cmd   *exec.Cmd
	url   string
	log   *bufio.Scanner
	ended chan struct{}
}

// start runs the program. Somebody else may be faster in taking the port that
// was free a moment ago: then it ends at once, and is given another.
func start(t *testing.T, data string, provider *smtptest.Server, roots string) *program {
	t.Helper()
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		l.Close()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "LISTEN="+addr, "DATA="+data, "RELAY="+provider.Addr, "SECRET=s",
			"SMTP_USER=shop", "SMTP_PASSWORD=pw", "SSL_CERT_FILE="+roots)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		cmd.Stderr = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		p := &program{cmd, "http://" + addr + "/", bufio.NewScanner(r), make(chan struct{})}
		go func() {
			cmd.Wait()
			close(p.ended)
		}()
		t.Cleanup(p.kill)
		if p.listens(addr) {
			return p
		}
	}
	t.Fatal("it does not listen")
	return nil
}

// listens waits until it listens, or has ended.
func (p *program) listens(addr string) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return true
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return false
		}
	}
}

// kill ends it as a power cut would.
func (p *program) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

func (p *program) ask(t *testing.T, email string) string {
	t.Helper()
	resp, err := http.PostForm(p.url, url.Values{"email": {email}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp.Status, string(b), err)
	}
	return string(b)
}

func TestReset(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if runtime.GOOS == "darwin" || runtime.GOOS == "windows" {
		t.Skip("here SSL_CERT_FILE does not say whom to trust")
	}
	cert, _, err := smtptest.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	provider := (&smtptest.Server{STARTTLS: true, Certificate: &cert, Users: map[string]string{"shop": "pw"}, RequireAuth: true}).Run(t)
	data := filepath.Join(t.TempDir(), "mail")

	// The provider hangs: the browser is answered, and then the program dies.
	provider.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "ann@", Delay: time.Hour})
	provider.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "bob@", Reply: "550 5.1.1 No such user"})
	p := start(t, data, provider, roots)
	window := time.Now().Truncate(10 * time.Minute)
	known, stranger := p.ask(t, "ann@example.org"), p.ask(t, "nobody@example.org")
	if again := p.ask(t, "Ann <ann@example.org>"); known != stranger || known != again {
		t.Errorf("the answers differ: %q %q %q", known, stranger, again)
	}
	p.kill()
	if got := provider.Messages(); len(got) != 0 {
		t.Fatal("the provider took a message while it hung")
	}
	provider.Heal()

	// A new process sends what the old one had promised.
	provider.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "bob@", Reply: "550 5.1.1 No such user"})
	p = start(t, data, provider, roots)
	m := provider.Wait(ctx, 1)[0]
	if to := m.Envelope.To; len(to) != 1 || to[0].String() != "ann@example.org" || m.User != "shop" || m.Subject() != "Your new password" {
		t.Errorf("to %v by %s: %s", to, m.User, m.Subject())
	}
	if links := m.Links(); len(links) != 1 || !strings.HasPrefix(links[0], "https://shop.example/new?user=ann%40example.org&until=") {
		t.Errorf("links %q", links)
	}

	// One that bounces is told, and was no second mail to ann either.
	p.ask(t, "ann@example.org")
	p.ask(t, "bob@example.org")
	for p.log.Scan() {
		if strings.Contains(p.log.Text(), "bounced: ") {
			break
		}
	}
	if !strings.Contains(p.log.Text(), "bounced: bob@example.org: 550 5.1.1 No such user") {
		t.Errorf("the log ends with %q", p.log.Text())
	}
	if time.Now().Truncate(10*time.Minute) != window {
		return // the clock struck: a second mail is right
	}
	for _, m := range provider.Messages()[1:] {
		if m.Envelope.To[0].String() != "accounts@shop.example" || !m.Envelope.From.IsZero() { // the notice about bob
			t.Errorf("a second mail to %v", m.Envelope.To)
		}
	}
}
