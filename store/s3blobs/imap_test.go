package s3blobs_test

import (
	"bytes"
	"context"
	"net"
	"testing"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/imap/imapclient"
	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/internal/objects"
	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
)

// FETCH BODY[]<n.100> of a large message reads a block of it, and what needs
// no body reads nothing.
func TestPartialFetch(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	var c counter
	b, _ := bucket(t, &c)
	s := openStore(t, pool, pgstore.Options{Schema: pgtest.Schema(t, pool), Blobs: b})
	acc := account(t, s, "ann")
	body := append([]byte("Subject: large\r\n\r\n"), bytes.Repeat([]byte("0123456789abcde\r\n"), 20<<20/16)...)
	if _, err := acc.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(body)}}, store.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	hash, err := login.Hash("secret")
	if err != nil {
		t.Fatal(err)
	}
	srv := &imapserver.Server{Store: s, InsecureAuth: true, Auth: &login.Passwords{Lookup: func(context.Context, string) (login.Record, error) {
		return login.Record{Hash: hash}, nil
	}}}
	near, far := net.Pipe()
	served := make(chan error)
	go func() { served <- srv.ServeConn(far) }()
	defer func() { near.Close(); <-served }()
	client, err := (&imapclient.Dialer{Security: imapclient.Plain}).Client(ctx, near, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Login(ctx, "ann", "secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Select(ctx, "INBOX"); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		what     string
		o        imap.FetchOptions
		want     []byte
		requests int
	}{
		{"FLAGS RFC822.SIZE", imap.FetchOptions{Flags: true, Size: true}, nil, 0},
		{"BODY[]<0.100>", imap.FetchOptions{Sections: []imap.Section{{Partial: &imap.Partial{Count: 100}}}}, body[:100], 1},
		{"BODY[]<10000000.100>", imap.FetchOptions{Sections: []imap.Section{{Partial: &imap.Partial{Offset: 10_000_000, Count: 100}}}}, body[10_000_000:10_000_100], 1},
	} {
		var got []byte
		requests, octets := c.gets()
		for m, err := range client.Fetch(ctx, imap.Seqs(imap.NumSetOf(1)), x.o) {
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range m.Sections {
				got = append(got, s.Data...)
			}
		}
		if !bytes.Equal(got, x.want) {
			t.Errorf("%s: %q", x.what, got)
		}
		requests2, octets2 := c.gets()
		if n := requests2 - requests; n != x.requests || octets2-octets > 2*objects.Block {
			t.Errorf("%s: %d GETs, %d octets", x.what, n, octets2-octets)
		}
	}
}
