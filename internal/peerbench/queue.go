package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// queueBench compares with Postfix: each accepts durably on one journaled
// ext4, in a file, and relays to Postfix's smtp-sink.
type queueBench struct {
	quick    bool
	messages int // of one relay run
	disk     disk
	nth      int
	relayCPU float64 // of the latest relay, s per 1,000
}

const (
	postfixBin = "/usr/sbin/postfix"
	smtpSource = "/usr/sbin/smtp-source"
	smtpSink   = "/usr/sbin/smtp-sink"
)

func queueRows(r *run) ([]row, error) {
	b := &queueBench{quick: r.quick, messages: 5000}
	if r.quick {
		b.messages = 200
	}
	peer := "Postfix"
	if out, err := exec.Command("/usr/sbin/postconf", "-d", "-h", "mail_version").Output(); err == nil {
		peer += " " + strings.TrimSpace(string(out))
	}
	var rows []row
	for _, c := range []struct {
		sessions, size int
		goal           float64
	}{{1, 4 << 10, 1.8}, {10, 4 << 10, 0}, {50, 4 << 10, 8}, {200, 4 << 10, 11}, {10, 64 << 10, 1.8}} {
		rows = append(rows, row{what: fmt.Sprintf("accept durably %d KB, %d sessions", c.size>>10, c.sessions), peer: peer, unit: "msg/s",
			theirs: b.accept("postfix", c.sessions, c.size), ours: b.accept("ours", c.sessions, c.size), goal: goal{atLeast: c.goal}})
	}
	for _, n := range []int{50, 200} {
		rows = append(rows, row{what: fmt.Sprintf("99th percentile of a transaction, 4 KB, %d sessions", n), peer: peer, unit: "ms",
			theirs: b.p99("postfix", n), ours: b.p99("ours", n), goal: goal{atMost: 0.25}})
	}
	rows = append(rows,
		row{what: "server CPU per 1,000 accepted, 4 KB, 50 sessions", peer: peer, unit: "s", theirs: b.cpu("postfix", 50), ours: b.cpu("ours", 50)},
		row{what: "server CPU per 1,000 accepted, 4 KB, 200 sessions, ours alone", unit: "s", ours: b.cpu("ours", 200), goal: goal{atMost: 0.12}})
	for _, n := range []int{1, 50} {
		where := "one destination"
		if n > 1 {
			where = fmt.Sprintf("%d destinations", n)
		}
		rows = append(rows,
			row{what: fmt.Sprintf("relay %d queued messages to %s", b.messages, where), peer: peer, unit: "msg/s",
				theirs: b.relay("postfix", n, true), ours: b.relay("ours", n, true), goal: goal{atLeast: 5}},
			row{what: fmt.Sprintf("%d messages in and out, %s", b.messages, where), peer: peer, unit: "msg/s",
				theirs: b.relay("postfix", n, false), ours: b.relay("ours", n, false), goal: goal{atLeast: 10}})
	}
	relayCPU := func(kind string) func() (float64, error) {
		return func() (float64, error) {
			_, err := b.relay(kind, 1, true)()
			return b.relayCPU, err
		}
	}
	rows = append(rows,
		row{what: "queue CPU per 1,000 relayed to one destination", peer: peer, unit: "s", theirs: relayCPU("postfix"), ours: relayCPU("ours")},
		row{what: "queue CPU per 1,000 relayed to one destination, ours alone", unit: "s", ours: relayCPU("ours"), goal: goal{atMost: 0.16}})
	// The last row gives the disk back.
	last := &rows[len(rows)-1]
	measure := last.ours
	rounds := 0
	last.ours = func() (float64, error) {
		v, err := measure()
		if rounds++; rounds == r.rounds || err != nil {
			b.disk.close()
		}
		return v, err
	}
	return rows, nil
}

