package main

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
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// smtpChildEnv names what a child process is to be: servers run apart from
// their load, so that the CPU time and memory measured are theirs alone.
const smtpChildEnv = "PEERBENCH_SMTP"

// smtpChild is the main function of such a process; it ends with its stdin.
// "stat" there gives CPU time, allocations and memory; "holder" opens
// connections and keeps them.
func smtpChild(kind string) {
	if args, ok := strings.CutPrefix(kind, "hold "); ok {
		if err := hold(strings.Fields(args)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	if args, ok := strings.CutPrefix(kind, "queue "); ok {
		if err := queueChild(strings.Fields(args)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	if args, ok := strings.CutPrefix(kind, "lmtp "); ok {
		if err := lmtpChild(strings.Fields(args)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	name, secure := strings.CutSuffix(kind, "+tls")
	var cfg *tls.Config
	if secure {
		if cfg, err = selfSigned(); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	switch name {
	case "ours":
		s := &smtpserver.Server{Hostname: "bench.test", Backend: discardBackend{}, MaxConnections: -1, MaxConnectionsPerIP: -1,
			MaxCommands: -1, TLS: cfg, ImplicitTLS: secure, Log: slog.New(slog.DiscardHandler)}
		go s.Serve(l)
	case "go-smtp":
		s := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return goSession{}, nil }))
		s.Domain, s.MaxMessageBytes, s.ErrorLog = "bench.test", 50<<20, log.New(io.Discard, "", 0)
		s.ReadTimeout, s.WriteTimeout = 5*time.Minute, 5*time.Minute
		if secure {
			go s.Serve(tls.NewListener(l, cfg))
		} else {
			go s.Serve(l)
		}
	case "floor":
		go floor(l)
	}
	fmt.Println(l.Addr())
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
		if sc.Text() == "gc" {
			debug.FreeOSMemory()
		}
		var ru syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println(ru.Utime.Nano()+ru.Stime.Nano(), m.Mallocs, statusKB("VmRSS:")<<10, statusKB("VmHWM:")<<10)
	}
}

func statusKB(field string) int64 {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

func selfSigned() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench.test"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}

type discardBackend struct{}

func (discardBackend) NewSession(context.Context, *smtpserver.Conn) (smtpserver.Session, error) {
	return discardSession{}, nil
}

type discardSession struct{}

func (discardSession) Mail(context.Context, smtp.Address, smtp.MailOptions) error { return nil }
func (discardSession) Rcpt(context.Context, smtp.Address, smtp.RcptOptions) error { return nil }
func (discardSession) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	_, err := io.Copy(io.Discard, r)
	return smtp.Reply{}, err
}
func (discardSession) Reset()       {}
func (discardSession) Close() error { return nil }

type goSession struct{}

func (goSession) Mail(string, *gosmtp.MailOptions) error { return nil }
func (goSession) Rcpt(string, *gosmtp.RcptOptions) error { return nil }
func (goSession) Data(r io.Reader) error                 { _, err := io.Copy(io.Discard, r); return err }
func (goSession) Reset()                                 {}
func (goSession) Logout() error                          { return nil }

// floor answers constants: nothing that looks at its input can be faster.
func floor(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			r, w := bufio.NewReaderSize(c, 8<<10), bufio.NewWriter(c)
			w.WriteString("220 x\r\n")
			data := false
			for {
				if r.Buffered() == 0 && w.Flush() != nil {
					return
				}
				line, err := r.ReadSlice('\n')
				switch {
				case errors.Is(err, bufio.ErrBufferFull):
				case err != nil:
					return
				case data:
					if bytes.Equal(line, []byte(".\r\n")) {
						data = false
						w.WriteString("250 x\r\n")
					}
				case line[0] == 'D':
					data = true
					w.WriteString("354 x\r\n")
				default:
					w.WriteString("250 x\r\n")
				}
			}
		}()
	}
}

// hold opens COUNT connections to ADDR, with "tls" behind TLS, and says EHLO.
func hold(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	secure := len(args) > 2
	errs := make(chan error, 1)
	todo := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var kept []net.Conn
	for range 16 {
		wg.Go(func() {
			for range todo {
				c, err := net.Dial("tcp", args[0])
				if err == nil && secure {
					c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
				}
				if err == nil {
					_, err = newLoad(c)
				}
				if err != nil {
					select {
					case errs <- err:
					default:
					}
					continue
				}
				mu.Lock()
				kept = append(kept, c)
				mu.Unlock()
			}
		})
	}
	for range n {
		todo <- struct{}{}
	}
	close(todo)
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// child is a process of ours.
type child struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

// stat is what a server process has used so far.
type stat struct {
	cpu          time.Duration
	mallocs      uint64
	rss, rssPeak int64
}

func startChild(kind string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(exe)}
	c.cmd.Env = append(os.Environ(), smtpChildEnv+"="+kind)
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	line, err := c.out.ReadString('\n')
	if err == nil && strings.HasPrefix(line, "error") {
		err = errors.New(strings.TrimSpace(line))
	}
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("child %s: %w", kind, err)
	}
	c.addr = strings.TrimSpace(line)
	return c, nil
}

func (c *child) stop() {
	c.in.Close()
	c.cmd.Wait()
}

func (c *child) stat(command string) (s stat, err error) {
	if _, err := fmt.Fprintln(c.in, command); err != nil {
		return s, err
	}
	_, err = fmt.Fscanln(c.out, &s.cpu, &s.mallocs, &s.rss, &s.rssPeak)
	return s, err
}
