package imapclient_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/imap/imapclient"
	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/store/memstore"
)

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// The client against imapserver over memstore, over real sockets.
func TestAgainstServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st := memstore.New()
	if err := st.CreateAccount(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	hash, err := login.Hash("secret")
	if err != nil {
		t.Fatal(err)
	}
	users := &login.Passwords{Lookup: func(_ context.Context, user string) (login.Record, error) {
		if user != "alice" {
			return login.Record{}, login.ErrNoUser
		}
		return login.Record{Hash: hash}, nil
	}}
	cert, pool := certificate(t)
	srv := &imapserver.Server{Store: st, Auth: users, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Log: slog.New(slog.DiscardHandler)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() { srv.Close(); <-served }()

	var exists uint32
	d := &imapclient.Dialer{TLS: &tls.Config{RootCAs: pool}, Handler: imapclient.Handler{Exists: func(n uint32) { exists = n }}}
	c, err := d.Dial(ctx, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.TLS() == nil {
		t.Fatal("no TLS")
	}
	var e *imap.Error
	if err := c.Login(ctx, "alice", "wrong"); !errors.As(err, &e) || e.Code != imap.CodeAuthenticationFailed {
		t.Fatal(err)
	}
	if err := c.Authenticate(ctx, sasl.NewPlainClient("", "alice", "secret")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Entwürfe", "Archive/2024"} {
		if err := c.Create(ctx, name); err != nil {
			t.Fatal(name, err)
		}
	}
	boxes, err := c.List(ctx, "", "*", imap.ListOptions{ReturnStatus: []imap.StatusItem{imap.StatusMessages}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range boxes {
		names = append(names, b.Mailbox)
	}
	if s := strings.Join(names, " "); !strings.Contains(s, "Entwürfe") || !strings.Contains(s, "Archive/2024") || !strings.Contains(s, "INBOX") {
		t.Error(s)
	}

	big := "From: a@example.test\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 50_000)
	for i, m := range []string{"Subject: one\r\n\r\n1\r\n", big} {
		a, err := c.Append(ctx, "INBOX", strings.NewReader(m), int64(len(m)), imapclient.AppendOptions{Flags: []imap.Flag{imap.FlagFlagged}})
		if err != nil || a.UIDs.String() == "" {
			t.Fatal(i, a, err)
		}
	}
	box, err := c.Select(ctx, "INBOX")
	if err != nil || box.Messages != 2 || box.UIDNext != 3 {
		t.Fatal(box, err)
	}
	found, err := c.Search(ctx, true, &imap.SearchCriteria{Header: []imap.SearchHeader{{Name: "Subject", Value: "grüße"}}}, imap.SearchOptions{})
	if err != nil || found.All.String() != "2" {
		t.Fatal(found, err)
	}
	n := 0
	for m, err := range c.Fetch(ctx, imap.UIDs(imap.NumSet{{First: 1, Last: imap.Star}}), imap.FetchOptions{Flags: true, Size: true, InternalDate: true, Envelope: true, BodyStructure: true, Sections: []imap.Section{{Peek: true}}}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if want := []string{"Subject: one\r\n\r\n1\r\n", big}[m.UID-1]; string(m.Sections[0].Data) != want || m.Size != int64(len(want)) || m.Envelope == nil || m.BodyStructure.Type != "text" {
			t.Errorf("message %d differs", m.UID)
		}
	}
	if n != 2 {
		t.Errorf("%d messages", n)
	}
	var streamed strings.Builder
	err = c.FetchBodies(ctx, imap.UIDs(imap.NumSetOf(2)), imap.FetchOptions{Sections: []imap.Section{{}}}, func(_ *imap.FetchData, _ *imap.Section, r io.Reader) error {
		_, err := io.Copy(&streamed, r)
		return err
	})
	if err != nil || streamed.String() != big {
		t.Error(streamed.Len(), err)
	}
	if told, err := c.Store(ctx, imap.UIDs(imap.NumSetOf(1)), imap.StoreAdd, false, imap.FlagDeleted); err != nil || len(told) != 1 {
		t.Error(told, err)
	}
	if cp, err := c.Copy(ctx, imap.UIDs(imap.NumSetOf(1)), "Entwürfe"); err != nil || cp.Dest.String() != "1" {
		t.Error(cp, err)
	}
	if mv, err := c.Move(ctx, imap.UIDs(imap.NumSetOf(2)), "Archive/2024"); err != nil || mv.Dest.String() != "1" {
		t.Error(mv, err)
	}
	if seqs, err := c.Expunge(ctx, nil); err != nil || len(seqs) != 1 || c.Mailbox().Messages != 0 {
		t.Error(seqs, err)
	}

	// Another connection appends; IDLE tells.
	other, err := (&imapclient.Dialer{TLS: d.TLS}).Dial(ctx, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Login(ctx, "alice", "secret"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		m := "Subject: new\r\n\r\n"
		if _, err := other.Append(ctx, "INBOX", strings.NewReader(m), int64(len(m)), imapclient.AppendOptions{}); err != nil {
			t.Error(err)
		}
	})
	for exists == 0 {
		if err := c.Idle(ctx); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	if err := c.Idle(short); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if s, err := c.Status(ctx, "INBOX", imap.StatusMessages, imap.StatusUIDNext); err != nil || s.Items[imap.StatusMessages] != 1 {
		t.Error(s, err)
	}
	for _, cl := range []*imapclient.Client{c, other} {
		if err := cl.Logout(ctx); err != nil {
			t.Error(err)
		}
	}
}
