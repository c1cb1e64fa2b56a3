package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/examples/internal/page"
	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/resolver"
	"github.com/postrider/postrider/pop3/pop3server"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/submission"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/delivery"
	"github.com/postrider/postrider/store/memstore"
)

// password is every user's.
const password = "a horse, a bag of letters"

// domain is one mail domain: MX, submission, POP3, IMAP, a store and a queue.
type domain struct {
	name, host string
	user       string // its one user, an address
	mail       *memstore.Store
	mx         *smtpserver.Server
	mxAddr     string            // where mx will listen
	addr       map[string]string // of what listens, by name
	queue      *queue.Queue
	queued     *memqueue.Storage
	sender     *mx.Sender
	events     chan queue.Event

	servers []shutdowner
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

type shutdowner interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// newDomain starts everything but the MX, which is down at first.
func newDomain(ctx context.Context, w *world, p *page.Page, name, user string) (*domain, error) {
	d := &domain{name: name, host: "mx." + name, user: user, mail: memstore.New(), addr: map[string]string{},
		queued: &memqueue.Storage{}, events: make(chan queue.Event, 100)}
	if err := d.mail.CreateAccount(ctx, user); err != nil {
		return nil, err
	}
	cert, err := w.certificate(d.host)
	if err != nil {
		return nil, err
	}
	keys, err := w.signers(name)
	if err != nil {
		return nil, err
	}
	hash, err := login.Hash(password)
	if err != nil {
		return nil, err
	}
	tc := &tls.Config{Certificates: []tls.Certificate{cert}}
	quiet := slog.New(slog.DiscardHandler)
	auth := &login.Passwords{Lookup: func(_ context.Context, u string) (login.Record, error) {
		if u != user {
			return login.Record{}, login.ErrNoUser
		}
		return login.Record{Hash: hash}, nil
	}}

	// Mail that comes in: checked, then stored.
	dns := &resolver.Resolver{Servers: []string{w.dnsAddr}}
	d.mx = &smtpserver.Server{Hostname: d.host, TLS: tc, Log: quiet, Backend: &delivery.Backend{
		Recipients: d.recipients,
		Verifier:   &verify.Verifier{Resolver: dns},
		Policy:     delivery.DMARC,
		Target:     delivery.To(d.mail),
		Log:        quiet,
	}}
	d.servers = append(d.servers, d.mx)
	// A free port, which nobody listens on until the MX comes up.
	l, err := listen(ctx)
	if err != nil {
		return nil, err
	}
	d.mxAddr = l.Addr().String()
	l.Close()

	// Mail that goes out: completed, signed, queued, sent to the MX.
	d.sender = &mx.Sender{Resolver: dns, Names: []string{d.host}, Dialer: smtpclient.Dialer{
		Hello: d.host, TLS: &tls.Config{RootCAs: w.roots}, Trace: smtpTrace(p, "5-smtp-transfer")}}
	d.queue = &queue.Queue{Storage: d.queued, Transport: d, Hostname: d.host, Log: quiet,
		Retry:   queue.Backoff(250*time.Millisecond, time.Second),
		OnEvent: func(e queue.Event) { d.events <- e }}
	submit := &submission.Submitter{Queue: d.queue, Sign: func(context.Context, smtp.Address) (submission.Signer, error) {
		return dkim.NewSigner(keys...)
	}}

	for listener, srv := range map[string]shutdowner{
		"submission":  &smtpserver.Server{Backend: submit, Hostname: d.host, TLS: tc, Auth: auth, RequireAuth: true, Log: quiet},
		"submissions": &smtpserver.Server{Backend: submit, Hostname: d.host, TLS: tc, ImplicitTLS: true, Auth: auth, RequireAuth: true, Log: quiet},
		"imaps":       &imapserver.Server{Store: d.mail, Auth: auth, TLS: tc, ImplicitTLS: true, Log: quiet},
		"pop3s":       &pop3server.Server{Store: d.mail, Auth: auth, TLS: tc, ImplicitTLS: true, Log: quiet},
	} {
		l, err := listen(ctx)
		if err != nil {
			return nil, err
		}
		d.addr[listener] = l.Addr().String()
		d.servers = append(d.servers, srv)
		d.wg.Go(func() { srv.Serve(l) })
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	d.wg.Go(func() { d.queue.Run(run) })
	return d, nil
}

// recipients knows one user.
func (d *domain) recipients(_ context.Context, to smtp.Address) ([]store.Target, error) {
	switch {
	case to.Domain != d.name:
		return nil, delivery.ErrRelay
	case to.String() != d.user:
		return nil, delivery.ErrNoUser
	}
	return []store.Target{{Account: d.user}}, nil
}

// up starts the MX.
func (d *domain) up(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.mxAddr)
	if err != nil {
		return err
	}
	d.wg.Go(func() { d.mx.Serve(l) })
	return nil
}

// Deliver makes the domain the queue's Transport: its own mail, the bounces,
// goes to its own MX, and the rest to the MX of its domain.
func (d *domain) Deliver(ctx context.Context, env *smtp.Envelope, body queue.Body) []smtp.Result {
	if env.To[0].Domain == d.name {
		own := &smtpclient.Relay{Addr: d.mxAddr, Pool: &smtpclient.Pool{MaxIdle: -1, Dialer: smtpclient.Dialer{Hello: d.host}}}
		return own.Deliver(ctx, env, body)
	}
	return d.sender.Deliver(ctx, env, body)
}

// waitFor returns the next event that is of a kind.
func (d *domain) waitFor(ctx context.Context, match func(queue.Event) bool) (queue.Event, error) {
	for {
		select {
		case e := <-d.events:
			if match(e) {
				return e, nil
			}
		case <-ctx.Done():
			return queue.Event{}, fmt.Errorf("waiting for the queue of %s: %w", d.name, ctx.Err())
		}
	}
}

// shutdown drains all of it.
func (d *domain) shutdown(ctx context.Context) error {
	var errs error
	for _, s := range d.servers {
		errs = errors.Join(errs, s.Shutdown(ctx))
	}
	errs = errors.Join(errs, d.queue.Shutdown(ctx))
	d.stop()
	d.wg.Wait()
	return errs
}

// port returns the port of an address.
func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
