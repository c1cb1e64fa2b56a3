package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/resolver"
	"github.com/postrider/postrider/pop3/pop3server"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/queue/submission"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/delivery"
	"github.com/postrider/postrider/store/pgstore"
)

// config is what a node is told. Nodes of one cluster differ in name and
// listen alone.
type config struct {
	dsn, schema string // the database, and where in it the tables are
	name        string // of the node: it is the host name.domain
	domain      string // whose mail it serves
	smtp        string // addresses to listen on: mail from the world,
	submissions string // from users,
	imaps       string // and to them
	pop3s       string
	cert, key   string // files
	dns         string // "" = the system's resolver
	mxPort      uint   // where other servers listen
	retry       time.Duration
	lease       time.Duration // after which a silent node is taken for dead
	attached    bool          // to the process that started it
}

func parseNode(args []string) (*config, error) {
	c := &config{dsn: os.Getenv(envDSN)} // it may hold a password, so it is no argument
	f := flag.NewFlagSet("cluster node", flag.ContinueOnError)
	f.StringVar(&c.schema, "schema", "postrider", "the database `schema` with the tables")
	f.StringVar(&c.name, "name", "a", "`name` of this node, before the domain")
	f.StringVar(&c.domain, "domain", "cluster.example", "mail `domain` to serve")
	f.StringVar(&c.smtp, "smtp", "127.0.0.1:2525", "`host:port` for mail from the world")
	f.StringVar(&c.submissions, "submissions", "127.0.0.1:2465", "`host:port` for mail from users, TLS")
	f.StringVar(&c.imaps, "imaps", "127.0.0.1:2993", "`host:port` for IMAP, TLS")
	f.StringVar(&c.pop3s, "pop3s", "127.0.0.1:2995", "`host:port` for POP3, TLS")
	f.StringVar(&c.cert, "cert", "", "certificate `file`, PEM")
	f.StringVar(&c.key, "key", "", "private key `file`, PEM")
	f.StringVar(&c.dns, "dns", "", "resolver's `host:port`; empty = the system's")
	f.UintVar(&c.mxPort, "mx-port", 25, "`port` that other servers listen on")
	f.DurationVar(&c.retry, "retry", 5*time.Minute, "how long to wait before mail that failed is tried again, doubled each time")
	f.DurationVar(&c.lease, "lease", 30*time.Second, "after what time without a sign of life another node takes over")
	f.BoolVar(&c.attached, "attached", false, "end when standard input does")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return c, nil
}

// node is one mail server of several over one database. It keeps nothing of
// its own: whatever it has acknowledged is in PostgreSQL, where the other
// nodes find it.
type node struct {
	*config
	host  string
	pool  *pgxpool.Pool
	users users
	mail  *pgstore.Store
	spool *pgqueue.Storage
	queue *queue.Queue
	world *mx.Sender         // to other domains
	local *smtpserver.Server // to our own: LMTP, over a pipe
	ports []*port
	wg    sync.WaitGroup
}

// port is one listener; every server of Postrider has these methods.
type port struct {
	name, addr string
	server     interface {
		Serve(net.Listener) error
		Shutdown(context.Context) error
		Close() error
	}
	l net.Listener
}

func newNode(ctx context.Context, c *config) (_ *node, err error) {
	n := &node{config: c, host: c.name + "." + c.domain}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	cert, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, err
	}
	secure := &tls.Config{Certificates: []tls.Certificate{cert}}
	if n.pool, err = connect(ctx, c.dsn); err != nil {
		return nil, err
	}
	if n.mail, err = pgstore.Open(ctx, n.pool, pgstore.Options{Schema: c.schema}); err != nil {
		return nil, err
	}
	if n.spool, err = pgqueue.Open(ctx, n.pool, pgqueue.Options{Schema: c.schema}); err != nil {
		return nil, err
	}
	n.users = users{n.pool, pgx.Identifier{c.schema, "users"}.Sanitize()}
	auth := &login.Passwords{Lookup: n.users.lookup}
	dns := &resolver.Resolver{}
	if c.dns != "" {
		dns.Servers = []string{c.dns}
	}

	// Mail that comes in: checked when it is from the world, then stored.
	inbound := &delivery.Backend{Recipients: n.recipients, Target: delivery.To(n.mail),
		Verifier: &verify.Verifier{Resolver: dns}, Policy: delivery.DMARC}
	trusted := &delivery.Backend{Recipients: n.recipients, Target: delivery.To(n.mail)}
	n.local = &smtpserver.Server{Backend: trusted, Hostname: n.host, LMTP: true}

	// Mail that goes out: completed, queued, and sent by Deliver below, by
	// whichever node comes first.
	n.world = &mx.Sender{Resolver: dns, Port: uint16(c.mxPort), Names: []string{n.host}, Dialer: smtpclient.Dialer{Hello: n.host}}
	n.queue = &queue.Queue{Storage: n.spool, Transport: n, Hostname: n.host, LeaseTime: c.lease,
		Retry: queue.Backoff(c.retry, max(c.retry, 4*time.Hour)), OnEvent: log}

	n.ports = []*port{
		{name: "smtp", addr: c.smtp, server: &smtpserver.Server{Backend: inbound, Hostname: n.host, TLS: secure}},
		{name: "submissions", addr: c.submissions, server: &smtpserver.Server{Backend: &submission.Submitter{Queue: n.queue},
			Hostname: n.host, TLS: secure, ImplicitTLS: true, Auth: auth, RequireAuth: true}},
		{name: "imaps", addr: c.imaps, server: &imapserver.Server{Store: n.mail, Auth: auth, TLS: secure, ImplicitTLS: true}},
		{name: "pop3s", addr: c.pop3s, server: &pop3server.Server{Store: n.mail, Auth: auth, TLS: secure, ImplicitTLS: true}},
	}
	return n, nil
}

