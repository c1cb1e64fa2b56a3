package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/examples/internal/control"
	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/resolver"
	"github.com/postrider/postrider/pop3/pop3server"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/submission"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/smtp/smtptest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/delivery"
	"github.com/postrider/postrider/store/diskstore"
	"github.com/postrider/postrider/store/memstore"
	"github.com/postrider/postrider/store/textindex"
)

// server is the whole system: what listens, and the queue between.
type server struct {
	listeners []*listener
	users     *users
	local     *smtpserver.Server // LMTP for our own queue, over a pipe
	world     *mx.Sender
	queue     *queue.Queue
	data      string          // -data
	held      held            // what the queue keeps
	closers   []func() error  // of what is on disk
	control   *control.Server // for examples/queuectl, with -data
	dir       string          // a folder with the certificate made at start, or ""
	wg        sync.WaitGroup
}

// held is where the queue's mail lies.
type held interface {
	queue.Storage
	queue.Lister
}

// mailboxes is where users' mail lies.
type mailboxes interface {
	store.Store
	store.Admin
}

// open opens what is kept: in -data, or in memory.
func (s *server) open() (mailboxes, error) {
	if s.data == "" {
		s.held = &memqueue.Storage{}
		return memstore.New(), nil
	}
	queued, err := diskqueue.Open(filepath.Join(s.data, "queue"), nil)
	if err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	s.held, s.closers = queued, append(s.closers, queued.Close)
	mail, err := diskstore.Open(filepath.Join(s.data, "mail"), nil)
	if err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	s.closers = append(s.closers, mail.Close)
	return mail, nil
}

// index puts an index before the mail, with -index.
func (s *server) index(c *config, mail store.Store) (store.Store, error) {
	if !c.index {
		return mail, nil
	}
	ix, err := textindex.Open(filepath.Join(s.data, "index"), mail, textindex.Options{})
	if err != nil {
		return nil, fmt.Errorf("-index: %w", err)
	}
	s.closers = append([]func() error{ix.Close}, s.closers...) // it reads the mail
	return ix, nil
}

// closeData closes what open opened.
func (s *server) closeData() {
	for _, c := range s.closers {
		if err := c(); err != nil {
			slog.Error("closing what is on disk", "err", err)
		}
	}
	s.closers = nil
}

// listener is one port; every server of Postrider has these methods.
type listener struct {
	name, note, addr string
	server           interface {
		Serve(net.Listener) error
		Shutdown(context.Context) error
		Close() error
	}
	l net.Listener
}

func newServer(c *config) (_ *server, err error) {
	s := &server{data: c.data}
	defer func() {
		if err != nil {
			s.closeData()
		}
	}()
	mail, err := s.open()
	if err != nil {
		return nil, err
	}
	read, err := s.index(c, mail)
	if err != nil {
		return nil, err
	}
	if s.users, err = newUsers(c, mail); err != nil {
		return nil, err
	}
	u, host := s.users, s.users.domains[0]
	tlsConfig, err := s.loadTLS(c)
	if err != nil {
		return nil, err
	}
	auth := &login.Passwords{Lookup: u.lookup}
	dns := &resolver.Resolver{}
	if c.dns != "" {
		dns.Servers = []string{c.dns}
	}

	// Mail that comes in: checked when it is from the world, and not when it
	// is from our own queue or a server in front.
	trusted := &delivery.Backend{Recipients: u.recipients, Target: delivery.To(mail)}
	inbound := &delivery.Backend{Recipients: u.recipients, Target: delivery.To(mail),
		Verifier: &verify.Verifier{Resolver: dns}, Policy: delivery.DMARC}
	s.local = &smtpserver.Server{Backend: trusted, Hostname: host, LMTP: true}

	// Mail that goes out: signed, queued, and sent by Deliver below.
	s.world = &mx.Sender{Resolver: dns, Port: uint16(c.mxPort), Names: []string{host}, Dialer: smtpclient.Dialer{Hello: host}}
	s.queue = &queue.Queue{Storage: s.held, Transport: s, Hostname: host, Retry: queue.Backoff(c.retry, max(c.retry, 4*time.Hour))}
	submit := &submission.Submitter{Queue: s.queue}
	if c.dkim != "" {
		if submit.Sign, err = signer(c.dkim); err != nil {
			return nil, err
		}
	}

	smtpd := func(implicit bool) *smtpserver.Server {
		return &smtpserver.Server{Backend: submit, Hostname: host, TLS: tlsConfig, ImplicitTLS: implicit,
			Auth: auth, RequireAuth: true, InsecureAuth: c.insecureAuth}
	}
	imapd := func(implicit bool) *imapserver.Server {
		return &imapserver.Server{Store: read, Auth: auth, TLS: tlsConfig, ImplicitTLS: implicit, InsecureAuth: c.insecureAuth}
	}
	pop3d := func(implicit bool) *pop3server.Server {
		return &pop3server.Server{Store: mail, Auth: auth, TLS: tlsConfig, ImplicitTLS: implicit, InsecureAuth: c.insecureAuth}
	}
	for _, l := range []*listener{
		{name: "smtp", note: "mail from the world", server: &smtpserver.Server{Backend: inbound, Hostname: host, TLS: tlsConfig}},
		{name: "submission", note: "mail from users, STARTTLS", server: smtpd(false)},
		{name: "submissions", note: "mail from users, TLS", server: smtpd(true)},
		{name: "lmtp", note: "mail from a server in front", server: &smtpserver.Server{Backend: trusted, Hostname: host, LMTP: true}},
		{name: "imap", note: "STARTTLS", server: imapd(false)},
		{name: "imaps", note: "TLS", server: imapd(true)},
		{name: "pop3", note: "STLS", server: pop3d(false)},
		{name: "pop3s", note: "TLS", server: pop3d(true)},
	} {
		if l.addr = *c.listen[l.name]; l.addr != "" {
			s.listeners = append(s.listeners, l)
		}
	}
	return s, nil
}

