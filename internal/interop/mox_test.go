package interop

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// startMox runs mox's localserve in a folder of its own, and returns that and
// the addresses by the ports that it has by default.
func startMox(t *testing.T) (dir string, addr map[string]string) {
	t.Helper()
	need(t, "mox")
	dir = filepath.Join(t.TempDir(), "mox")
	if out, err := exec.Command("mox", "localserve", "-initonly", "-dir", dir, "-ip", "127.0.0.1").CombinedOutput(); err != nil {
		t.Fatalf("mox: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "mox.conf")
	conf, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	addr = map[string]string{}
	conf = regexp.MustCompile(`(?m)^(\s*Port: )(\d+)$`).ReplaceAllFunc(conf, func(line []byte) []byte {
		head, port, _ := bytes.Cut(line, []byte(": "))
		a := freePort(t)
		addr[string(port)] = a
		_, free, _ := strings.Cut(a, ":")
		return fmt.Appendf(nil, "%s: %s", head, free)
	})
	if err := os.WriteFile(file, conf, 0o600); err != nil {
		t.Fatal(err)
	}
	// Mail from nowhere is junk to it.
	file = filepath.Join(dir, "domains.conf")
	if conf, err = os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	conf = regexp.MustCompile(`(?ms)^\t\tRejectsMailbox: [^\n]*\n|^\t\tJunkFilter:\n.*?^(\t\t[^\t\n#])`).ReplaceAll(conf, []byte("$1"))
	if err := os.WriteFile(file, conf, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command("mox", "localserve", "-dir", dir)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("mox:\n%s", log.String())
		}
	})
	awaitPort(t, addr["1465"])
	return dir, addr
}

// TestMoxServer: our client logs in to mox's server with SCRAM bound to the
// connection, and hands it messages that require TLS.
func TestMoxServer(t *testing.T) {
	dir, addr := startMox(t)
	d := trusting(t, filepath.Join(dir, "localhost.crt"))
	var lines []string
	d.Trace = &smtpclient.Trace{Command: func(line string) { lines = append(lines, line) }}
	env := &smtp.Envelope{From: mustAddress(t, "mox@localhost"), To: []smtp.Recipient{{Address: mustAddress(t, "mox@localhost")}}}
	env.RequireTLS = true
	for _, tt := range []struct {
		name   string
		target smtpclient.Target
		want   []string
	}{
		{"submission", smtpclient.Target{Addr: addr["1587"], Name: "localhost", Auth: &smtpclient.Auth{User: "mox@localhost", Password: "moxmoxmox"}}, []string{"STARTTLS", "AUTH SCRAM-SHA-256-PLUS ***", "REQUIRETLS"}},
		{"submissions", smtpclient.Target{Addr: addr["1465"], Name: "localhost", ImplicitTLS: true, Auth: &smtpclient.Auth{User: "mox@localhost", Password: "moxmoxmox"}}, []string{"AUTH SCRAM-SHA-256-PLUS ***", "REQUIRETLS"}},
		{"relay", smtpclient.Target{Addr: addr["1025"], Name: "localhost", Need: smtpclient.Verified}, []string{"STARTTLS", "REQUIRETLS"}},
	} {
		lines = nil
		text := "From: <mox@localhost>\r\nTo: <mox@localhost>\r\nSubject: " + tt.name + "\r\nMessage-ID: <" + tt.name + "@localhost>\r\nDate: " + time.Now().Format(time.RFC1123Z) + "\r\n\r\n.\r\nHello\r\n"
		if r := d.Send(context.Background(), tt.target, env, strings.NewReader(text)); r[0].Err != nil {
			t.Errorf("%s: %v\n%q", tt.name, r[0].Err, lines)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(strings.Join(lines, "\n"), want) {
				t.Errorf("%s: no %s in %q", tt.name, want, lines)
			}
		}
	}
	if !arrives(dir, "Subject: relay\r\n") {
		t.Error("mox has no message")
	}
	bad := smtpclient.Target{Addr: addr["1465"], Name: "localhost", ImplicitTLS: true, Auth: &smtpclient.Auth{User: "mox@localhost", Password: "wrong"}}
	if r := d.Send(context.Background(), bad, env, strings.NewReader("x\r\n")); asError(r[0].Err) == nil || asError(r[0].Err).Code != 454 {
		t.Errorf("a wrong password: %v", r[0].Err)
	}
}

// arrives waits for a message file of mox with a line.
func arrives(dir, line string) bool {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		found := false
		filepath.WalkDir(filepath.Join(dir, "accounts"), func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && strings.Contains(path, string(filepath.Separator)+"msg"+string(filepath.Separator)) {
				b, _ := os.ReadFile(path)
				found = found || bytes.Contains(b, []byte(line))
			}
			return nil
		})
		if found {
			return true
		}
	}
	return false
}
