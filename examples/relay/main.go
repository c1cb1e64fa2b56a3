// Relay is a store-and-forward mail server (an MTA) to copy: it takes mail from
// hosts and users that may send, keeps it on disk, and brings it to the MX of
// each domain, under DANE and MTA-STS where they ask for it, or to a smarthost.
// Strangers are refused.
//
//	go run ./examples/relay -data DIR [-allow 192.0.2.0/24] [-user ann@example.org:password] [-smarthost HOST:587]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// config is the command line.
type config struct {
	data, listen, hostname   string
	allow                    list
	users                    list
	smarthost, smarthostUser string
	dns                      string
	metricsListen            string
	mxPort                   uint
	cert, key                string
	prefixes                 []netip.Prefix // of allow
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parse(args []string, usage io.Writer) (*config, error) {
	c := &config{}
	f := flag.NewFlagSet("relay", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&c.data, "data", "", "`directory` to keep mail in (required)")
	f.StringVar(&c.listen, "listen", "127.0.0.1:2525", "`host:port`")
	f.StringVar(&c.hostname, "hostname", "", "`name` of this host as others know it; empty = the system's")
	f.Var(&c.allow, "allow", "`network` whose hosts may send, as 192.0.2.0/24, repeatable (default loopback)")
	f.Var(&c.users, "user", "`name:password` of who may send from anywhere, under TLS, repeatable")
	f.StringVar(&c.smarthost, "smarthost", "", "`host:port` that all mail goes to; empty = the MX of each domain")
	f.StringVar(&c.smarthostUser, "smarthost-user", "", "login there; the password is in $SMARTHOST_PASSWORD")
	f.StringVar(&c.dns, "dns", "", "resolver's `host:port`; empty = the system's. DANE needs one on loopback that validates")
	f.UintVar(&c.mxPort, "mx-port", 25, "`port` that other servers listen on")
	f.StringVar(&c.metricsListen, "metrics", "", "`host:port` for Prometheus to GET /metrics; empty = off")
	f.StringVar(&c.cert, "cert", "", "certificate `file`, PEM; empty = no STARTTLS")
	f.StringVar(&c.key, "key", "", "private key `file`, PEM")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case c.data == "":
		return nil, errors.New("-data: what is promised must be kept somewhere")
	case (c.cert == "") != (c.key == ""):
		return nil, errors.New("-cert and -key go together")
	case len(c.users) > 0 && c.cert == "":
		return nil, errors.New("-user needs -cert and -key: passwords are taken under TLS only")
	case c.mxPort == 0 || c.mxPort > 65535:
		return nil, errors.New("-mx-port: want 1 to 65535")
	}
	if len(c.allow) == 0 {
		c.allow = list{"127.0.0.0/8", "::1/128"}
	}
	for _, s := range c.allow {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("-allow: %w", err)
		}
		if p.Bits() == 0 {
			return nil, fmt.Errorf("-allow %s: that would be an open relay", s)
		}
		c.prefixes = append(c.prefixes, p)
	}
	var err error
	if c.hostname == "" {
		c.hostname, err = os.Hostname()
	}
	return c, err
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
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

// run serves until the first signal, then drains; a second signal cuts. What
// is queued is there the next time.
func run(c *config, out io.Writer, signals <-chan os.Signal) error {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	r, err := newRelay(c)
	if err != nil {
		return err
	}
	failed, err := r.start()
	if err != nil {
		r.close()
		return err
	}
	fmt.Fprintln(out, "smtp", r.listener.Addr())
	if r.web != nil {
		fmt.Fprintln(out, "metrics", "http://"+r.webAddr+"/metrics")
	}
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
	return errors.Join(err, r.shutdown(ctx))
}
