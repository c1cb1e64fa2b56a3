package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/queue/webhook"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
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
	lines := strings.Count(string(b), "\n")
	if lines > 60 {
		t.Errorf("%d lines, want at most 60", lines)
	}
}

const message = "From: =?utf-8?q?K=C3=A4the?= <kaethe@north.example>\r\nTo: a@in.example.org\r\nMessage-ID: <1@north.example>\r\n" +
	"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\nsch\xf6n\r\n"

// posted is what the hook is sent.
type posted struct {
	ID, MailFrom, From, Subject, Text string
	To                                []string
	Auth                              []auth.MethodResult
	Raw                               []byte
}

func TestWebhook(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var down atomic.Bool
	got := make(chan posted, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if err := webhook.Verify(r.Header.Get(webhook.SignatureHeader), body, time.Now(), 0, []byte("s3")); err != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v: %v", r.Header, err)
		}
		var p posted
		if err := json.Unmarshal(body, &p); err != nil {
			t.Error(err)
		}
		got <- p
	}))
	defer hook.Close()
	addr := start(t, hook.URL)

	// The hook is down, then up.
	down.Store(true)
	send(t, ctx, addr, 451, "a@in.example.org")
	down.Store(false)
	send(t, ctx, addr, 250, "a@in.example.org", "b@in.example.org")
	p := <-got
	if p.From != "Käthe <kaethe@north.example>" || p.Subject != "Grüße" || p.Text != "schön\r\n" || p.MailFrom != "bounces@north.example" ||
		strings.Join(p.To, " ") != "a@in.example.org b@in.example.org" || p.ID != "<1@north.example>" || string(p.Raw) != message {
		t.Errorf("posted %+v", p)
	}
	if len(p.Auth) == 0 || p.Auth[0].Method == "" {
		t.Errorf("no results of authentication: %+v", p.Auth)
	}

	// Mail for others is none of ours, and a hook that is gone is down too.
	send(t, ctx, addr, 550, "a@elsewhere.example")
	hook.Close()
	send(t, ctx, addr, 451, "a@in.example.org")
	if len(got) != 0 {
		t.Error("something was posted that was not accepted")
	}
}

// start runs the program and returns where it listens. Somebody else may be
// faster in taking the port that was free a moment ago: then it ends at once,
// and is given another.
func start(t *testing.T, hook string) string {
	t.Helper()
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		l.Close()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "LISTEN="+addr, "HOOK="+hook, "DOMAIN=in.example.org", "SECRET=s3")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			cmd.Wait()
			close(ended)
		}()
		t.Cleanup(func() {
			cmd.Process.Kill()
			<-ended
		})
		if listens(addr, ended) {
			return addr
		}
	}
	t.Fatal("it does not listen")
	return ""
}

// listens waits until somebody listens, or the program has ended.
func listens(addr string, ended <-chan struct{}) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return true
		}
		select {
		case <-tick.C:
		case <-ended:
			return false
		}
	}
}

func send(t *testing.T, ctx context.Context, addr string, code int, to ...string) {
	t.Helper()
	env := smtp.Envelope{From: smtp.Address{Local: "bounces", Domain: "north.example"}, MailOptions: smtp.MailOptions{Body: smtp.Body8Bit}}
	for _, s := range to {
		a, err := smtp.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		env.To = append(env.To, smtp.Recipient{Address: a})
	}
	d := smtpclient.Dialer{Hello: "client.north.example"}
	for _, r := range d.Send(ctx, smtpclient.Target{Addr: addr}, &env, strings.NewReader(message)) {
		var e *smtp.Error
		if got := r.Reply.Code; r.Err == nil && got != code || r.Err != nil && (!errors.As(r.Err, &e) || e.Code != code) {
			t.Errorf("to %v: %v %v, want %d", to, r.Reply, r.Err, code)
		}
	}
}
