package pop3server_test

import (
	"context"
	"errors"
	"log"
	"net"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/pop3"
	"github.com/postrider/postrider/pop3/pop3server"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

func lookup(context.Context, string) (login.Record, error) { return login.Record{}, login.ErrNoUser }

// A server over a store. With a TLS configuration clients can log in.
func ExampleServer() {
	srv := &pop3server.Server{
		Store: memstore.New(),
		Auth:  &login.Passwords{Lookup: lookup},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		// … and on SIGTERM:
		srv.Shutdown(context.Background())
	}()
	if err := srv.Serve(l); !errors.Is(err, pop3server.ErrServerClosed) {
		log.Fatal(err)
	}
	// Output:
}

// One session at a time, as RFC 1939 has it: Maildrop refuses the second.
func ExampleServer_maildrop() {
	var st store.Store = memstore.New()
	lock := func(string) (unlock func(), ok bool) { return func() {}, true }
	srv := &pop3server.Server{
		Auth: &login.Passwords{Lookup: lookup},
		Maildrop: func(ctx context.Context, id login.Identity) (pop3server.Maildrop, error) {
			unlock, ok := lock(id.User)
			if !ok {
				return nil, &pop3.Error{Code: pop3.InUse, Text: "another session is open"}
			}
			acc, err := st.Account(ctx, id.User)
			if err != nil {
				unlock()
				return nil, err
			}
			return locked{acc, unlock}, nil
		},
	}
	srv.Close()
	// Output:
}

// locked is an account that unlocks when its session ends.
type locked struct {
	store.Account
	unlock func()
}

func (l locked) Close() error { l.unlock(); return nil }
