package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	netsmtp "net/smtp"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

const goSMTP = "go-smtp 0.25.1"

// smtpBench keeps the server processes of one run.
type smtpBench struct {
	during  time.Duration
	quick   bool
	servers map[string]*child
}

func (b *smtpBench) server(kind string) (*child, error) {
	if c := b.servers[kind]; c != nil {
		return c, nil
	}
	c, err := startChild(kind)
	if err != nil {
		return nil, err
	}
	b.servers[kind] = c
	return c, nil
}

// measured is what one load has come to.
type measured struct{ rate, cpu, allocs float64 } // messages a second, CPU s and allocations per 1,000

func (b *smtpBench) load(kind string, sessions int, pipelined bool, size int) (m measured, err error) {
	c, err := b.server(kind)
	if err != nil {
		return m, err
	}
	before, err := c.stat("stat")
	if err != nil {
		return m, err
	}
	rate, n, err := throughput(c.addr, sessions, pipelined, size, b.during)
	if err != nil {
		return m, fmt.Errorf("%s: %w", kind, err)
	}
	after, err := c.stat("stat")
	return measured{rate, (after.cpu - before.cpu).Seconds() / float64(n) * 1000, float64(after.mallocs-before.mallocs) / float64(n)}, err
}

func (b *smtpBench) rate(kind string, sessions int, pipelined bool, size int) func() (float64, error) {
	return func() (float64, error) {
		m, err := b.load(kind, sessions, pipelined, size)
		return m.rate, err
	}
}

func (b *smtpBench) cpu(kind string, pipelined bool) func() (float64, error) {
	return func() (float64, error) {
		m, err := b.load(kind, 50, pipelined, 4<<10)
		return m.cpu, err
	}
}

