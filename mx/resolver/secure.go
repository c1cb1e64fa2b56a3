package resolver

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/miekg/dns"
)

const (
	maxIdle  = 4 // connections kept to one server, for DNS over TLS
	idleTime = 10 * time.Second
)

// overTLS asks over DNS over TLS (RFC 7858), on a connection kept from before
// if there is one.
func (r *Resolver) overTLS(ctx context.Context, s *server, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	for {
		nc := s.take()
		if nc == nil {
			break
		}
		if m, err := r.overTLSConn(ctx, s, nc, q, wire); err == nil || ctx.Err() != nil {
			return m, err
		}
		// The server may have closed it long ago.
	}
	cfg := &tls.Config{}
	if r.TLS != nil {
		cfg = r.TLS.Clone()
	}
	cfg.ServerName = s.name
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	raw, err := r.dial(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	nc := tls.Client(raw, cfg)
	if err := nc.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return r.overTLSConn(ctx, s, nc, q, wire)
}

func (r *Resolver) overTLSConn(ctx context.Context, s *server, nc net.Conn, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	m, err := overTCP(nc, q, wire)
	if !stop() || err != nil {
		nc.Close()
		return m, err
	}
	s.keep(nc)
	return m, nil
}

func (s *server) take() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.idle); n > 0 {
		nc := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return nc
	}
	return nil
}

// keep keeps a connection for a while.
func (s *server) keep(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) >= maxIdle {
		nc.Close()
		return
	}
	s.idle = append(s.idle, nc)
	time.AfterFunc(idleTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, c := range s.idle {
			if c == nc {
				s.idle = append(s.idle[:i], s.idle[i+1:]...)
				nc.Close()
				return
			}
		}
	})
}

// overHTTPS asks over DNS over HTTPS (RFC 8484). The ID is 0 there, so that
// answers may be cached on their way (§4.1).
func (r *Resolver) overHTTPS(ctx context.Context, s *server, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	wire = bytes.Clone(wire)
	wire[0], wire[1] = 0, 0
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(wire))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/dns-message")
	req.Header.Set("Accept", "application/dns-message")
	client := r.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, dns.MaxMsgSize+1))
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%w: HTTP %s", ErrServer, res.Status)
	case len(b) > dns.MaxMsgSize:
		return nil, fmt.Errorf("%w: too large", ErrMalformed)
	}
	zero := *q
	zero.Id = 0
	m, err := unpack(b, &zero, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return m, nil
}
