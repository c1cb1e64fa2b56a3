package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// asServer in the environment makes the test binary the program itself.
const asServer = "MAILSERVER_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// child starts the program as a process of its own.
func child(t *testing.T, args ...string) *process {
	t.Helper()
	for _, l := range []string{"smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s"} {
		addr := ""
		if l == "submission" {
			addr = "127.0.0.1:0"
		}
		args = append(args, "-"+l, addr)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe, args...)}
	p.cmd.Env = append(os.Environ(), asServer+"=1")
	p.cmd.Stderr = &p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		if f := strings.Fields(sc.Text()); len(f) > 1 && f[0] == "submission" {
			p.addr = f[1]
		}
		if sc.Text() == "ready" {
			return p
		}
	}
	p.cmd.Wait()
	t.Fatalf("the server ended before it was ready:\n%s", p.log.Bytes())
	return nil
}

type process struct {
	cmd  *exec.Cmd
	addr string
	log  bytes.Buffer // read it after end
}

// end waits for the process, which is killed if it does not end by itself.
func (p *process) end() error {
	stop := time.AfterFunc(time.Minute, func() { p.cmd.Process.Kill() })
	defer stop.Stop()
	return p.cmd.Wait()
}

// parcel is one message to one recipient.
type parcel struct {
	id string
	to string
}

// took is that the far side took a parcel.
type took struct {
	round   int
	at      time.Time
	dropped bool // it cut the connection in place of an answer
}

// ledger is what was promised and what came. The file is written and synced
// before the next message is sent, by this process, which nobody kills.
type ledger struct {
	mu    sync.Mutex
	file  *os.File
	round int
	acked map[parcel]time.Time
	took  map[parcel][]took
}

func (l *ledger) ack(id string, to []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range to {
		l.acked[parcel{id, a}] = time.Now()
	}
	if _, err := fmt.Fprintln(l.file, id, to); err != nil {
		return err
	}
	return l.file.Sync()
}

// farSide is the world: it takes mail, now and then not at once.
type farSide struct {
	*ledger
	well  atomic.Bool // no more faults
	shut  atomic.Bool // takes nothing for now
	conns sync.Map    // remote address to net.Conn
	args  []string    // for a server that is to find it
	net.Listener
}

// newFarSide serves the domains a.far.test to h.far.test until the test ends.
func newFarSide(t *testing.T) *farSide {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "acknowledged"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	far := &farSide{ledger: &ledger{file: file, acked: make(map[parcel]time.Time), took: make(map[parcel][]took)}}
	if far.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	srv := &smtpserver.Server{Backend: far, Hostname: "mx.far.test", MaxConnectionsPerIP: -1, Log: slog.New(slog.DiscardHandler)}
	go srv.Serve(far)
	t.Cleanup(func() { srv.Close() })
	zone := mxtest.Zone{"mx.far.test": {"A 127.0.0.1"}}
	for c := 'a'; c <= 'h'; c++ {
		zone[string(c)+".far.test"] = []string{"MX 10 mx.far.test"}
	}
	dns := mxtest.NewDNS(zone)
	dnsAddr, err := dns.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	_, port, _ := net.SplitHostPort(far.Addr().String())
	far.args = []string{"-user", "alice@example.test:secret", "-insecure-auth", "-dns", dnsAddr, "-mx-port", port}
	return far
}

func (f *farSide) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err == nil {
		f.conns.Store(c.RemoteAddr().String(), c)
	}
	return c, err
}

func (f *farSide) NewSession(_ context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &farSession{f: f, conn: c.Remote().String(), round: f.round}, nil
}

func (f *farSide) fault(percent int) bool { return !f.well.Load() && rand.IntN(100) < percent }

type farSession struct {
	f     *farSide
	conn  string
	round int // in which it was connected to
	to    []string
}

var errLater = &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 3, 0}, Text: "Later"}

func (s *farSession) Mail(context.Context, smtp.Address, smtp.MailOptions) error { return nil }

func (s *farSession) Rcpt(_ context.Context, to smtp.Address, _ smtp.RcptOptions) error {
	if s.f.shut.Load() || s.f.fault(5) {
		return errLater
	}
	s.to = append(s.to, to.String())
	return nil
}

func (s *farSession) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return smtp.Reply{}, err
	}
	id, ok := parseLoad(text)
	if !ok {
		return smtp.Reply{}, &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 6, 0}, Text: "Not what was sent"}
	}
	if s.f.fault(5) {
		return smtp.Reply{}, errLater
	}
	if s.f.fault(10) {
		timer := time.NewTimer(rand.N(50 * time.Millisecond))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	drop := s.f.fault(5)
	s.f.mu.Lock()
	for _, to := range s.to {
		p := parcel{id, to}
		s.f.took[p] = append(s.f.took[p], took{s.round, time.Now(), drop})
	}
	s.f.mu.Unlock()
	if drop {
		if c, ok := s.f.conns.Load(s.conn); ok {
			c.(net.Conn).Close()
		}
	}
	return smtp.Reply{}, nil
}

