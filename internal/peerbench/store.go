package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/diskstore"
)

// storeBench compares delivery by LMTP with Dovecot's, each durably on one
// journaled ext4 in a file, and reading a message with reading a file. What a
// large mailbox costs is measured alone, on the same disk.
type storeBench struct {
	quick bool
	disk  disk
	nth   int
	box   *bigBox
	reads []*readBench
}

const (
	dovecotBin  = "/usr/sbin/dovecot"
	dovecotLMTP = "/usr/lib/dovecot/lmtp"
)

func storeRows(r *run) ([]row, error) {
	b := &storeBench{quick: r.quick}
	peer := "Dovecot"
	if out, err := exec.Command(dovecotBin, "--version").Output(); err == nil {
		peer += " " + strings.Fields(string(out))[0]
	}
	peer += " LMTP, sdbox"
	var rows []row
	for _, c := range []struct {
		sessions, size int
		goal           float64
	}{{1, 4 << 10, 0}, {10, 4 << 10, 12}, {50, 4 << 10, 12}, {200, 4 << 10, 12}, {10, 64 << 10, 0}} {
		rows = append(rows, row{what: fmt.Sprintf("LMTP delivery %d KB, %d sessions", c.size>>10, c.sessions), peer: peer, unit: "msg/s",
			theirs: b.rate("dovecot", c.sessions, c.size), ours: b.rate("ours", c.sessions, c.size), goal: goal{atLeast: c.goal}})
	}
	rows = append(rows,
		row{what: "server CPU per 1,000 delivered, 4 KB, 50 sessions", peer: peer, unit: "s", theirs: b.cpu("dovecot", 50), ours: b.cpu("ours", 50)},
		row{what: "server CPU per 1,000 delivered, 4 KB, 10 sessions, ours alone", unit: "s", ours: b.cpu("ours", 10), goal: goal{atMost: 0.2}},
		row{what: "server CPU per 1,000 delivered, 4 KB, 50 sessions, ours alone", unit: "s", ours: b.cpu("ours", 50), goal: goal{atMost: 0.2}},
		row{what: "server CPU per 1,000 delivered, 4 KB, 200 sessions, ours alone", unit: "s", ours: b.cpu("ours", 200), goal: goal{atMost: 0.2}})

	const ms = "ms"
	big := fmt.Sprintf("mailbox of %d: ", b.messages())
	rows = append(rows,
		row{what: big + "counts, UIDNEXT, HIGHESTMODSEQ, cold", unit: ms, ours: b.cold((*bigBox).counts), goal: goal{atMost: 2}},
		row{what: big + "UIDs and flags streamed, cold", unit: ms, ours: b.cold((*bigBox).list), goal: goal{atMost: 40}},
		row{what: big + "UIDs and flags streamed, warm", unit: ms, ours: b.warm((*bigBox).list), goal: goal{atMost: 5}},
		row{what: big + "a flag changed on all, durably", unit: ms, ours: b.warm((*bigBox).flag), goal: goal{atMost: 35}},
		row{what: big + "memory per message, shared by 10 sessions", unit: "octets", ours: b.memory, goal: goal{atMost: 24}})

	for _, c := range []struct{ size, n int }{{4 << 10, 2000}, {64 << 10, 500}, {1 << 20, 50}} {
		if r.quick {
			c.n /= 10
		}
		f := &readBench{b: b, size: c.size, n: c.n}
		b.reads = append(b.reads, f)
		rows = append(rows,
			row{what: fmt.Sprintf("read a message of %d KB, hot", c.size>>10), peer: "plain file", unit: "µs", theirs: f.file, ours: f.hot, goal: goal{atMost: 1.5}},
			row{what: fmt.Sprintf("read a message of %d KB once after reopening", c.size>>10), peer: "plain file", unit: "µs", theirs: f.fileOnce, ours: f.once, goal: goal{atMost: 1.5}})
	}
	// The last row gives the disk back.
	last := &rows[len(rows)-1]
	measure := last.ours
	rounds := 0
	last.ours = func() (float64, error) {
		v, err := measure()
		if rounds++; rounds == r.rounds || err != nil {
			b.close()
		}
		return v, err
	}
	return rows, nil
}

// begin makes the disk at the first call.
func (b *storeBench) begin() error {
	if b.disk.path != "" {
		return nil
	}
	if _, err := os.Stat(mkfsBin); err != nil {
		return fmt.Errorf("%w: %s is not installed (e2fsprogs)", errSkip, mkfsBin)
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: only root can mount a disk", errSkip)
	}
	return b.disk.mount()
}

func (b *storeBench) close() {
	if b.box != nil && b.box.s != nil {
		b.box.s.Close()
	}
	for _, r := range b.reads {
		if r.store != nil {
			r.store.Close()
		}
	}
	b.disk.close()
}

// folder returns a new one on the disk.
func (b *storeBench) folder(what string) (string, error) {
	if err := b.begin(); err != nil {
		return "", err
	}
	b.nth++
	dir := filepath.Join(b.disk.path, fmt.Sprint(what, b.nth))
	return dir, os.Mkdir(dir, 0o755)
}