func smtpRows(r *run) ([]row, error) {
	b := &smtpBench{during: 2 * time.Second, quick: r.quick, servers: map[string]*child{}}
	held, bodySize, abusers := 10000, 10<<20, 4000
	if r.quick {
		b.during, held, bodySize, abusers = 200*time.Millisecond, 500, 1<<20, 200
	}
	var rows []row
	for _, n := range []int{1, 10, 50, 200} {
		rows = append(rows, row{what: fmt.Sprintf("discard 4 KB, %d sessions, one command at a time", n), peer: goSMTP, unit: "msg/s",
			theirs: b.rate("go-smtp", n, false, 4<<10), ours: b.rate("ours", n, false, 4<<10), goal: goal{atLeast: 1.2}})
	}
	for _, n := range []int{1, 10, 50, 200} {
		rows = append(rows, row{what: fmt.Sprintf("discard 4 KB, %d sessions, pipelined", n), peer: goSMTP, unit: "msg/s",
			theirs: b.rate("go-smtp", n, true, 4<<10), ours: b.rate("ours", n, true, 4<<10), goal: goal{atLeast: 1.8}})
	}
	rows = append(rows,
		row{what: "server CPU per 1,000, 50 sessions, one command at a time", peer: goSMTP, unit: "s", theirs: b.cpu("go-smtp", false), ours: b.cpu("ours", false), goal: goal{atMost: 0.75}},
		row{what: "server CPU per 1,000, 50 sessions, pipelined", peer: goSMTP, unit: "s", theirs: b.cpu("go-smtp", true), ours: b.cpu("ours", true)},
		row{what: "discard 4 KB, 50 sessions, one command at a time", peer: "floor (constants)", unit: "msg/s", theirs: b.rate("floor", 50, false, 4<<10), ours: b.rate("ours", 50, false, 4<<10)},
		row{what: "discard 4 KB, 50 sessions, pipelined", peer: "floor (constants)", unit: "msg/s", theirs: b.rate("floor", 50, true, 4<<10), ours: b.rate("ours", 50, true, 4<<10)},
		row{what: "server CPU per 1,000, 50 sessions, one command at a time", peer: "floor (constants)", unit: "s", theirs: b.cpu("floor", false), ours: b.cpu("ours", false)},
		row{what: "discard 4 KB, 50 sessions, one command at a time", peer: "Postfix smtp-sink", unit: "msg/s", theirs: b.smtpSink, ours: b.rate("ours", 50, false, 4<<10)},
		row{what: "allocations per transaction", unit: "allocs", goal: goal{atMost: 12}, ours: func() (float64, error) {
			m, err := b.load("ours", 50, false, 4<<10)
			return m.allocs, err
		}},
		row{what: "discard 64 KB, 10 sessions", peer: goSMTP, unit: "msg/s", theirs: b.rate("go-smtp", 10, false, 64<<10), ours: b.rate("ours", 10, false, 64<<10), goal: goal{atLeast: 1.2}},
		row{what: fmt.Sprintf("discard %d MB, 10 sessions", bodySize>>20), peer: goSMTP, unit: "msg/s", theirs: b.rate("go-smtp", 10, false, bodySize), ours: b.rate("ours", 10, false, bodySize), goal: goal{atLeast: 1.2}},
		row{what: fmt.Sprintf("peak memory with 10 sessions, %d MB bodies to 64 KB", bodySize>>20), peer: "ourselves, 64 KB", unit: "MB", theirs: peak(64<<10, b.during), ours: peak(bodySize, b.during), goal: goal{atMost: 1.5}},
		row{what: fmt.Sprintf("memory of an idle connection, %d held", held), peer: goSMTP, unit: "KB", theirs: idle("go-smtp", held), ours: idle("ours", held)},
		row{what: fmt.Sprintf("the same, ours alone, %d held", held), unit: "KB", ours: idle("ours", held), goal: goal{atMost: 10}},
		row{what: fmt.Sprintf("memory of an idle connection with TLS, %d held", held), peer: goSMTP, unit: "KB", theirs: idle("go-smtp+tls", held), ours: idle("ours+tls", held)},
		row{what: fmt.Sprintf("the same, ours alone, %d held", held), unit: "KB", ours: idle("ours+tls", held), goal: goal{atMost: 45}},
		row{what: "client, one connection, link of 20 ms", peer: goSMTP + " client", unit: "msg/s", theirs: b.client(sendGoSMTP), ours: b.client(sendOurs), goal: goal{atLeast: 3}},
		row{what: "client, one connection, link of 20 ms", peer: "net/smtp", unit: "msg/s", theirs: b.client(sendNetSMTP), ours: b.client(sendOurs), goal: goal{atLeast: 3}},
		row{what: fmt.Sprintf("honest rate, 50 sessions, beside %d of abuse", abusers), peer: "ourselves, no abuse", unit: "msg/s",
			theirs: b.rate("ours", 50, false, 4<<10), ours: func() (float64, error) { return b.underAbuse(abusers) }, goal: goal{atLeast: 0.5}},
	)
	return rows, nil
}

