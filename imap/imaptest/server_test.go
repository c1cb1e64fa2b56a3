package imaptest_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/imap/imaptest"
	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/store/memstore"
)

// anyone lets everybody in under the name given.
type anyone struct{}

func (anyone) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }
func (anyone) Start(context.Context, string, *login.Conn) (login.Exchange, error) {
	return &anyoneExchange{}, nil
}

type anyoneExchange struct{ id login.Identity }

func (x *anyoneExchange) Next(resp []byte) ([]byte, bool, error) {
	if resp == nil {
		return []byte{}, false, nil
	}
	f := strings.Split(string(resp), "\x00")
	x.id = login.Identity{User: f[1], Login: f[1], Mechanism: "PLAIN"}
	return nil, true, nil
}

func (x *anyoneExchange) Identity() login.Identity { return x.id }

// good are the groups that must not be skipped: their capabilities are there.
var good = map[string]bool{
	"append-binary": true, "atoms": true, "copy": true, "esearch": true, "expunge": true, "expunge2": true,
	"fetch": true, "fetch-binary-mime": true, "fetch-binary-mime-qp": true, "fetch-body-message-rfc822": true,
	"fetch-body-message-rfc822-mime": true, "fetch-body-message-rfc822-x2": true, "fetch-body-mime": true,
	"fetch-bodystructure": true, "fetch-envelope": true, "id": true, "list": true, "logout": true, "move": true,
	"multiappend": true, "mutf7": true, "nil": true, "pipeline": true, "search-sets": true, "search-size": true,
	"select": true, "store": true, "uidplus": true, "uidvalidity-rename": true,
}

// known are the groups that fail, with the reason.
var known = map[string]string{}

// TestServer plays the suite against imapserver over memstore.
func TestServer(t *testing.T) {
	groups, err := imaptest.Load(os.DirFS(conformance.Path(t, "imap", "imaptest")))
	if err != nil {
		t.Fatal(err)
	}
	st := memstore.New()
	srv := &imapserver.Server{Store: st, Auth: anyone{}, InsecureAuth: true, Log: slog.New(slog.DiscardHandler)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() { srv.Close(); <-served }()

	count := map[imaptest.Outcome]int{}
	reasons := map[string]int{}
	for _, g := range groups {
		user := g.Name + "@example.test"
		if err := st.CreateAccount(t.Context(), user); err != nil {
			t.Fatal(err)
		}
		r := &imaptest.Runner{
			Dial: func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
			},
			User: user, Password: "secret",
			Timeout: 5 * time.Second,
		}
		res := r.Run(t.Context(), g)
		count[res.Outcome]++
		switch res.Outcome {
		case imaptest.Pass:
			if why, ok := known[g.Name]; ok {
				t.Logf("%s passes now, and can leave the list of those that fail: %s", g.Name, why)
			}
		case imaptest.Skip:
			reasons[res.Reason]++
			if good[g.Name] {
				t.Errorf("%s is skipped: %s", g.Name, res.Reason)
			}
		case imaptest.Fail:
			if why, ok := known[g.Name]; ok {
				t.Logf("%s fails, as is known: %s", g.Name, why)
			} else {
				t.Errorf("%s: %s", g.Name, res.Reason)
			}
		}
	}
	for r, n := range reasons {
		t.Logf("%d skipped: %s", n, r)
	}
	t.Logf("%d groups: %d pass, %d fail, %d skipped", len(groups), count[imaptest.Pass], count[imaptest.Fail], count[imaptest.Skip])
}
