package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/examples/internal/control"
	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/mx/resolver"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// relay is the server, the queue, and the connections out.
type relay struct {
	*config
	server   *smtpserver.Server
	listener net.Listener
	queue    *queue.Queue
	disk     *diskqueue.Storage
	pool     *smtpclient.Pool
	sts      *mtasts.Client // nil with a smarthost
	control  *control.Server
	metrics  *metrics
	web      *http.Server // for -metrics, else nil
	webAddr  string
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

func newRelay(c *config) (*relay, error) {
	r := &relay{config: c, metrics: newMetrics(), stop: func() {}, pool: &smtpclient.Pool{Dialer: smtpclient.Dialer{Hello: c.hostname}}}
	r.server = &smtpserver.Server{Hostname: c.hostname, Backend: r,
		// What the queue and the client keep is promised: notices, and TLS on
		// the whole way for those who insist on it.
		Extensions: append(smtpserver.DefaultExtensions(), "REQUIRETLS")}
	if c.cert != "" {
		cert, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, err
		}
		r.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	if len(c.users) > 0 {
		users, err := users(c.users)
		if err != nil {
			return nil, err
		}
		r.server.Auth = users
	}

	var err error
	if r.disk, err = diskqueue.Open(filepath.Join(c.data, "queue"), nil); err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	out, err := r.transport()
	if err != nil {
		r.disk.Close()
		return nil, err
	}
	r.queue = &queue.Queue{Storage: r.disk, Transport: out, Hostname: c.hostname, OnEvent: func(e queue.Event) {
		r.metrics.event(e)
		log(e)
	}}
	return r, nil
}

// transport is the way out.
func (r *relay) transport() (queue.Transport, error) {
	if r.smarthost != "" {
		t := &smtpclient.Relay{Addr: r.smarthost, Pool: r.pool}
		if r.smarthostUser != "" {
			t.Auth = &smtpclient.Auth{User: r.smarthostUser, Password: os.Getenv("SMARTHOST_PASSWORD")}
		}
		return t, nil
	}
	dns := &resolver.Resolver{} // it turns DANE on
	if r.dns != "" {
		dns.Servers = []string{r.dns}
	}
	// Policies outlive this process: one that is forgotten protects nobody.
	policies := filepath.Join(r.data, "mta-sts")
	if err := os.MkdirAll(policies, 0o700); err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	r.sts = &mtasts.Client{Resolver: dns, Cache: mtasts.Dir(policies)}
	return &mx.Sender{Resolver: dns, STS: r.sts, Pool: r.pool, Port: uint16(r.mxPort), Names: []string{r.hostname}}, nil
}

// users makes a map of name:password: your database stands here.
func users(specs []string) (login.Authenticator, error) {
	records := map[string]login.Record{}
	for _, spec := range specs {
		user, password, ok := strings.Cut(spec, ":")
		name, err := login.PrepareUser(user)
		if !ok || err != nil || password == "" {
			return nil, fmt.Errorf("-user %s: want name:password", user)
		}
		hash, err := login.Hash(password)
		if err != nil {
			return nil, fmt.Errorf("-user %s: %w", user, err)
		}
		records[name] = login.Record{Hash: hash}
	}
	return &login.Passwords{Lookup: func(_ context.Context, user string) (login.Record, error) {
		r, ok := records[user]
		if !ok {
			return r, login.ErrNoUser
		}
		return r, nil
	}}, nil
}

// log writes one line for each step of each recipient.
func log(e queue.Event) {
	attrs := []any{"message", e.Message.ID.String(), "from", e.From.String(), "to", e.To.String(), "attempt", e.Attempt}
	if h := e.Result.Hop; h != nil {
		attrs = append(attrs, "host", h.Name)
		if h.TLS != 0 {
			attrs = append(attrs, "tls", tls.VersionName(h.TLS), "auth", h.Auth)
		}
	}
	if e.Result.Reply.Code != 0 {
		attrs = append(attrs, "reply", e.Result.Reply.String())
	} else if e.Result.Err != nil {
		attrs = append(attrs, "err", e.Result.Err)
	}
	if !e.Next.IsZero() {
		attrs = append(attrs, "next", e.Next)
	}
	slog.Info(e.Kind.String(), attrs...)
}

// start listens and runs the queue. The channel gets what fails later.
func (r *relay) start() (<-chan error, error) {
	var err error
	if r.listener, err = net.Listen("tcp", r.listen); err != nil {
		return nil, fmt.Errorf("-listen: %w", err)
	}
	if r.control, err = control.Serve(r.data, r.queue); err != nil { // for examples/queuectl
		return nil, err
	}
	if r.metricsListen != "" {
		l, err := net.Listen("tcp", r.metricsListen)
		if err != nil {
			return nil, fmt.Errorf("-metrics: %w", err)
		}
		r.web, r.webAddr = r.serveMetrics(l), l.Addr().String()
	}
	failed := make(chan error, 2)
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.wg.Go(func() { failed <- r.server.Serve(r.listener) })
	r.wg.Go(func() {
		if err := r.queue.Run(context.Background()); err != nil {
			failed <- fmt.Errorf("queue: %w", err)
		}
	})
	if r.sts != nil {
		r.wg.Go(func() { r.sts.Run(ctx) })
	}
	return failed, nil
}

// shutdown lets the sessions and the deliveries under way come to their end
// until ctx is done, then cuts what is left.
func (r *relay) shutdown(ctx context.Context) error {
	if err := r.server.Shutdown(ctx); err != nil {
		slog.Warn("sessions are cut", "reason", err)
	}
	if err := r.queue.Shutdown(ctx); err != nil {
		slog.Warn("deliveries are cut", "reason", err)
	}
	if err := r.pool.Shutdown(ctx); err != nil {
		slog.Warn("connections are cut", "reason", err)
	}
	return r.close()
}

// close cuts what is left and returns when all of it has ended.
func (r *relay) close() error {
	r.stop()
	if r.listener != nil {
		r.listener.Close()
	}
	r.server.Close()
	r.pool.Close()
	r.queue.Close()
	if r.control != nil {
		r.control.Close()
	}
	if r.web != nil {
		r.web.Shutdown(context.Background()) // scrapes are short
	}
	r.wg.Wait()
	return r.disk.Close()
}