func (s *farSession) Reset() { s.to = nil }

func (s *farSession) Close() error {
	s.f.conns.Delete(s.conn)
	return nil
}

// loadText is a message that shows whether all of it came.
func loadText(id string, size int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "From: alice@example.test\r\nSubject: load\r\nX-Load: %s\r\n\r\n", id)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%s line %d\r\n", id, i)
	}
	fmt.Fprintf(&b, "end of %s\r\n", id)
	return b.String()
}

func parseLoad(text []byte) (id string, ok bool) {
	_, rest, found := strings.Cut(string(text), "\r\nX-Load: ")
	id, body, _ := strings.Cut(rest, "\r\n")
	id = strings.Clone(id) // it outlives the text
	if !found || !strings.HasSuffix(body, "\r\nend of "+id+"\r\n") && !strings.HasSuffix(body, "\r\n\r\nend of "+id+"\r\n") {
		return "", false
	}
	_, body, _ = strings.Cut(body, "\r\n\r\n")
	for i, line := range slices.Collect(strings.Lines(body)) {
		if line != fmt.Sprintf("%s line %d\r\n", id, i) {
			return id, line == fmt.Sprintf("end of %s\r\n", id)
		}
	}
	return id, false
}

// submit sends messages in one session until the server is gone. It returns
// how many were acknowledged, and whether the last one had its dot sent and
// was not answered.
func submit(addr string, l *ledger, session string, begun func()) (n int, unanswered bool, err error) {
	defer begun()
	nc, c, err := logIn(addr)
	if err != nil {
		return 0, false, err
	}
	defer c.Close()
	begun()
	for ; ; n++ {
		id := fmt.Sprintf("%s-%d", session, n)
		to := []string{"x@a.far.test"}
		switch rand.IntN(4) {
		case 0:
			to = append(to, "y@b.far.test")
		case 1:
			to[0] = fmt.Sprintf("x@%c.far.test", 'a'+rune(rand.IntN(8)))
		}
		size := rand.IntN(4000)
		if rand.IntN(50) == 0 {
			size = 200_000 // a file of its own
		}
		if err := command(c, 250, "MAIL FROM:<alice@example.test>"); err != nil {
			return n, false, err
		}
		for _, a := range to {
			if err := command(c, 250, "RCPT TO:<"+a+">"); err != nil {
				return n, false, err
			}
		}
		if err := command(c, 354, "DATA"); err != nil {
			return n, false, err
		}
		if _, err := io.WriteString(nc, loadText(id, size)+".\r\n"); err != nil {
			return n, false, err
		}
		if _, _, err := c.ReadResponse(250); err != nil {
			return n, true, err
		}
		if err := l.ack(id, to); err != nil {
			return n, false, err
		}
	}
}

