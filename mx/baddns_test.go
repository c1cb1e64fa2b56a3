package mx_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/resolver"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// TestBrokenDNS: whatever the DNS does, the mail waits, the reply says why,
// and it takes its bounded time. Nothing is dialled.
func TestBrokenDNS(t *testing.T) {
	// Each answers every question that comes on nc.
	hang := func(nc net.Conn) { io.Copy(io.Discard, nc) }
	garbage := func(answer string) func(net.Conn) {
		return func(nc net.Conn) {
			buf := make([]byte, 1500)
			for {
				n, err := nc.Read(buf)
				if err != nil {
					return
				}
				text := strings.NewReplacer("ID", string(buf[:2]), "Q", string(buf[12:n])).Replace(answer)
				if _, err := io.WriteString(nc, text); err != nil {
					return
				}
			}
		}
	}
	flood := func(nc net.Conn) {
		go io.Copy(io.Discard, nc)
		for {
			if _, err := nc.Write([]byte("another answer altogether")); err != nil {
				return
			}
		}
	}
	for _, tt := range []struct {
		name  string
		serve func(nc net.Conn) // nil = refuses the connection
		edit  func(*resolver.Resolver)
		took  time.Duration
	}{
		{name: "no server", took: 0},
		{name: "hangs", serve: hang, took: 2 * 3 * time.Second},
		{name: "three that hang", serve: hang, edit: func(r *resolver.Resolver) { r.Servers = []string{"10.0.0.53", "10.0.1.53", "10.0.2.53"} }, took: 2 * 3 * 3 * time.Second},
		{name: "closes", serve: func(nc net.Conn) {}},
		{name: "empty datagrams", serve: garbage("x")},
		{name: "another id", serve: garbage("\x00\x00\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00Q")},
		{name: "a question for an answer", serve: garbage("ID\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00Q")},
		{name: "cut in a record", serve: garbage("ID\x81\x80\x00\x01\x00\x09\x00\x00\x00\x00Q\xc0\x0c\x00\x0f")},
		{name: "truncated for ever", serve: garbage("ID\x83\x80\x00\x01\x00\x00\x00\x00\x00\x00")},
		{name: "a flood", serve: flood},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &resolver.Resolver{Servers: []string{"10.0.0.53"}}
				r.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if tt.serve == nil {
						return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
					}
					ours, theirs := net.Pipe()
					go func() {
						defer theirs.Close()
						tt.serve(theirs)
					}()
					return ours, nil
				}
				if tt.edit != nil {
					tt.edit(r)
				}
				n := &network{}
				s := &mx.Sender{Resolver: r, Dialer: smtpclient.Dialer{DialContext: n.DialContext}}
				start := time.Now()
				check(t, s.Deliver(t.Context(), envelope(t, "c@one.test", "d@one.test"), strings.NewReader(message)), "451 4.4.3 route", "451 4.4.3 route")
				if took := time.Since(start); tt.took > 0 && took != tt.took || took > 20*time.Second {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if got := n.take(); got != "" {
					t.Errorf("dialled %q", got)
				}
				if _, err := s.Group(t.Context(), "one.test"); err == nil {
					t.Error("a site without DNS")
				}
			})
		})
	}
}

// TestDNSMends: what failed is not held against the domain afterwards.
func TestDNSMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mxtest.NewDNS(mxtest.Zone{"one.test": {"SERVFAIL"}})
		r := &resolver.Resolver{Servers: []string{"127.0.0.1:53"}, DialContext: d.DialContext, Attempts: 1}
		if _, err := mx.Lookup(t.Context(), r, "one.test"); err == nil {
			t.Error("no error")
		}
		d.Set("one.test", "MX 10 mx1.test")
		if route, err := mx.Lookup(t.Context(), r, "one.test"); err != nil || len(route.Hosts) != 1 {
			t.Errorf("%+v, %v", route, err)
		}
	})
}
