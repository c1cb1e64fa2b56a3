package smtptest

import (
	"context"
	"crypto/subtle"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
)

// auth is the Authenticator for one connection to s.
func (s *Server) auth(nc net.Conn) login.Authenticator {
	s.accountOnce.Do(func() { s.accounts = newAccounts(s.Users, s.Mechanisms) })
	return faultyAuth{s.accounts, s, nc}
}

// faultyAuth asks the faults at Auth first.
type faultyAuth struct {
	login.All
	s  *Server
	nc net.Conn
}

func (a faultyAuth) Start(ctx context.Context, mech string, c *login.Conn) (login.Exchange, error) {
	if err := a.s.hit(ctx, Auth, strings.ToUpper(mech), a.nc); err != nil {
		var e *smtp.Error
		if errors.As(err, &e) && !e.Temporary() {
			err = login.ErrCredentials
		}
		return nil, err
	}
	return a.All.Start(ctx, mech, c)
}

// newAccounts knows users by their passwords, which are tokens as well. It has
// no limits: a test's passwords are no secret.
func newAccounts(users map[string]string, mechanisms []string) login.All {
	var mu sync.Mutex
	keys := map[string][]string{} // SCRAM's, made when they are asked for
	var scram []string
	for _, m := range mechanisms {
		if m = strings.ToUpper(m); strings.HasPrefix(m, "SCRAM-") && !strings.HasSuffix(m, "-PLUS") {
			scram = append(scram, m)
		}
	}
	passwords := &login.Passwords{
		Offer: mechanisms,
		Lookup: func(_ context.Context, user string) (login.Record, error) {
			pass, ok := users[user]
			if !ok {
				return login.Record{}, login.ErrNoUser
			}
			mu.Lock()
			defer mu.Unlock()
			if len(keys[user]) < len(scram) {
				for _, m := range scram {
					if k, err := login.SCRAM(m, pass); err == nil {
						keys[user] = append(keys[user], k)
					}
				}
			}
			return login.Record{Password: pass, SCRAM: keys[user]}, nil
		},
		UserFailures: -1, AddrFailures: -1,
	}
	all := login.All{passwords}
	tokens := &login.Tokens{
		Verify: func(_ context.Context, _ *login.Conn, user, token string) (login.Identity, error) {
			if pass, ok := users[user]; !ok || subtle.ConstantTimeCompare([]byte(pass), []byte(token)) != 1 {
				return login.Identity{}, login.ErrCredentials
			}
			return login.Identity{User: user}, nil
		},
		UserFailures: -1, AddrFailures: -1,
	}
	if some := slices.DeleteFunc(tokens.Mechanisms(nil), func(m string) bool {
		return !slices.ContainsFunc(mechanisms, func(o string) bool { return strings.EqualFold(o, m) })
	}); len(some) > 0 {
		all = append(all, only{tokens, some})
	}
	return all
}

// only offers some of an Authenticator's mechanisms.
type only struct {
	login.Authenticator
	mechanisms []string
}

func (o only) Mechanisms(*login.Conn) []string { return o.mechanisms }
