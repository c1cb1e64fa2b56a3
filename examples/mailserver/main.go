// Mailserver is a small mail server to copy: SMTP for the world, submission
// for its users, LMTP, IMAP and POP3, made of Postrider's parts. With no flags
// it listens on loopback and prints what to try.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// config is the command line.
type config struct {
	data         string
	index        bool
	domains      list
	users        list
	listen       map[string]*string // by name of the listener
	dns          string
	mxPort       uint
	retry        time.Duration
	cert, key    string
	dkim         string
	insecureAuth bool
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parse(args []string, usage io.Writer) (*config, error) {
	c := &config{listen: map[string]*string{}}
	f := flag.NewFlagSet("mailserver", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&c.data, "data", "", "`directory` to keep mail in; empty = in memory")
	f.BoolVar(&c.index, "index", false, "keep an index in -data, so that searching large mailboxes is fast")
	f.Var(&c.domains, "domain", "mail `domain` to serve, repeatable (default example.test)")
	f.Var(&c.users, "user", "`addr:password`, repeatable (default alice and bob)")
	for _, l := range []struct{ name, addr, use string }{
		{"smtp", "127.0.0.1:2525", "mail from the world"},
		{"submission", "127.0.0.1:2587", "mail from users, STARTTLS"},
		{"submissions", "127.0.0.1:2465", "mail from users, TLS"},
		{"lmtp", "", "mail from a trusted server in front"},
		{"imap", "127.0.0.1:2143", "IMAP, STARTTLS"},
		{"imaps", "127.0.0.1:2993", "IMAP, TLS"},
		{"pop3", "127.0.0.1:2110", "POP3, STLS"},
		{"pop3s", "127.0.0.1:2995", "POP3, TLS"},
	} {
		c.listen[l.name] = f.String(l.name, l.addr, "`host:port` for "+l.use+"; empty = off")
	}
	f.StringVar(&c.dns, "dns", "", "resolver's `host:port`; empty = the system's")
	f.UintVar(&c.mxPort, "mx-port", 25, "`port` that other servers listen on")
	f.DurationVar(&c.retry, "retry", 5*time.Minute, "how long to wait before mail that failed is tried again, doubled each time")
	f.StringVar(&c.cert, "cert", "", "certificate `file`, PEM; empty = one made at start")
	f.StringVar(&c.key, "key", "", "private key `file`, PEM")
	f.StringVar(&c.dkim, "dkim", "", "sign with `selector:keyfile`")
	f.BoolVar(&c.insecureAuth, "insecure-auth", false, "take passwords without TLS")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case c.index && c.data == "":
		return nil, errors.New("-index needs -data")
	case (c.cert == "") != (c.key == ""):
		return nil, errors.New("-cert and -key go together")
	case c.mxPort == 0 || c.mxPort > 65535:
		return nil, errors.New("-mx-port: want 1 to 65535")
	case c.retry <= 0:
		return nil, errors.New("-retry: want more than 0")
	}
	if len(c.domains) == 0 {
		c.domains = list{"example.test"}
	}
	return c, nil
}

func main() {
	c, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		err = run(c, os.Stdout, signals)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mailserver:", err)
		os.Exit(1)
	}
}

// run serves until the first signal, then drains; a second signal cuts.
func run(c *config, out io.Writer, signals <-chan os.Signal) error {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	s, err := newServer(c)
	if err != nil {
		return err
	}
	failed, err := s.start()
	if err != nil {
		s.close()
		return err
	}
	s.describe(out)
	fmt.Fprintln(out, "ready")

	select {
	case err = <-failed:
	case sig := <-signals:
		slog.Info("draining; once more to cut", "signal", sig.String())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	s.shutdown(ctx)
	s.report(os.Stderr)
	return err
}
