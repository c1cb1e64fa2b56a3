package smtpclient_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/smtp/smtptest"
)

// Our client and our server, with the extensions that are for a message:
// what was sent arrives, in chunks too.
func TestExtensionsOfOurs(t *testing.T) {
	srv := (&smtptest.Server{Hostname: "mx.test", STARTTLS: true,
		With: []string{"REQUIRETLS", "BINARYMIME", "DELIVERBY 60", "MT-PRIORITY", "RRVS", "NO-SOLICITING"}}).Run(t)
	pool := &smtpclient.Pool{Dialer: smtpclient.Dialer{TLS: srv.ClientTLS()}}
	defer pool.Close()
	piped := &smtpclient.Pool{Dialer: smtpclient.Dialer{TLS: srv.ClientTLS(), DialContext: srv.DialContext}}
	defer piped.Close()
	target := smtpclient.Target{Addr: srv.Addr, Name: "mx.test", Need: smtpclient.Verified}
	random := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(random)
	for _, tt := range []struct {
		name string
		body []byte
		edit func(*smtp.Envelope)
		want func(*smtp.Envelope) bool
	}{
		{"REQUIRETLS", []byte(message), func(e *smtp.Envelope) { e.RequireTLS = true }, func(e *smtp.Envelope) bool { return e.RequireTLS }},
		{"BINARYMIME", random, func(e *smtp.Envelope) { e.Body = smtp.BodyBinary }, func(e *smtp.Envelope) bool { return e.Body == smtp.BodyBinary }},
		{"small BINARYMIME", []byte("a\x00\n.\r\n"), func(e *smtp.Envelope) { e.Body = smtp.BodyBinary }, func(e *smtp.Envelope) bool { return e.Body == smtp.BodyBinary }},
		{"DSN", []byte(message), func(e *smtp.Envelope) { e.EnvelopeID, e.To[0].Notify = "x y", smtp.NotifyNever },
			func(e *smtp.Envelope) bool { return e.EnvelopeID == "x y" && e.To[0].Notify == smtp.NotifyNever }},
		{"DELIVERBY", []byte(message), func(e *smtp.Envelope) { e.DeliverBy, e.ByReturn, e.ByTrace = time.Now().Add(time.Hour), true, true },
			func(e *smtp.Envelope) bool {
				return e.ByReturn && e.ByTrace && time.Until(e.DeliverBy) > 50*time.Minute
			}},
		{"MT-PRIORITY and SOLICIT", []byte(message), func(e *smtp.Envelope) { e.Priority, e.Solicit = -3, "org.example:ADV" },
			func(e *smtp.Envelope) bool { return e.Priority == -3 && e.Solicit == "org.example:ADV" }},
		{"RRVS", []byte(message), func(e *smtp.Envelope) { e.To[0].ValidSince = time.Unix(1e9, 0) },
			func(e *smtp.Envelope) bool { return e.To[0].ValidSince.Equal(time.Unix(1e9, 0)) }},
		{"SMTPUTF8", []byte(message), func(e *smtp.Envelope) { e.To[0].Local = "dörte" }, func(e *smtp.Envelope) bool { return e.UTF8 && e.To[0].Local == "dörte" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := envelope(t, "a@b.test", "c@d.test")
			tt.edit(env)
			for _, p := range []*smtpclient.Pool{pool, piped} { // a pipe has no buffers
				before := len(srv.Messages())
				check(t, p.Send(t.Context(), target, env, bytes.NewReader(tt.body)), "250")
				list := srv.Messages()[before:]
				if len(list) != 1 || !bytes.Equal(list[0].Data, tt.body) || !tt.want(&list[0].Envelope) {
					t.Errorf("%d arrived: %+v", len(list), list)
				}
			}
		})
	}
	if n := srv.Connections(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// TestMailMax: a pool and a server that announces how many messages it takes
// on a connection agree; a client that does not look loses nothing.
func TestMailMax(t *testing.T) {
	for _, announced := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var messages, conns atomic.Int32
			srv := &smtpserver.Server{Hostname: "mx.test", MaxMessages: 3, Log: slog.New(slog.DiscardHandler),
				Backend: smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) {
					conns.Add(1)
					return counted{messages: &messages}, nil
				})}
			if !announced {
				srv.Extensions = []string{smtp.ExtPipelining}
			}
			defer srv.Close()
			pool := &smtpclient.Pool{MaxGroup: 1, Dialer: smtpclient.Dialer{Hello: "me.test", DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go srv.ServeConn(theirs)
				return ours, nil
			}}}
			defer pool.Close()
			for range 10 {
				check(t, pool.Send(t.Context(), smtpclient.Target{Addr: "mx.test:25"}, envelope(t, "a@b.test", "c@d.test"), strings.NewReader(message)), "250")
			}
			if messages.Load() != 10 || conns.Load() != 4 {
				t.Errorf("announced %v: %d messages on %d connections", announced, messages.Load(), conns.Load())
			}
		})
	}
}

type counted struct {
	discard
	messages *atomic.Int32
}

func (c counted) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	c.messages.Add(1)
	return c.discard.Data(ctx, r)
}
