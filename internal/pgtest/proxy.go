package pgtest

import (
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Proxy is a network between a node and Shared, which can be cut.
type Proxy struct {
	l      net.Listener
	socket string

	mu    sync.Mutex
	moved sync.Cond // when state changes
	state fate
	conns map[net.Conn]bool
	ended sync.WaitGroup
}

type fate uint8

const (
	whole   fate = iota
	stalled      // what is sent goes nowhere, and nothing says so
	dropped      // connections end, and new ones too
)

// NewProxy makes a network that ends with the test.
func NewProxy(tb testing.TB) *Proxy {
	tb.Helper()
	s, err := Shared()
	if err != nil {
		tb.Fatal(err)
	}
	if !s.Own() {
		tb.Skip("the server is not this test's to put a proxy before")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{l: l, socket: filepath.Join(s.dir, ".s.PGSQL.5432"), conns: make(map[net.Conn]bool)}
	p.moved.L = &p.mu
	p.ended.Go(p.accept)
	tb.Cleanup(func() {
		l.Close()
		p.Drop()
		p.ended.Wait()
	})
	return p
}

// Pool returns connections through the proxy.
func (p *Proxy) Pool(tb testing.TB) *pgxpool.Pool {
	pool := PoolTo(tb, fmt.Sprintf("host=127.0.0.1 port=%d user=postrider dbname=postgres sslmode=disable", p.l.Addr().(*net.TCPAddr).Port))
	tb.Cleanup(p.Drop) // before the pool waits for its connections
	return pool
}

// Stall makes the network swallow what is sent.
func (p *Proxy) Stall() { p.become(stalled) }

// Drop cuts connections and refuses new ones.
func (p *Proxy) Drop() { p.become(dropped) }

// Heal makes the network work again, for new connections; those that were
// stalled go on.
func (p *Proxy) Heal() { p.become(whole) }

func (p *Proxy) become(f fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = f
	if f == dropped {
		for c := range p.conns {
			c.Close()
		}
	}
	p.moved.Broadcast()
}

func (p *Proxy) accept() {
	for {
		near, err := p.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("unix", p.socket)
		if err != nil {
			near.Close()
			continue
		}
		p.mu.Lock()
		if p.state == dropped {
			near.Close()
			far.Close()
		} else {
			p.conns[near], p.conns[far] = true, true
			p.ended.Go(func() { p.copy(far, near) })
			p.ended.Go(func() { p.copy(near, far) })
		}
		p.mu.Unlock()
	}
}

// copy moves what comes while the network is whole.
func (p *Proxy) copy(to, from net.Conn) {
	defer func() {
		to.Close()
		from.Close()
		p.mu.Lock()
		delete(p.conns, to)
		delete(p.conns, from)
		p.mu.Unlock()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.state == stalled {
			p.moved.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