// lmtpServer is a running one.
type lmtpServer struct {
	addr, dir string
	child     *child    // ours
	cmd       *exec.Cmd // Dovecot
}

func (b *storeBench) start(kind string) (*lmtpServer, error) {
	dir, err := b.folder(kind)
	if err != nil {
		return nil, err
	}
	s := &lmtpServer{dir: dir}
	if kind == "ours" {
		if s.child, err = startChild("lmtp " + filepath.Join(dir, "mail")); err != nil {
			return nil, err
		}
		s.addr = s.child.addr
		return s, nil
	}
	for _, bin := range []string{dovecotBin, dovecotLMTP} {
		if _, err := os.Stat(bin); err != nil {
			return nil, fmt.Errorf("%w: install dovecot-lmtpd", errSkip)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.addr = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(s.addr)
	conf := filepath.Join(dir, "dovecot.conf")
	mail := filepath.Join(dir, "mail")
	if err := errors.Join(os.WriteFile(conf, []byte(dovecotConf(dir, port)), 0o644), os.Mkdir(mail, 0o777), os.Chmod(mail, 0o777)); err != nil {
		return nil, err
	}
	s.cmd = exec.Command(dovecotBin, "-F", "-c", conf)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := awaitPort(s.addr); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *lmtpServer) stop() {
	if s.child != nil {
		s.child.stop()
	}
	if s.cmd != nil {
		s.cmd.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(10*time.Second, func() { s.cmd.Process.Kill() })
		s.cmd.Wait()
		stop.Stop()
	}
	os.RemoveAll(s.dir)
}

func (s *lmtpServer) cpu() (time.Duration, error) {
	if s.child != nil {
		x, err := s.child.stat("stat")
		return x.cpu, err
	}
	return treeCPU(s.cmd.Process.Pid)
}

// load delivers for a while, each session to a mailbox of its own.
func (b *storeBench) load(kind string, sessions, size int) (a accepted, err error) {
	s, err := b.start(kind)
	if err != nil {
		return a, err
	}
	defer s.stop()
	during := 4 * time.Second
	if b.quick {
		during = 500 * time.Millisecond
	}
	// The first ones start Dovecot's processes; ours has to have written its
	// log's files once, which it writes over from then on.
	warm := max(sessions, 50)
	if kind == "ours" && !b.quick {
		warm = 100 << 20 / size
	}
	if _, _, err := deliveries(s.addr, 50, size, warm, 0, nil); err != nil {
		return a, err
	}
	var before, after time.Duration
	n, took, err := deliveries(s.addr, sessions, size, sessions, during, func(end bool) (err error) {
		if end {
			after, err = s.cpu()
		} else {
			before, err = s.cpu()
		}
		return err
	})
	if err != nil {
		return a, err
	}
	return accepted{rate: float64(n) / took.Seconds(), cpu: (after - before).Seconds() / float64(n) * 1000}, nil
}

func (b *storeBench) rate(kind string, sessions, size int) func() (float64, error) {
	return func() (float64, error) {
		a, err := b.load(kind, sessions, size)
		return a.rate, err
	}
}

func (b *storeBench) cpu(kind string, sessions int) func() (float64, error) {
	return func() (float64, error) {
		a, err := b.load(kind, sessions, 4<<10)
		return a.cpu, err
	}
}

// deliveries sends one message at a time in some sessions and counts those
// that were answered after the first ones; mark is called at both ends.
func deliveries(addr string, sessions, size, first int, during time.Duration, mark func(end bool) error) (n int64, took time.Duration, err error) {
	text := smtpText(size)
	var sent atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	errs := make(chan error, sessions)
	for i := range sessions {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				defer c.Close()
				var l *load
				if l, err = newLoadAs(c, "LHLO"); err == nil {
					lines := []string{"MAIL FROM:<sender@example.test>\r\n", fmt.Sprintf("RCPT TO:<u%d@example.test>\r\n", i), "DATA\r\n"}
					err = l.oneByOne(lines, text, &sent, &stop)
				}
			}
			if err != nil {
				errs <- err
			}
		})
	}
	for end := time.Now().Add(2 * time.Minute); sent.Load() < int64(first) && len(errs) == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if during > 0 {
		err = mark(false)
		before, began := sent.Load(), time.Now()
		time.Sleep(during)
		n, took = sent.Load()-before, time.Since(began)
		err = errors.Join(err, mark(true))
	}
	stop.Store(true)
	wg.Wait()
	select {
	case e := <-errs:
		err = errors.Join(e, err)
	default:
	}
	if err == nil && n == 0 && during > 0 {
		err = errors.New("no message in the time")
	}
	return n, took, err
}

// bigBox is a large mailbox.
type bigBox struct {
	dir  string
	n    int
	s    *diskstore.Store
	mode store.FlagMode
}

var bg = context.Background()

func (b *storeBench) messages() int {
	if b.quick {
		return 10_000
	}
	return 100_000
}

