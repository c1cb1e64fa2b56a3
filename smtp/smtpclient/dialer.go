package smtpclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"

	"github.com/postrider/postrider/internal/netserve"
	"github.com/postrider/postrider/smtp"
)

// Dialer opens connections. The zero Dialer is ready. Its fields are
// read-only once it is in use, and it may be used from many goroutines.
type Dialer struct {
	// DialContext opens the transport, as net.Dialer's does; nil = a
	// net.Dialer. A proxy, a source address pool or net.Pipe come in here.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Hello is the name given in EHLO and LHLO; "" = the system's host name
	// when it has a dot, else the local address as a literal (RFC 5321
	// §4.1.4).
	Hello string
	// TLS is the configuration to clone for each connection; nil = the
	// zero tls.Config. ServerName is set to the Target's Name, and versions
	// before TLS 1.2 are not offered. It decides what Verified means.
	TLS *tls.Config
	// Timeouts bound each wait.
	Timeouts Timeouts
	// Trace has hooks; nil = none.
	Trace *Trace
}

// Dial connects, greets, and secures and authenticates the connection as t
// says. Its error is an *smtp.Error; with ScopeHost, another host of the same
// destination may do better.
//
// When t.Need is Opportunistic and the TLS handshake fails, Dial connects once
// more and goes on in plain text; Conn.TLSError then tells why. A refused
// login is a temporary error, 454, that wraps ErrAuth and the peer's reply:
// the fault lies in the configuration, not in the message.
func (d *Dialer) Dial(ctx context.Context, t Target) (*Conn, error) {
	c, _, err := d.dial(ctx, t)
	return c, err
}

// Send opens a connection for one message, transfers it and closes the
// connection. It returns a result for each recipient of env, in order; see
// [Conn.Send].
func (d *Dialer) Send(ctx context.Context, t Target, env *smtp.Envelope, body Body) []smtp.Result {
	if len(env.To) == 0 {
		return nil
	}
	c, hop, err := d.dial(ctx, t)
	if err != nil {
		return unsent(len(env.To), hop, err)
	}
	defer c.Close()
	return c.Send(ctx, env, body)
}

// dial is Dial; when it fails it still tells which host was reached.
func (d *Dialer) dial(ctx context.Context, t Target) (*Conn, *smtp.Hop, error) {
	c, hop, err := d.dialOnce(ctx, t)
	var te *TLSError
	if err != nil && t.need() == Opportunistic && !t.ImplicitTLS && errors.As(err, &te) && ctx.Err() == nil {
		t.Need = Plain
		if c, _, perr := d.dialOnce(ctx, t); perr == nil {
			c.target.Need = Opportunistic
			c.tlsErr, c.hop.TLSErr = te, te
			return c, c.hop, nil
		}
		// The first failure is the one to look into.
	}
	return c, hop, err
}

func (d *Dialer) dialOnce(ctx context.Context, t Target) (*Conn, *smtp.Hop, error) {
	tmo := d.Timeouts.withDefaults()
	dial := d.DialContext
	if dial == nil {
		nd := &net.Dialer{}
		if t.Source.IsValid() {
			nd.LocalAddr = &net.TCPAddr{IP: t.Source.AsSlice(), Zone: t.Source.Zone()}
		}
		dial = nd.DialContext
	} else if t.Source.IsValid() {
		return nil, nil, &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 3, 5}, Text: "Local configuration error", Scope: smtp.ScopeRoute,
			Err: errors.New("smtpclient: Target.Source cannot be used with Dialer.DialContext")}
	}
	dctx := ctx
	if tmo.Connect > 0 {
		var cancel context.CancelFunc
		dctx, cancel = context.WithTimeout(ctx, tmo.Connect)
		defer cancel()
	}
	nc, err := dial(dctx, t.network(), t.Addr)
	if err != nil {
		e := lost(ctx, err)
		e.Enhanced = smtp.EnhancedCode{4, 4, 1} // no answer from host
		if ctx.Err() == nil {
			e.Text = "Cannot connect to host"
		}
		return nil, nil, e
	}
	return d.client(ctx, nc, t)
}