// connect opens a pool with a connection for each of a few busy sessions.
func connect(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	c.MaxConns = max(c.MaxConns, 16)
	return pgxpool.NewWithConfig(ctx, c)
}

// recipients says who gets mail for an address.
func (n *node) recipients(ctx context.Context, to smtp.Address) ([]store.Target, error) {
	if to.Domain != n.domain {
		return nil, delivery.ErrRelay
	}
	name := strings.ToLower(to.String())
	if _, err := n.users.lookup(ctx, name); errors.Is(err, login.ErrNoUser) {
		return nil, delivery.ErrNoUser
	} else if err != nil {
		return nil, err
	}
	return []store.Target{{Account: name}}, nil
}

// Deliver is the queue's Transport: mail for our domain goes to our own LMTP
// server, the rest to its MX. The recipients of one call share a domain.
func (n *node) Deliver(ctx context.Context, env *smtp.Envelope, body queue.Body) []smtp.Result {
	if env.To[0].Domain != n.domain {
		return n.world.Deliver(ctx, env, body)
	}
	d := smtpclient.Dialer{DialContext: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		n.wg.Go(func() { n.local.ServeConn(server) })
		return client, nil
	}}
	return d.Send(ctx, smtpclient.Target{Addr: "local:24", LMTP: true}, env, body)
}

// Group tells the queue which domains share hosts.
func (n *node) Group(ctx context.Context, domain string) (string, error) {
	if domain == n.domain {
		return "local", nil
	}
	return n.world.Group(ctx, domain)
}

// log writes a line for each step of each recipient, once it is stored.
func log(e queue.Event) {
	slog.Info(e.Kind.String(), "message", e.Message.ID, "to", e.To, "attempt", e.Attempt, "reply", smtp.ReplyFor(e.Result.Err).Code)
}

// run serves until ctx is done or a part fails, then drains for a few seconds
// and cuts what is left.
func (n *node) run(ctx context.Context, out io.Writer) error {
	defer n.close()
	for _, p := range n.ports {
		var err error
		if p.l, err = net.Listen("tcp", p.addr); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintln(out, p.name, p.l.Addr())
	}
	fmt.Fprintln(out, "ready")
	failed := make(chan error, len(n.ports)+1)
	for _, p := range n.ports {
		n.wg.Go(func() { failed <- fmt.Errorf("%s: %w", p.name, p.server.Serve(p.l)) })
	}
	n.wg.Go(func() {
		if err := n.queue.Run(context.Background()); err != nil {
			failed <- fmt.Errorf("queue: %w", err)
		}
	})
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range n.ports {
		wg.Go(func() { p.server.Shutdown(drain) })
	}
	wg.Wait()
	n.queue.Shutdown(drain)
	return err
}

// close cuts what is left and returns when all of it has ended.
func (n *node) close() {
	for _, p := range n.ports {
		p.server.Close()
	}
	if n.queue != nil {
		n.queue.Close()
	}
	if n.local != nil {
		n.local.Close()
	}
	n.wg.Wait()
	if n.spool != nil {
		n.spool.Close()
	}
	if n.mail != nil {
		n.mail.Close()
	}
	if n.pool != nil {
		n.pool.Close()
	}
}