// Deliver is the queue's Transport: mail for our domains goes to our own LMTP
// server, the rest to its MX. The recipients of one call share a domain.
func (s *server) Deliver(ctx context.Context, env *smtp.Envelope, body queue.Body) []smtp.Result {
	if !slices.Contains(s.users.domains, env.To[0].Domain) {
		return s.world.Deliver(ctx, env, body)
	}
	d := smtpclient.Dialer{DialContext: func(context.Context, string, string) (net.Conn, error) {
		client, srv := net.Pipe()
		s.wg.Go(func() { s.local.ServeConn(srv) })
		return client, nil
	}}
	return d.Send(ctx, smtpclient.Target{Addr: "lmtp.local:24", LMTP: true}, env, body)
}

// Group tells the queue which domains share hosts.
func (s *server) Group(ctx context.Context, domain string) (string, error) {
	if slices.Contains(s.users.domains, domain) {
		return "local", nil
	}
	return s.world.Group(ctx, domain)
}

// start listens everywhere, then serves. The channel gets what fails later.
func (s *server) start() (<-chan error, error) {
	for _, l := range s.listeners {
		var err error
		if l.l, err = net.Listen("tcp", l.addr); err != nil {
			return nil, fmt.Errorf("-%s: %w", l.name, err)
		}
		l.addr = l.l.Addr().String()
	}
	if s.data != "" {
		var err error
		if s.control, err = control.Serve(s.data, s.queue); err != nil {
			return nil, err
		}
	}
	failed := make(chan error, len(s.listeners)+1)
	for _, l := range s.listeners {
		s.wg.Go(func() { failed <- fmt.Errorf("%s: %w", l.name, l.server.Serve(l.l)) })
	}
	s.wg.Go(func() {
		if err := s.queue.Run(context.Background()); err != nil {
			failed <- fmt.Errorf("queue: %w", err)
		}
	})
	return failed, nil
}

// shutdown drains until ctx is done: first what brings mail in, then the
// queue. What is left then is cut.
func (s *server) shutdown(ctx context.Context) {
	var wg sync.WaitGroup
	for _, l := range s.listeners {
		wg.Go(func() {
			if err := l.server.Shutdown(ctx); err != nil {
				slog.Warn("sessions are cut", "listener", l.name, "reason", err)
			}
		})
	}
	wg.Wait()
	// What was accepted a moment ago gets its first try.
	for ctx.Err() == nil && slices.ContainsFunc(s.left(), func(e *queue.Entry) bool { return e.Attempt == 0 && !e.Due.After(time.Now()) }) {
		time.Sleep(10 * time.Millisecond)
	}
	if err := s.queue.Shutdown(ctx); err != nil {
		slog.Warn("deliveries are cut", "reason", err)
	}
	s.close()
}