// Client is Dial on a connection that is open already. It closes nc when it
// fails. There is no falling back to plain text.
func (d *Dialer) Client(ctx context.Context, nc net.Conn, t Target) (*Conn, error) {
	c, _, err := d.client(ctx, nc, t)
	return c, err
}

func (d *Dialer) client(ctx context.Context, nc net.Conn, t Target) (*Conn, *smtp.Hop, error) {
	c := &Conn{
		nc:     nc,
		br:     bufio.NewReaderSize(nc, readBuffer),
		dialer: d,
		target: t,
		tmo:    d.Timeouts.withDefaults(),
		trace:  d.Trace,
		proven: Plain,
		turn:   make(chan struct{}, 1),
		tail:   make(chan struct{}),
		hop:    &smtp.Hop{Name: t.name(), Addr: netserve.AddrPort(nc.RemoteAddr())},
	}
	close(c.tail)
	c.w = c.watch(ctx)
	err := c.open(ctx)
	if !c.w.stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		var e *smtp.Error
		if !errors.As(err, &e) {
			e = lost(ctx, err)
		}
		return nil, c.hop, e
	}
	return c, c.hop, nil
}

// open brings a new connection to the point where MAIL may be sent.
func (c *Conn) open(ctx context.Context) error {
	need := c.target.need()
	if c.target.ImplicitTLS {
		if err := c.startTLS(ctx); err != nil {
			return err
		}
	}
	r, err := c.reply(c.w, c.tmo.Greeting)
	if err != nil {
		return err
	}
	if r.Code != 220 {
		return hostRefusal(r)
	}
	if err := c.hello(); err != nil {
		return err
	}
	if c.tls == nil && need != Plain {
		if _, ok := c.ext[smtp.ExtSTARTTLS]; ok {
			if err := c.upgrade(ctx, need); err != nil {
				return err
			}
		}
	}
	if !c.proven.enough(need) {
		return &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 4}, Text: "Host does not offer TLS", Scope: smtp.ScopeHost, Err: ErrTLSRequired}
	}
	if c.target.Auth != nil {
		if err := c.login(ctx, c.target.Auth); err != nil {
			return err
		}
	}
	c.learn()
	return nil
}

func (c *Conn) upgrade(ctx context.Context, need Security) error {
	r, err := c.command(c.tmo.Command, "STARTTLS")
	if err != nil {
		return err
	}
	if r.Code != 220 {
		if need == Opportunistic && r.Code != 421 {
			return nil // RFC 3207 §4: the client decides whether to go on
		}
		e := hostRefusal(r)
		if !e.Temporary() {
			// The peer announced what it now refuses: that may pass.
			e = &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 4}, Text: "Host refuses TLS: " + r.String(), Scope: smtp.ScopeHost, Err: ErrTLSRequired}
		}
		return e
	}
	// What came behind the reply came in plain text, from whoever: a peer
	// does not speak before the handshake (CVE-2011-0411).
	if c.br.Buffered() > 0 {
		return violation("data between STARTTLS and the handshake")
	}
	if err := c.startTLS(ctx); err != nil {
		return err
	}
	return c.hello() // RFC 3207 §4.2: forget what was announced before
}

