package imapserver_test

import (
	"bufio"
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth/login"
)

// tokenAuth is testAuth with logins that end after an hour, as those by an
// OAuth token do.
type tokenAuth struct{ testAuth }

func (a tokenAuth) Start(ctx context.Context, mech string, c *login.Conn) (login.Exchange, error) {
	x, err := a.testAuth.Start(ctx, mech, c)
	return tokenExchange{x}, err
}

type tokenExchange struct{ login.Exchange }

func (x tokenExchange) Identity() login.Identity {
	id := x.Exchange.Identity()
	id.Expires = time.Now().Add(time.Hour)
	return id
}

// TestLoginExpires ends a session with its login, however busy it is.
func TestLoginExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, _ := newServer(t)
		srv.Auth = tokenAuth{}
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() { srv.ServeConn(far); close(done) }()
		c := &client{t: t, conn: near, r: bufio.NewReader(near)}
		c.line()
		c.ok("LOGIN alice secret")
		c.ok("SELECT INBOX")
		begin := time.Now()
		for range 3 {
			<-time.After(19 * time.Minute) // by the bubble's clock
			c.ok("NOOP")
		}
		c.write("i IDLE\r\n")
		c.want(c.line(), "+ idling")
		c.want(c.line(), "* BYE **")
		if took := time.Since(begin); took != time.Hour {
			t.Errorf("ended after %v", took)
		}
		<-done
	})
}