// begin makes the disk at the first call.
func (b *queueBench) begin() error {
	if b.disk.path != "" {
		return nil
	}
	for _, p := range []string{postfixBin, smtpSource, smtpSink, mkfsBin} {
		if _, err := os.Stat(p); err != nil {
			return fmt.Errorf("%w: %s is not installed", errSkip, p)
		}
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: only root can start Postfix and mount a disk", errSkip)
	}
	return b.disk.mount()
}

// mta is a running peer, or ours.
type mta struct {
	addr  string
	dir   string
	child *child // ours
	conf  string // Postfix's
	cmd   *exec.Cmd
}

// start runs one with an empty queue. hold: what it accepts it keeps.
func (b *queueBench) start(kind string, sinkPort string, hold bool) (*mta, error) {
	if err := b.begin(); err != nil {
		return nil, err
	}
	b.nth++
	m := &mta{dir: filepath.Join(b.disk.path, fmt.Sprint(kind, b.nth))}
	if kind == "ours" {
		c, err := startChild("queue " + m.dir + " " + sinkPort)
		if err != nil {
			return nil, err
		}
		m.child, m.addr = c, c.addr
		if !hold {
			_, err = c.stat("run")
		}
		return m, err
	}
	return m, m.startPostfix(sinkPort, hold)
}

const masterCf = `%s inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
showq unix n - n - - showq
`