// startTLS does the handshake. Only Verified lets a bad certificate end it;
// else verification is tried all the same, for what it proves.
func (c *Conn) startTLS(ctx context.Context) error {
	cfg := &tls.Config{}
	if c.dialer.TLS != nil {
		cfg = c.dialer.TLS.Clone()
	}
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	cfg.ServerName = c.target.name()
	need := c.target.need()
	pkix, met := false, false
	var unproven error
	if v := c.target.Verifier; v != nil {
		cfg.InsecureSkipVerify = true
		cfg.VerifyPeerCertificate = nil
		cfg.VerifyConnection = func(s tls.ConnectionState) error {
			err := v.Verify(s)
			met, unproven = err == nil, err
			if need != Verified {
				return nil
			}
			return err
		}
	} else if need != Verified {
		skip, own := cfg.InsecureSkipVerify, cfg.VerifyConnection
		cfg.InsecureSkipVerify = true
		cfg.VerifyPeerCertificate = nil
		cfg.VerifyConnection = func(s tls.ConnectionState) error {
			if skip {
				return nil
			}
			if unproven = verify(cfg, s); unproven == nil && own != nil {
				unproven = own(s)
			}
			pkix = unproven == nil
			return nil
		}
	}
	tc := tls.Client(c.nc, cfg)
	c.w.reads(c.tmo.TLS)
	c.w.writes(c.tmo.TLS)
	// No HandshakeContext: the watcher ends the handshake by the deadline.
	err := tc.Handshake()
	if err != nil && ctx.Err() != nil {
		return err
	}
	state := tc.ConnectionState()
	c.trace.tls(state, err)
	if err != nil {
		return &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 5}, Text: "TLS handshake failed", Scope: smtp.ScopeHost, Err: &TLSError{err}}
	}
	c.mu.Lock()
	c.nc = tc
	c.mu.Unlock()
	c.br.Reset(tc)
	c.tls = &state
	c.proven = Encrypted
	c.hop.TLS, c.hop.AuthErr = state.Version, unproven
	switch {
	case met:
		c.proven, c.provenFor = Verified, c.target.Verifier.Key
		c.hop.Auth = c.target.Verifier.Auth
	case need == Verified:
		c.proven = Verified
		pkix = len(state.VerifiedChains) > 0
	}
	if pkix {
		c.proven = Verified
		c.hop.Auth = "pkix"
	}
	return nil
}

func verify(cfg *tls.Config, s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	opts := x509.VerifyOptions{Roots: cfg.RootCAs, DNSName: cfg.ServerName, Intermediates: x509.NewCertPool()}
	if cfg.Time != nil {
		opts.CurrentTime = cfg.Time()
	}
	for _, cert := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	_, err := s.PeerCertificates[0].Verify(opts)
	return err
}

// hello sends EHLO, or HELO to a host that does not know it (RFC 5321 §3.2).
func (c *Conn) hello() error {
	name := c.dialer.Hello
	if name == "" {
		name = defaultHello(c.nc)
	}
	if !validHello(name) {
		return &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 3, 5}, Text: "Local configuration error", Scope: smtp.ScopeRoute,
			Err: errors.New("smtpclient: invalid Dialer.Hello")}
	}
	verb := "EHLO "
	if c.target.LMTP {
		verb = "LHLO "
	}
	r, err := c.command(c.tmo.Command, verb+name)
	if err != nil {
		return err
	}
	c.ext = nil
	switch {
	case r.Code == 250:
		c.ext = parseExtensions(r.Text)
		return nil
	case r.Code >= 500 && !c.target.LMTP:
		r, err = c.command(c.tmo.Command, "HELO "+name)
		if err != nil {
			return err
		}
		if r.Code == 250 {
			return nil
		}
	}
	return hostRefusal(r)
}

// parseExtensions reads the lines after the first of EHLO's reply: keyword to
// parameters, keywords in upper case. The first of two equal ones counts, but
// AUTH= (of old servers) does not hide AUTH.
func parseExtensions(text string) map[string]string {
	ext := map[string]string{}
	_, text, _ = strings.Cut(text, "\n")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, params, _ := strings.Cut(line, " ")
		if k, p, ok := strings.Cut(key, "="); ok && strings.EqualFold(k, "AUTH") {
			key, params = k, strings.TrimSpace(p+" "+params)
		}
		key = strings.ToUpper(key)
		if _, dup := ext[key]; key != "" && !dup {
			ext[key] = params
		}
	}
	return ext
}

func defaultHello(nc net.Conn) string {
	if h, err := os.Hostname(); err == nil && strings.Contains(h, ".") && validHello(h) {
		return h
	}
	ip := netserve.AddrPort(nc.LocalAddr()).Addr().WithZone("")
	switch {
	case ip.Is4():
		return "[" + ip.String() + "]"
	case ip.Is6():
		return "[IPv6:" + ip.String() + "]"
	}
	return "localhost"
}

func validHello(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