func logIn(addr string) (net.Conn, *textproto.Conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	c := textproto.NewConn(nc)
	_, _, err = c.ReadResponse(220)
	if err == nil {
		err = command(c, 250, "EHLO load.test")
	}
	if err == nil {
		err = command(c, 235, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00alice@example.test\x00secret")))
	}
	if err != nil {
		c.Close()
	}
	return nc, c, err
}

func command(c *textproto.Conn, code int, line string) error {
	if err := c.PrintfLine("%s", line); err != nil {
		return err
	}
	_, _, err := c.ReadResponse(code)
	return err
}

// killRounds is how often the server is killed: POSTRIDER_KILLS=200 is the
// long form.
func killRounds(t *testing.T) int {
	s := os.Getenv("POSTRIDER_KILLS")
	if s == "" {
		return 5
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("POSTRIDER_KILLS=%q is no number", s)
	}
	return n
}

// TestKill kills the program at random moments under load, beside a far side
// that fails at random, and holds what came against what was promised:
// nothing that was acknowledged is lost, and nothing comes twice but what the
// far side left unanswered, or answered so late that the outcome was not
// written when the program was killed.
func TestKill(t *testing.T) {
	const sessions = 8
	rounds := killRounds(t)
	dir := t.TempDir()
	far := newFarSide(t)
	l := far.ledger
	data := filepath.Join(dir, "data")
	begin := func() *process { return child(t, append(far.args, "-data", data, "-retry", "20ms")...) }

	// What was still queued when the program was killed, by round.
	kills := make(map[int]kill)
	counted, idle, recorded := 0, 0, 0
	for counted < rounds {
		if idle > rounds+10 {
			t.Fatalf("%d kills hit no write, %d did", idle, counted)
		}
		l.mu.Lock()
		l.round++
		round := l.round
		l.mu.Unlock()
		p := begin()
		var wg, loggedIn sync.WaitGroup
		var unanswered atomic.Int64
		loggedIn.Add(sessions)
		for i := range sessions {
			wg.Go(func() {
				_, open, err := submit(p.addr, l, fmt.Sprintf("%d.%d", round, i), sync.OnceFunc(loggedIn.Done))
				if open {
					unanswered.Add(1)
				}
				var reply *textproto.Error
				if errors.As(err, &reply) { // it must be cut, not refused
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		loggedIn.Wait()
		<-time.After(rand.N(200 * time.Millisecond)) // the moment is random
		killed := time.Now()
		p.cmd.Process.Kill()
		p.end()
		wg.Wait()
		left, unsure := queued(t, data)
		recorded += unsure
		kills[round] = kill{at: killed, left: left}
		l.mu.Lock()
		open := unanswered.Load() > 0 || slices.ContainsFunc(slices.Collect(maps.Keys(left)), func(p parcel) bool {
			return slices.ContainsFunc(l.took[p], func(k took) bool { return k.round == round && !k.dropped })
		})
		l.mu.Unlock()
		if !open {
			idle++
			continue
		}
		counted++
	}

	// What is left is delivered, once the far side is well.
	far.well.Store(true)
	l.mu.Lock()
	l.round++
	l.mu.Unlock()
	p := begin()
	for end := time.Now().Add(2 * time.Minute); l.missing() > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	p.cmd.Process.Signal(os.Interrupt)
	if err := p.end(); err != nil {
		t.Errorf("the server ended with %v\n%s", err, p.log.Bytes())
	}
	if left, _ := queued(t, data); len(left) > 0 {
		t.Errorf("%d parcels are still queued, such as %v", len(left), anyOf(left))
	}
	doubles, inWindow, widest := l.judge(t, kills)
	if recorded == 0 && rounds >= 20 {
		t.Error("no delivery that the far side left unanswered was recorded as Unsure")
	}
	t.Logf("%d kills in a write, %d beside one; %d parcels acknowledged, %d of them missing", counted, idle, len(l.acked), l.missing())
	t.Logf("%d came twice: %d unanswered by the far side (%d seen recorded as Unsure at a kill), %d in the window between its answer and the write of the outcome, the oldest answered %v before the kill",
		doubles, doubles-inWindow, recorded, inWindow, widest.Round(10*time.Microsecond))
}

func anyOf(m map[parcel]bool) (p parcel) {
	for p = range m {
		break
	}
	return p
}

// missing counts what was acknowledged and has not come.
func (l *ledger) missing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for p := range l.acked {
		if len(l.took[p]) == 0 {
			n++
		}
	}
	return n
}

// kill is what is known of one.
type kill struct {
	at   time.Time
	left map[parcel]bool
}

// judge checks every parcel. widest is how long before a kill an answer was
// given whose outcome was not written; 0 or less if the kill came first.
func (l *ledger) judge(t *testing.T, kills map[int]kill) (doubles, inWindow int, widest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.acked {
		if len(l.took[p]) == 0 {
			t.Errorf("%v was acknowledged and is lost", p)
		}
	}
	for p, all := range l.took {
		for i, k := range all[:len(all)-1] {
			doubles++
			end := kills[k.round]
			switch {
			case k.dropped:
			case end.left[p] && all[i+1].round > k.round:
				inWindow++
				widest = max(widest, end.at.Sub(k.at))
			default:
				t.Errorf("%v was sent again though its outcome had been written: %+v", p, all)
			}
		}
	}
	return doubles, inWindow, widest
}

// queued reads what a killed server has left behind: each parcel, and how
// many have an outcome that nobody knows for sure.
func queued(t *testing.T, data string) (left map[parcel]bool, unsure int) {
	t.Helper()
	s, err := diskqueue.Open(filepath.Join(data, "queue"), &diskqueue.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	left = make(map[parcel]bool)
	for e, err := range s.List(t.Context(), queue.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Open(t.Context(), e.Message)
		if err != nil {
			t.Fatalf("message %v: %v", e.Message.ID, err)
		}
		text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		b.Close()
		id, ok := parseLoad(text)
		if err != nil || !ok {
			t.Fatalf("message %v is damaged: %v", e.Message.ID, err)
		}
		for i, to := range e.Envelope.To {
			left[parcel{id, to.Address.String()}] = true
			var reply *smtp.Error
			if i < len(e.Last) && errors.As(e.Last[i].Err, &reply) && reply.Unsure {
				unsure++
			}
		}
	}
	r, err := s.Check(t.Context())
	if err != nil || len(r.Problems) > 0 {
		t.Errorf("after a kill: %v, %v", r.Problems, err)
	}
	return left, unsure
}
