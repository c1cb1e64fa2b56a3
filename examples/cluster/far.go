package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp/smtptest"
)

// farDomain is another's, whose server is behind a door.
const (
	farDomain = "far.example"
	stranger  = "stranger@" + farDomain
	friend    = "friend@" + farDomain
)

// far is the world: DNS, and the mail server of farDomain.
type far struct {
	*door
	server *smtptest.Server
	dns    *mxtest.DNS
	args   []string // for a node that is to find it
}

func newFar() (*far, error) {
	f := &far{server: &smtptest.Server{Hostname: "mx." + farDomain}, dns: mxtest.NewDNS(mxtest.Zone{
		farDomain:         {"MX 10 mx." + farDomain},
		"mx." + farDomain: {"A 127.0.0.1"},
	})}
	dns, err := f.dns.Listen("")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.dns.Close()
		return nil, err
	}
	f.door = &door{l: l, to: f.server, waiting: map[net.Conn]string{}}
	f.wg.Go(f.serve)
	f.args = []string{"-dns", dns, "-mx-port", fmt.Sprint(l.Addr().(*net.TCPAddr).Port)}
	return f, nil
}

func (f *far) close() {
	f.door.close()
	f.server.Close()
	f.dns.Close()
}

// state is that of a door.
type state uint8

const (
	shut   state = iota // hangs up on everybody
	silent              // takes connections, and says nothing after the greeting
	open
)

// door stands before a server.
type door struct {
	l  net.Listener
	to *smtptest.Server
	wg sync.WaitGroup

	mu      sync.Mutex
	state   state
	waiting map[net.Conn]string // who waits for a word of a silent door, by the name in EHLO
}

// set changes the state. Whoever waits is sent away.
func (d *door) set(s state) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = s
	for c := range d.waiting {
		c.Close()
	}
}

// waits counts the connections of a host that wait.
func (d *door) waits(host string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.waiting {
		if h == host {
			n++
		}
	}
	return n
}

func (d *door) close() {
	d.l.Close()
	d.set(shut)
	d.wg.Wait()
}

func (d *door) serve() {
	for {
		c, err := d.l.Accept()
		if err != nil {
			return
		}
		d.wg.Go(func() {
			defer c.Close()
			d.mu.Lock()
			s := d.state
			d.waiting[c] = ""
			d.mu.Unlock()
			switch s {
			case silent:
				d.hold(c)
			case open:
				d.pass(c)
			}
			d.mu.Lock()
			delete(d.waiting, c)
			d.mu.Unlock()
		})
	}
}

// hold lets a client wait until it goes or is sent away.
func (d *door) hold(c net.Conn) {
	fmt.Fprintf(c, "220 mx.%s ESMTP\r\n", farDomain)
	hello, _ := bufio.NewReader(c).ReadString('\n')
	if _, name, ok := strings.Cut(strings.TrimSpace(hello), " "); ok {
		d.mu.Lock()
		d.waiting[c] = name
		d.mu.Unlock()
	}
	io.Copy(io.Discard, c)
}

// pass leads a client to the server.
func (d *door) pass(c net.Conn) {
	s, err := d.to.DialContext(context.Background(), "tcp", "")
	if err != nil {
		return
	}
	defer s.Close()
	d.wg.Go(func() {
		io.Copy(s, c)
		s.Close()
	})
	io.Copy(c, s)
}
