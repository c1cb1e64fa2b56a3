package interop

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/dane"
	"github.com/postrider/postrider/mx/resolver"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// alone is the environment variable of a test that runs in namespaces of its
// own.
const alone = "POSTRIDER_INTEROP_ALONE"

// inNamespaces runs the test that calls it once more, with a network and
// mounts of its own, where 127.0.0.1:53 and port 25 are free and
// /etc/resolv.conf can be another. It reports whether this is that run.
func inNamespaces(t *testing.T) bool {
	t.Helper()
	if os.Getenv(alone) == t.Name() {
		for _, args := range [][]string{{"ip", "link", "set", "lo", "up"}, {"mount", "--make-rprivate", "/"}} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
		}
		conf := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\noptions edns0 trust-ad\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("mount", "--bind", conf, "/etc/resolv.conf").CombinedOutput(); err != nil {
			t.Fatalf("mount: %v\n%s", err, out)
		}
		return true
	}
	need(t, "unshare", "ip", "mount")
	if os.Getuid() != 0 {
		if os.Getenv("POSTRIDER_REQUIRE") != "" {
			t.Fatal("needs root, for namespaces")
		}
		t.Skip("needs root, for namespaces")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "-n", "-m", exe, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "2m")
	cmd.Env = append(os.Environ(), alone+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in namespaces: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in namespaces it did not run:\n%s", out)
	}
	return false
}

// inbox takes mail for everybody.
type inbox chan string

func (in inbox) NewSession(context.Context, *smtpserver.Conn) (smtpserver.Session, error) {
	return in, nil
}
func (in inbox) Mail(context.Context, smtp.Address, smtp.MailOptions) error { return nil }
func (in inbox) Rcpt(context.Context, smtp.Address, smtp.RcptOptions) error { return nil }
func (in inbox) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	b, err := io.ReadAll(r)
	if err == nil {
		in <- string(b)
	}
	return smtp.Reply{}, err
}
func (in inbox) Reset()       {}
func (in inbox) Close() error { return nil }

// daneZones are the domains of TestDANE: one whose host has the right record,
// one with a wrong one, one without, and one that is not signed.
func daneZones(record string) map[string]string {
	wrong := "3 1 1 " + strings.Repeat("ab", 32)
	return map[string]string{
		"good.test":  "@ MX 10 mx\nmx A 127.0.0.1\n_25._tcp.mx TLSA " + record,
		"wrong.test": "@ MX 10 mx\nmx A 127.0.0.1\n_25._tcp.mx TLSA " + wrong,
		"none.test":  "@ MX 10 mx\nmx A 127.0.0.1",
		"plain.test": "@ MX 10 mx\nmx A 127.0.0.1\n_25._tcp.mx TLSA " + wrong,
	}
}

// TestDANE: Postfix finds by DANE whom our server claims to be, and our Sender
// whom Postfix does, each with the same zones behind a validating Unbound.
func TestDANE(t *testing.T) {
	need(t, "posttls-finger", "postfix")
	if !inNamespaces(t) {
		return
	}
	dir := t.TempDir()
	certFile, keyFile, cert := certificate(t, dir)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	r, err := dane.New(dane.UsageEE, dane.SelectorSPKI, dane.MatchingSHA256, cert)
	if err != nil {
		t.Fatal(err)
	}
	signed := map[string]*strings.Replacer{"good.test": nil, "wrong.test": nil, "none.test": nil}
	addr := validator(t, 53, daneZones(r.String()), signed)

	write(t, filepath.Join(dir, "main.cf"), "compatibility_level = 3.6\n")

	t.Run("Postfix to us", func(t *testing.T) {
		in := make(inbox, 1)
		srv := &smtpserver.Server{Hostname: "mx.good.test", Backend: in, TLS: &tls.Config{Certificates: []tls.Certificate{pair}}, Log: slog.New(slog.DiscardHandler)}
		l, err := net.Listen("tcp", "127.0.0.1:25")
		if err != nil {
			t.Fatal(err)
		}
		go srv.Serve(l)
		defer srv.Close()
		for domain, want := range map[string]string{
			"good.test": "Verified TLS connection established", "wrong.test": "Server certificate not verified",
			"none.test": "Untrusted TLS connection established", "plain.test": "Untrusted TLS connection established",
		} {
			cmd := exec.Command("posttls-finger", "-c", "-l", "dane", "-L", "summary", domain)
			cmd.Env = append(os.Environ(), "MAIL_CONFIG="+dir)
			out, _ := cmd.CombinedOutput()
			if domain == "wrong.test" && strings.Contains(string(out), "Untrusted TLS connection established") {
				continue // its word for records that do not match
			}
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: %s", domain, out)
			}
		}
	})

	t.Run("us to Postfix", func(t *testing.T) {
		startPostfixAt(t, "127.0.0.1:25", certFile, keyFile, "smtpd_relay_restrictions = reject_unauth_destination",
			"relay_domains = good.test wrong.test none.test plain.test", "relay_recipient_maps =", "relay_transport = discard")
		s := &mx.Sender{Resolver: &resolver.Resolver{Servers: []string{addr}}}
		for domain, want := range map[string]string{"good.test": "dane", "wrong.test": "failed", "none.test": "TLS", "plain.test": "TLS"} {
			env := &smtp.Envelope{From: smtp.Address{Local: "a", Domain: "b.test"}, To: []smtp.Recipient{{Address: smtp.Address{Local: "x", Domain: domain}}}}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			res := s.Deliver(ctx, env, strings.NewReader("Subject: x\r\n\r\nx\r\n"))[0]
			got := "failed"
			if res.Err == nil {
				got = res.Hop.Auth
				if got == "" && res.Hop.TLS != 0 {
					got = "TLS"
				}
			}
			if got != want {
				t.Errorf("%s: %s, want %s: %+v %v", domain, got, want, res, res.Err)
			}
		}
	})
}