// smtpSink measures Postfix's sink.
func (b *smtpBench) smtpSink() (float64, error) {
	const path = "/usr/sbin/smtp-sink"
	if _, err := os.Stat(path); err != nil {
		return 0, fmt.Errorf("%w: Postfix is not installed", errSkip)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(path, addr, "1000")
	if os.Getuid() == 0 {
		cmd = exec.Command(path, "-u", "nobody", addr, "1000")
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	for range 200 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	rate, _, err := throughput(addr, 50, false, 4<<10, b.during)
	return rate, err
}

// peak is how much memory a fresh server of ours has had at most.
func peak(size int, during time.Duration) func() (float64, error) {
	return func() (float64, error) {
		c, err := startChild("ours")
		if err != nil {
			return 0, err
		}
		defer c.stop()
		if _, _, err := throughput(c.addr, 10, false, size, during); err != nil {
			return 0, err
		}
		s, err := c.stat("stat")
		return float64(s.rssPeak) / 1e6, err
	}
}

// idle is the memory of a connection that another process holds open.
func idle(kind string, n int) func() (float64, error) {
	return func() (float64, error) {
		c, err := startChild(kind)
		if err != nil {
			return 0, err
		}
		defer c.stop()
		before, err := c.stat("gc")
		if err != nil {
			return 0, err
		}
		args := fmt.Sprintf("hold %s %d", c.addr, n)
		if strings.HasSuffix(kind, "+tls") {
			args += " tls"
		}
		h, err := startChild(args)
		if err != nil {
			return 0, err
		}
		defer h.stop()
		after, err := c.stat("gc")
		return float64(after.rss-before.rss) / float64(n) / 1024, err
	}
}

// underAbuse is the rate of honest mail beside idle, slow and garbage
// connections.
func (b *smtpBench) underAbuse(n int) (float64, error) {
	c, err := b.server("ours")
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg, up sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	up.Add(n)
	for i := range n {
		wg.Go(func() {
			for first := true; ctx.Err() == nil; first = false {
				nc, err := net.Dial("tcp", c.addr)
				if first {
					up.Done()
				}
				if err != nil {
					return
				}
				stop := context.AfterFunc(ctx, func() { nc.Close() })
				switch i % 4 {
				case 0, 1:
					io.Copy(io.Discard, nc)
				case 2:
					trickle(ctx, nc, smtpEnvelope, "x", time.Second)
				default:
					trickle(ctx, nc, "", strings.Repeat("\x16\x03garbage\x00\r\n", 5), time.Second)
				}
				stop()
				nc.Close()
			}
		})
	}
	up.Wait()
	rate, _, err := throughput(c.addr, 50, false, 4<<10, b.during)
	return rate, err
}

func trickle(ctx context.Context, nc net.Conn, first, then string, every time.Duration) {
	_, err := io.WriteString(nc, first)
	for err == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		_, err = io.WriteString(nc, then)
	}
}

// client measures how many messages a client sends through one connection
// over a slow link.
func (b *smtpBench) client(send func(addr string, n int, text string) error) func() (float64, error) {
	return func() (float64, error) {
		c, err := b.server("ours")
		if err != nil {
			return 0, err
		}
		l, err := slowLink(c.addr, 10*time.Millisecond)
		if err != nil {
			return 0, err
		}
		defer l.Close()
		n := 40
		if b.quick {
			n = 10
		}
		text := strings.TrimSuffix(string(smtpText(4<<10)), ".\r\n")
		began := time.Now()
		if err := send(l.Addr().String(), n, text); err != nil {
			return 0, err
		}
		return float64(n) / time.Since(began).Seconds(), nil
	}
}

// slowLink forwards to addr; what is sent arrives after delay, each way.
func slowLink(addr string, delay time.Duration) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	type parcel struct {
		b  []byte
		at time.Time
	}
	forward := func(dst, src net.Conn) {
		ch := make(chan parcel, 1000)
		go func() {
			defer dst.Close()
			for p := range ch {
				time.Sleep(time.Until(p.at))
				dst.Write(p.b)
			}
		}()
		for {
			b := make([]byte, 32<<10)
			n, err := src.Read(b)
			if n > 0 {
				ch <- parcel{b[:n], time.Now().Add(delay)}
			}
			if err != nil {
				close(ch)
				return
			}
		}
	}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				near.Close()
				continue
			}
			go forward(far, near)
			go forward(near, far)
		}
	}()
	return l, nil
}

func sendOurs(addr string, n int, text string) error {
	pool := &smtpclient.Pool{MaxGroup: 1}
	defer pool.Close()
	env := &smtp.Envelope{From: smtp.Address{Local: "sender", Domain: "example.test"},
		To: []smtp.Recipient{{Address: smtp.Address{Local: "rcpt", Domain: "example.test"}}}}
	var wg sync.WaitGroup
	errs := make([]error, n)
	sem := make(chan struct{}, 4)
	for i := range n {
		sem <- struct{}{}
		wg.Go(func() {
			defer func() { <-sem }()
			errs[i] = pool.Send(context.Background(), smtpclient.Target{Addr: addr, Need: smtpclient.Plain}, env, strings.NewReader(text))[0].Err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func sendGoSMTP(addr string, n int, text string) error {
	c, err := gosmtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for range n {
		if err := c.SendMail("sender@example.test", []string{"rcpt@example.test"}, strings.NewReader(text)); err != nil {
			return err
		}
	}
	return c.Quit()
}

func sendNetSMTP(addr string, n int, text string) error {
	c, err := netsmtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for range n {
		if err := c.Mail("sender@example.test"); err != nil {
			return err
		}
		if err := c.Rcpt("rcpt@example.test"); err != nil {
			return err
		}
		w, err := c.Data()
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	return c.Quit()
}
