package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	alice, alicePass = "alice@example.test", "alice-secret-1"
	bob, bobPass     = "bob@example.test", "bob-secret-2"
)

// binary is examples/mailserver, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "postrider-interop-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "mailserver")
	cmd := exec.Command("go", "build", "-o", binary, "./examples/mailserver")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building examples/mailserver: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// need skips the test when a program is missing, or fails it when
// POSTRIDER_REQUIRE is set.
func need(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err == nil {
			continue
		}
		if _, err := os.Stat(n); err == nil {
			continue
		}
		if os.Getenv("POSTRIDER_REQUIRE") != "" {
			t.Fatalf("%s is required and not installed", n)
		}
		t.Skipf("%s is not installed", n)
	}
}

// server is a running examples/mailserver.
type server struct {
	addr     map[string]string // listener name to host:port
	certFile string
	cert     *x509.Certificate
	cmd      *exec.Cmd
	log      *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs the server on free ports until the test ends.
func start(t *testing.T, extra ...string) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{addr: map[string]string{}, log: &lockedBuffer{}}
	var keyFile string
	s.certFile, keyFile, s.cert = certificate(t, dir)
	args := []string{"-cert", s.certFile, "-key", keyFile, "-domain", "example.test",
		"-user", alice + ":" + alicePass, "-user", bob + ":" + bobPass, "-dns", nameServer(t)}
	for _, l := range []string{"smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s"} {
		args = append(args, "-"+l, "127.0.0.1:0")
	}
	s.cmd = exec.Command(binary, append(args, extra...)...)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			f := strings.Fields(sc.Text())
			if len(f) >= 2 {
				if _, _, err := net.SplitHostPort(f[1]); err == nil {
					s.addr[strings.TrimSpace(f[0])] = f[1]
				}
			}
			if sc.Text() == "ready" {
				ready <- true
				break
			}
		}
		io.Copy(io.Discard, out)
		close(ready)
	}()
	t.Cleanup(func() {
		s.cmd.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(20*time.Second, func() { s.cmd.Process.Kill() })
		<-drained
		err := s.cmd.Wait()
		if !stop.Stop() || err != nil {
			t.Errorf("the server did not end cleanly: %v", err)
		}
		if t.Failed() {
			t.Logf("server log:\n%s", tail(s.log.String(), 6000))
		}
	})
	select {
	case ok := <-ready:
		if !ok {
			t.Fatalf("the server ended before it was ready:\n%s", s.log)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("the server is not ready:\n%s", s.log)
	}
	return s
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// port returns host and port of a listener; the host is a name that the
// certificate has.
func (s *server) port(t *testing.T, name string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(s.addr[name])
	if err != nil {
		t.Fatalf("listener %s: %v (%v)", name, err, s.addr)
	}
	return port
}

func (s *server) tls() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.cert)
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// certificate makes a certificate for localhost that programs can be told to
// trust.
func certificate(t testing.TB, dir string) (certFile, keyFile string, cert *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ = x509.ParseCertificate(der)
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk})))
	return certFile, keyFile, cert
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a program for at most two minutes with HOME in a folder of its
// own and returns what it printed; it must end with exit code 0.
func run(t testing.TB, dir string, name string, args ...string) string {
	t.Helper()
	out, err := try(t, dir, name, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, tail(out, 6000))
	}
	return out
}

func try(t testing.TB, dir string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "FETCHMAILHOME="+dir, "TERM=dumb", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