// close cuts what is left and returns when all of it has ended.
func (s *server) close() {
	for _, l := range s.listeners {
		if l.l != nil {
			l.l.Close()
		}
		l.server.Close()
	}
	s.local.Close()
	s.queue.Close()
	if s.control != nil {
		s.control.Close()
	}
	s.wg.Wait()
	s.closeData()
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

// left is what the queue holds.
func (s *server) left() []*queue.Entry {
	var entries []*queue.Entry
	for e, err := range s.held.List(context.Background(), queue.Filter{}) {
		if err != nil {
			slog.Error("listing the queue", "err", err)
			break
		}
		entries = append(entries, e)
	}
	return entries
}

// report names what dies with this process.
func (s *server) report(w io.Writer) {
	if s.data != "" {
		return // what is queued is there the next time
	}
	for _, e := range s.left() {
		for _, to := range e.Envelope.To {
			fmt.Fprintf(w, "lost with this process, not delivered: message %s from %s to %s, tried %d times\n",
				e.Message.ID, e.Envelope.From.Path(), to.Path(), e.Attempt)
		}
	}
}

// describe prints what listens where, and what to try.
func (s *server) describe(w io.Writer) {
	addr, port := map[string]string{}, map[string]string{}
	for _, l := range s.listeners {
		fmt.Fprintf(w, "%-12s %-22s %s\n", l.name, l.addr, l.note)
		_, port[l.name], _ = net.SplitHostPort(l.addr)
		addr[l.name] = l.addr
	}
	if s.data == "" {
		fmt.Fprintln(w, "mail is kept in memory: it is gone when this program ends")
	} else {
		fmt.Fprintf(w, "the queue and the mailboxes are in %s\n", s.data)
		fmt.Fprintf(w, "look at the queue: go run ./examples/queuectl -data %s\n", s.data)
	}
	for _, spec := range s.users.made {
		name, password, _ := strings.Cut(spec, ":")
		fmt.Fprintf(w, "user %s has the password %s\n", name, password)
	}
	if s.dir == "" || len(s.users.made) == 0 || addr["submission"] == "" || addr["imaps"] == "" {
		return
	}
	user, password, _ := strings.Cut(s.users.made[0], ":")
	cert, rc := filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "mbsyncrc")
	err := os.WriteFile(rc, fmt.Appendf(nil, "IMAPAccount a\nHost localhost\nPort %s\nUser %s\nPass %s\nSSLType IMAPS\nCertificateFile %s\n\n"+
		"IMAPStore far\nAccount a\n\nMaildirStore near\nInbox %s/mail\n\nChannel c\nFar :far:\nNear :near:\nSync All\nSyncState *\n",
		port["imaps"], user, password, cert, s.dir), 0o600)
	if err != nil {
		slog.Warn("no commands to try", "reason", err)
		return
	}
	fmt.Fprintf(w, "try:\n  swaks --server %s -tls -a PLAIN -au %s -ap %s --from %[2]s --to %[2]s\n", addr["submission"], user, password)
	fmt.Fprintf(w, "  curl --cacert %s -u %s:%s 'imaps://localhost:%s/INBOX;MAILINDEX=1'\n", cert, user, password, port["imaps"])
	fmt.Fprintf(w, "  mbsync -c %s c && ls %s/mail/*\n", rc, s.dir)
}

// signer makes submission's Sign out of selector:keyfile.
func signer(spec string) (func(context.Context, smtp.Address) (submission.Signer, error), error) {
	selector, file, ok := strings.Cut(spec, ":")
	if !ok {
		return nil, errors.New("-dkim: want selector:keyfile")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("-dkim: %w", err)
	}
	key, err := dkim.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("-dkim %s: %w", file, err)
	}
	return func(_ context.Context, from smtp.Address) (submission.Signer, error) {
		return dkim.NewSigner(dkim.SignOptions{Domain: from.Domain, Selector: selector, Key: key})
	}, nil
}

// loadTLS reads the certificate, or makes one that is good for trying things
// out and puts it where programs can be told to trust it.
func (s *server) loadTLS(c *config) (*tls.Config, error) {
	if c.cert != "" {
		cert, err := tls.LoadX509KeyPair(c.cert, c.key)
		return &tls.Config{Certificates: []tls.Certificate{cert}}, err
	}
	cert, _, err := smtptest.Certificate(append([]string{"localhost", "127.0.0.1", "::1"}, s.users.domains...)...)
	if err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "mailserver-*"); err != nil {
		return nil, err
	}
	block := &pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}
	return &tls.Config{Certificates: []tls.Certificate{cert}}, os.WriteFile(filepath.Join(s.dir, "cert.pem"), pem.EncodeToMemory(block), 0o644)
}