func (m *mta) startPostfix(sinkPort string, hold bool) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	m.addr = l.Addr().String()
	l.Close()
	for _, d := range []string{"", "conf", "queue", "data"} {
		if err := os.Mkdir(filepath.Join(m.dir, d), 0o755); err != nil {
			return err
		}
	}
	m.conf = filepath.Join(m.dir, "conf")
	if out, err := exec.Command("chown", "postfix", filepath.Join(m.dir, "data")).CombinedOutput(); err != nil {
		return fmt.Errorf("chown: %w: %s", err, out)
	}
	var routes strings.Builder
	for n := 1; n <= 50; n++ {
		fmt.Fprintf(&routes, "d%d.test smtp:[127.0.0.%d]:%s\n", n, n, sinkPort)
	}
	settings := []string{
		"compatibility_level = 3.6", "queue_directory = " + m.dir + "/queue", "data_directory = " + m.dir + "/data",
		"command_directory = /usr/sbin", "daemon_directory = /usr/lib/postfix/sbin", "mail_owner = postfix", "setgid_group = postdrop",
		"myhostname = postfix.test", "mydestination =", "alias_maps =", "local_recipient_maps =", "inet_interfaces = 127.0.0.1", "inet_protocols = ipv4",
		"maillog_file = " + m.dir + "/log", "maillog_file_prefixes = " + m.dir, "mynetworks = 127.0.0.0/8",
		"smtpd_relay_restrictions = permit_mynetworks, reject", "transport_maps = texthash:" + m.conf + "/transport",
		"smtpd_client_connection_count_limit = 0", "default_process_limit = 250", "smtpd_tls_security_level = none", "smtp_tls_security_level = none",
	}
	if hold {
		settings = append(settings, "smtpd_data_restrictions = check_client_access static:HOLD")
	}
	for name, text := range map[string]string{"main.cf": strings.Join(settings, "\n") + "\n", "master.cf": fmt.Sprintf(masterCf, m.addr), "transport": routes.String()} {
		if err := os.WriteFile(filepath.Join(m.conf, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	m.cmd = exec.Command(postfixBin, "-c", m.conf, "start-fg")
	if err := m.cmd.Start(); err != nil {
		return err
	}
	return awaitPort(m.addr)
}

func awaitPort(addr string) error {
	for range 500 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("nothing listens on %s", addr)
}

// release lets what was held go.
func (m *mta) release() error {
	if m.child != nil {
		_, err := m.child.stat("run")
		return err
	}
	if out, err := exec.Command("/usr/sbin/postsuper", "-c", m.conf, "-H", "ALL").CombinedOutput(); err != nil {
		return fmt.Errorf("postsuper: %w: %s", err, out)
	}
	if out, err := exec.Command("/usr/sbin/postqueue", "-c", m.conf, "-f").CombinedOutput(); err != nil {
		return fmt.Errorf("postqueue: %w: %s", err, out)
	}
	return nil
}

func (m *mta) stop() {
	if m.child != nil {
		m.child.stop()
	}
	if m.cmd != nil {
		exec.Command(postfixBin, "-c", m.conf, "stop").Run()
		stop := time.AfterFunc(10*time.Second, func() { m.cmd.Process.Kill() })
		m.cmd.Wait()
		stop.Stop()
	}
	os.RemoveAll(m.dir)
}

// source runs smtp-source: n messages in some sessions, each kept open.
func source(addr string, sessions, n, size, domain int) error {
	out, err := exec.Command(smtpSource, "-d", "-s", fmt.Sprint(sessions), "-m", fmt.Sprint(n), "-l", fmt.Sprint(size),
		"-f", "sender@bench.test", "-t", fmt.Sprintf("rcpt@d%d.test", domain), addr).CombinedOutput()
	if err != nil {
		return fmt.Errorf("smtp-source: %w: %s", err, out)
	}
	return nil
}

type accepted struct{ rate, cpu float64 }

// load has n messages accepted and kept.
func (b *queueBench) load(kind string, sessions, size int) (a accepted, err error) {
	m, err := b.start(kind, "9", true)
	if err != nil {
		return a, err
	}
	defer m.stop()
	n := 2000
	switch {
	case b.quick:
		n = 200
	case kind == "ours" && sessions >= 50:
		n = 20000
	case kind == "ours":
		n = 5000
	}
	// The first ones start Postfix's processes; ours has to have written its
	// log's files once, which it writes over from then on.
	warm := max(sessions, 50)
	if kind == "ours" && !b.quick {
		warm = 100 << 20 / size
	}
	if err := source(m.addr, max(sessions, 10), warm, size, 1); err != nil {
		return a, err
	}
	before, err := m.cpu()
	if err != nil {
		return a, err
	}
	began := time.Now()
	if err := source(m.addr, sessions, n, size, 1); err != nil {
		return a, err
	}
	a.rate = float64(n) / time.Since(began).Seconds()
	after, err := m.cpu()
	a.cpu = (after - before).Seconds() / float64(n) * 1000
	return a, err
}

// cpu is what all processes of m have used.
func (m *mta) cpu() (time.Duration, error) {
	if m.child != nil {
		s, err := m.child.stat("stat")
		return s.cpu, err
	}
	return treeCPU(m.cmd.Process.Pid)
}

func (b *queueBench) accept(kind string, sessions, size int) func() (float64, error) {
	return func() (float64, error) {
		a, err := b.load(kind, sessions, size)
		return a.rate, err
	}
}

func (b *queueBench) cpu(kind string, sessions int) func() (float64, error) {
	return func() (float64, error) {
		a, err := b.load(kind, sessions, 4<<10)
		return a.cpu, err
	}
}

// p99 sends with a client of our own, which smtp-source's times are not
// known of, and returns the time from MAIL to the reply to the dot.
func (b *queueBench) p99(kind string, sessions int) func() (float64, error) {
	return func() (float64, error) {
		m, err := b.start(kind, "9", true)
		if err != nil {
			return 0, err
		}
		defer m.stop()
		during := 3 * time.Second
		if b.quick {
			during = 300 * time.Millisecond
		}
		if err := source(m.addr, sessions, max(sessions, 50), 4<<10, 1); err != nil {
			return 0, err
		}
		took, err := latencies(m.addr, sessions, during)
		if err != nil {
			return 0, err
		}
		slices.Sort(took)
		return took[len(took)*99/100].Seconds() * 1000, nil
	}
}

func latencies(addr string, sessions int, during time.Duration) ([]time.Duration, error) {
	text := smtpText(4 << 10)
	lines := strings.SplitAfter(strings.ReplaceAll(smtpEnvelope, "rcpt@example.test", "rcpt@d1.test"), "\n")
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	var stop atomic.Bool
	errs := make(chan error, sessions)
	for range sessions {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			l, err := newLoad(c)
			if err != nil {
				errs <- err
				return
			}
			var mine []time.Duration
			for !stop.Load() {
				began := time.Now()
				for i := range envelopeReplies {
					if err := l.command(lines[i], envelopeReplies[i]); err != nil {
						errs <- err
						return
					}
				}
				if err := l.command(string(text), '2'); err != nil {
					errs <- err
					return
				}
				mine = append(mine, time.Since(began))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	time.Sleep(during)
	stop.Store(true)
	wg.Wait()
	select {
	case err := <-errs:
		return nil, err
	default:
	}
	if len(all) == 0 {
		return nil, errors.New("no message in the time")
	}
	return all, nil
}

// sink is a running smtp-sink that counts.
type sink struct {
	cmd   *exec.Cmd
	port  string
	count atomic.Int64
	out   io.ReadCloser
}

func startSink() (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{}
	_, s.port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	// It listens on all of loopback, for destinations of several addresses.
	s.cmd = exec.Command(smtpSink, "-c", "-m", "2000", "-u", "nobody", "0.0.0.0:"+s.port, "1000")
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.cmd.Stdout, s.cmd.Stderr = w, w
	err = s.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	s.out = r
	go func() {
		sc := bufio.NewScanner(r)
		sc.Split(func(data []byte, eof bool) (int, []byte, error) {
			if i := slices.Index(data, '\r'); i >= 0 {
				return i + 1, data[:i], nil
			}
			if eof {
				return len(data), nil, nil
			}
			return 0, nil, nil
		})
		for sc.Scan() {
			// "sess=1 quit=1 mesg=1"
			for f := range strings.FieldsSeq(sc.Text()) {
				if v, ok := strings.CutPrefix(f, "mesg="); ok {
					if n, err := strconv.ParseInt(v, 10, 64); err == nil {
						s.count.Store(n)
					}
				}
			}
		}
	}()
	return s, awaitPort("127.0.0.1:" + s.port)
}

func (s *sink) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.cmd.Wait()
	s.out.Close()
}

func (s *sink) await(n int64) error {
	for last, since := int64(-1), time.Now(); ; {
		c := s.count.Load()
		if c >= n {
			return nil
		}
		if c != last {
			last, since = c, time.Now()
		} else if time.Since(since) > 30*time.Second {
			return fmt.Errorf("%d of %d messages came", c, n)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// relay measures from the release of what was queued to the last message at
// the sink; or, not queued before, from the first one in.
func (b *queueBench) relay(kind string, destinations int, queued bool) func() (float64, error) {
	return func() (float64, error) {
		if err := b.begin(); err != nil {
			return 0, err
		}
		s, err := startSink()
		if err != nil {
			return 0, err
		}
		defer s.stop()
		m, err := b.start(kind, s.port, queued)
		if err != nil {
			return 0, err
		}
		defer m.stop()
		began := time.Now()
		var wg sync.WaitGroup
		errs := make([]error, destinations)
		for d := range destinations {
			wg.Go(func() { errs[d] = source(m.addr, max(50/destinations, 1), b.messages/destinations, 4<<10, d+1) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return 0, err
		}
		before := time.Duration(0)
		if queued {
			if before, err = m.cpu(); err != nil {
				return 0, err
			}
			began = time.Now()
			if err := m.release(); err != nil {
				return 0, err
			}
		}
		if err := s.await(int64(b.messages)); err != nil {
			return 0, err
		}
		took := time.Since(began)
		after, err := m.cpu()
		if err != nil {
			return 0, err
		}
		b.relayCPU = (after - before).Seconds() / float64(b.messages) * 1000
		return float64(b.messages) / took.Seconds(), nil
	}
}