// big makes the mailbox at the first call.
func (b *storeBench) big() (*bigBox, error) {
	if b.box != nil {
		return b.box, nil
	}
	dir, err := b.folder("big")
	if err != nil {
		return nil, err
	}
	x := &bigBox{dir: filepath.Join(dir, "mail"), n: b.messages()}
	if err := x.open(); err != nil {
		return nil, err
	}
	if err := x.s.CreateAccount(bg, "u"); err != nil {
		return nil, err
	}
	acc, err := x.s.Account(bg, "u")
	if err != nil {
		return nil, err
	}
	d := make([]store.Draft, 1000)
	for k := range x.n / len(d) {
		for i := range d {
			text := fmt.Sprintf("Subject: %d\r\n\r\nbody\r\n", i)
			d[i] = store.Draft{Body: strings.NewReader(text), MessageID: fmt.Sprint(k, i), Summary: []byte(text), Flags: store.NewFlags(store.SystemFlags(i%2) * store.Seen)}
			if i%7 == 0 {
				d[i].Flags = store.NewFlags(store.Answered, "$Label1")
			}
		}
		if _, err := acc.Append(bg, store.Inbox, d, store.AppendOptions{}); err != nil {
			return nil, err
		}
	}
	b.box = x
	return x, nil
}

func (x *bigBox) open() (err error) {
	if x.s != nil {
		if err := x.s.Close(); err != nil {
			return err
		}
	}
	x.s, err = diskstore.Open(x.dir, nil)
	return err
}

// timed returns milliseconds.
func (x *bigBox) timed(f func(*bigBox) error) (float64, error) {
	began := time.Now()
	err := f(x)
	return time.Since(began).Seconds() * 1000, err
}

// cold measures f just after the store was opened.
func (b *storeBench) cold(f func(*bigBox) error) func() (float64, error) {
	return func() (float64, error) {
		x, err := b.big()
		if err != nil {
			return 0, err
		}
		return best(b.times(), func() (float64, error) {
			if err := x.open(); err != nil {
				return 0, err
			}
			return x.timed(f)
		})
	}
}

// warm measures f again and again.
func (b *storeBench) warm(f func(*bigBox) error) func() (float64, error) {
	return func() (float64, error) {
		x, err := b.big()
		if err == nil {
			err = f(x)
		}
		if err != nil {
			return 0, err
		}
		return best(4*b.times(), func() (float64, error) { return x.timed(f) })
	}
}

func (b *storeBench) times() int {
	if b.quick {
		return 1
	}
	return 10
}

// best returns the least of n measurements: what others do on the machine can
// only add to it.
func best(n int, f func() (float64, error)) (float64, error) {
	least := math.Inf(1)
	for range n {
		v, err := f()
		if err != nil {
			return 0, err
		}
		least = min(least, v)
	}
	return least, nil
}

func (x *bigBox) counts() error {
	acc, err := x.s.Account(bg, "u")
	if err != nil {
		return err
	}
	boxes, _, err := acc.Mailboxes(bg, store.MailboxQuery{IDs: []store.MailboxID{store.Inbox}, Counts: true})
	if err == nil && (len(boxes) != 1 || boxes[0].Counts.Messages != x.n || int(boxes[0].UIDNext) != x.n+1 || boxes[0].ModSeq == 0) {
		err = fmt.Errorf("the mailbox is %v", boxes)
	}
	return err
}

func (x *bigBox) list() error {
	acc, err := x.s.Account(bg, "u")
	if err != nil {
		return err
	}
	n := 0
	for m, err := range acc.Messages(bg, store.Inbox, store.Query{}) {
		if err != nil {
			return err
		}
		if n++; int(m.UID) != n {
			return fmt.Errorf("UID %d at %d", m.UID, n)
		}
	}
	if n != x.n {
		return fmt.Errorf("%d messages", n)
	}
	return nil
}

func (x *bigBox) flag() error {
	acc, err := x.s.Account(bg, "u")
	if err != nil {
		return err
	}
	r, err := acc.SetFlags(bg, store.Inbox, store.AllUIDs(), store.FlagOp{Mode: x.mode, Flags: store.NewFlags(store.Flagged)})
	x.mode ^= store.AddFlags ^ store.RemoveFlags
	if err == nil && r.Changed.Count() != int64(x.n) {
		err = fmt.Errorf("%d flags changed", r.Changed.Count())
	}
	return err
}

// memory is what a mailbox costs that ten sessions have open.
func (b *storeBench) memory() (float64, error) {
	x, err := b.big()
	if err != nil {
		return 0, err
	}
	acc, err := x.s.Account(bg, "u")
	if err != nil {
		return 0, err
	}
	boxes, _, err := acc.Mailboxes(bg, store.MailboxQuery{IDs: []store.MailboxID{store.Inbox}})
	if err != nil {
		return 0, err
	}
	if err := x.list(); err != nil { // what the store itself keeps
		return 0, err
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	views := new(store.Views)
	var open []*store.View
	for range 10 {
		v, err := views.Open(bg, "u", acc, boxes[0])
		if err != nil {
			return 0, err
		}
		open = append(open, v)
	}
	after := heap()
	runtime.KeepAlive(open)
	return float64(int64(after)-int64(before)) / float64(x.n), nil
}
