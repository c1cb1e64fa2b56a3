package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
)

// killLease is short, so that leases end during the test.
const killLease = 2 * time.Second

// killRounds is how often something is killed: POSTRIDER_KILLS=50 is the long
// form.
func killRounds(t *testing.T) int {
	s := os.Getenv("POSTRIDER_KILLS")
	if s == "" {
		return 3
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("POSTRIDER_KILLS=%q is no number", s)
	}
	return n
}

// TestKill kills nodes, and PostgreSQL itself, at random moments under load,
// beside a far side that fails at random, and holds what came against what was
// promised:
//
//   - nothing that was acknowledged is lost, in or out;
//   - what comes in is there once, under UIDs that ascend, in the order in
//     which anybody can see them;
//   - what goes out comes twice only if the far side left it unanswered, or
//     if the outcome was not written when something was killed;
//   - no two nodes ever have the same entry in their hands.
//
// The promises are kept by this process, synced, which nobody kills.
func TestKill(t *testing.T) {
	rounds := killRounds(t)
	t.Run("2 nodes", func(t *testing.T) { killing(t, 2, rounds) })
	t.Run("4 nodes", func(t *testing.T) { killing(t, 4, max(rounds-1, 1)) })
}

func killing(t *testing.T, nodes, rounds int) {
	r := newTrial(t, nodes)
	killedNodes, killedPG := 0, 0
	for round := range rounds {
		r.more(40)
		<-time.After(rand.N(300 * time.Millisecond)) // the moment is random
		victim := rand.IntN(nodes + 1)
		if round < 3 { // each kind at least once
			victim = [...]int{0, nodes, 1}[round]
		}
		began := time.Now()
		if victim == nodes && r.c.pg != nil {
			killedPG++
			if err := r.c.pg.crash(); err != nil {
				t.Fatal(err)
			}
			<-time.After(rand.N(500 * time.Millisecond))
			if err := r.c.pg.start(); err != nil {
				t.Fatal(err)
			}
		} else {
			killedNodes++
			r.running[victim%nodes].Load().kill()
			// Back before its leases end, or after.
			<-time.After(rand.N(killLease + killLease/2))
			r.restart(victim % nodes)
		}
		r.l.disturbed(began, time.Now())
	}
	r.more(40)
	r.finish()
	t.Logf("%d kills of nodes, %d of PostgreSQL", killedNodes, killedPG)
}

// trial is a cluster under load.
type trial struct {
	*testing.T
	l        *ledger
	c        *cluster
	running  []atomic.Pointer[process]
	stopLoad func()
	load     func()
}

func newTrial(t *testing.T, nodes int) *trial {
	l := newLedger(t)
	args := append([]string{"-lease", killLease.String(), "-retry", "50ms"}, l.listen(t)...)
	c, err := newCluster(t.Context(), "", args...)
	skipWithout(t, err)
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	c.auditLeases(t)
	r := &trial{T: t, l: l, c: c, running: make([]atomic.Pointer[process], nodes), stopLoad: func() {}}
	for i := range r.running {
		p, err := c.start(string(rune('a'+i)), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.running[i].Store(p)
	}
	t.Cleanup(func() {
		r.stopLoad()
		for i := range r.running {
			r.running[i].Load().kill()
		}
	})
	sessions := 0
	// Each node gets mail from users and from the world.
	r.load = func() {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 8 {
			session := fmt.Sprintf("s%d", sessions)
			sessions++
			wg.Go(func() { l.load(ctx, c, &r.running[i%nodes], session, i%4 < 2) })
		}
		wg.Go(func() { l.observe(ctx, c) })
		r.stopLoad = func() {
			cancel()
			wg.Wait()
		}
	}
	r.load()
	return r
}

// restart starts a node that was killed.
func (r *trial) restart(i int) {
	r.Helper()
	before := r.running[i].Load()
	p, err := r.c.start(before.name, before)
	if err != nil {
		r.Fatal(err)
	}
	r.running[i].Store(p)
}

func (r *trial) settle(what string, d time.Duration, ok func() bool) {
	r.Helper()
	for until := time.Now().Add(d); !ok(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(until) {
			r.Fatalf("%s: not within %v; %s", what, d, r.l.sum())
		}
	}
}

// more waits until so many more messages are acknowledged.
func (r *trial) more(n int) {
	r.Helper()
	before := r.l.acknowledged()
	r.settle("mail goes on", time.Minute, func() bool { return r.l.acknowledged() >= before+n })
}

// finish ends the load and all else, and judges.
func (r *trial) finish() {
	r.Helper()
	r.stopLoad()
	// What is left is delivered, once the far side is well.
	r.l.well.Store(true)
	r.settle("all of it is delivered", 3*time.Minute, func() bool { return r.l.missing() == 0 })
	r.settle("the queue is empty", time.Minute, func() bool {
		var n int
		err := r.c.db.QueryRow(r.Context(), `SELECT count(*) FROM `+r.c.table("queue_entries")).Scan(&n)
		return err == nil && n == 0
	})
	for i := range r.running {
		if err := r.running[i].Load().stop(); err != nil {
			r.Error(err)
		}
	}
	var stolen int
	if err := r.c.db.QueryRow(r.Context(), `SELECT count(*) FROM `+r.c.table("stolen")).Scan(&stolen); err != nil || stolen > 0 {
		r.Errorf("%d entries went from owner to owner, %v", stolen, err)
	}
	arrived := r.l.judgeIn(r.T, r.c)
	doubles, unanswered := r.l.judgeOut(r.T, r.c)
	r.Logf("%s; %d messages in INBOX; %d deliveries made twice, of them %d that the far side left unanswered", r.l.sum(), arrived, doubles, unanswered)
}

// auditLeases has PostgreSQL note each entry that is taken out of somebody's
// hands without being free in between.
func (c *cluster) auditLeases(t *testing.T) {
	t.Helper()
	sql := strings.NewReplacer("{stolen}", c.table("stolen"), "{note}", c.table("note_stolen"), "{entries}", c.table("queue_entries")).Replace(`
		CREATE TABLE {stolen} (entry uuid, before text, after text);
		CREATE FUNCTION {note}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO {stolen} VALUES (old.id, old.owner, new.owner); RETURN new; END $$;
		CREATE TRIGGER note_stolen AFTER UPDATE ON {entries} FOR EACH ROW
			WHEN (old.owner IS NOT NULL AND new.owner IS NOT NULL AND (old.owner <> new.owner OR old.token <> new.token))
			EXECUTE FUNCTION {note}()`)
	conn, err := c.db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Conn().PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// took is that the far side took a message.
type took struct {
	at      time.Time
	dropped bool // it cut the connection in place of an answer
}

// ledger is what was promised, and the far side, where it came to.
type ledger struct {
	mu    sync.Mutex
	file  *os.File
	in    map[string]bool // messages for bob; false = no answer came
	out   map[string]bool // for the far side
	took  map[string][]took
	queue map[string]string // their names in the queue
	hands map[string]string // who is delivering what just now
	times [][2]time.Time    // something was killed, and was back
	fault []string
	names map[store.UID]string // of bob's messages, for ever
	twice int                  // UIDs that came to mean another message
	redo  map[string]bool      // deliveries that were forgotten, by the name in the queue

	well  atomic.Bool // the far side has no more faults
	conns sync.Map    // remote address to net.Conn
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "acknowledged"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &ledger{file: file, in: map[string]bool{}, out: map[string]bool{}, took: map[string][]took{}, queue: map[string]string{}, hands: map[string]string{},
		names: map[store.UID]string{}, redo: map[string]bool{}}
}

// ack notes a promise before anything else is done.
func (l *ledger) ack(of map[string]bool, id string, answered bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	of[id] = answered
	if !answered {
		return nil
	}
	if _, err := fmt.Fprintln(l.file, id); err != nil {
		return err
	}
	return l.file.Sync()
}

func (l *ledger) wrong(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.fault) < 20 {
		l.fault = append(l.fault, fmt.Sprintf(format, args...))
	}
}

func (l *ledger) disturbed(began, ended time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = append(l.times, [2]time.Time{began, ended})
}

func answered(m map[string]bool) (n int) {
	for _, ok := range m {
		if ok {
			n++
		}
	}
	return n
}

func (l *ledger) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return answered(l.in) + answered(l.out)
}

// missing counts what was acknowledged and has not come.
func (l *ledger) missing() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, ok := range l.out {
		if ok && len(l.took[id]) == 0 {
			n++
		}
	}
	return n
}

func (l *ledger) sum() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("acknowledged %d in and %d out, unanswered %d and %d", answered(l.in), answered(l.out), len(l.in)-answered(l.in), len(l.out)-answered(l.out))
}

// load sends messages to a node, in one session after the other, whatever
// happens to it.
func (l *ledger) load(ctx context.Context, c *cluster, node *atomic.Pointer[process], session string, in bool) {
	d := smtpclient.Dialer{Hello: "client.test", TLS: &tls.Config{RootCAs: c.roots}}
	of, from := l.out, alice
	if in {
		of, from = l.in, "world@far.test"
	}
	for n := 0; ctx.Err() == nil; <-time.After(20 * time.Millisecond) {
		p := node.Load()
		target := smtpclient.Target{Addr: p.addr["submissions"], Name: p.host, ImplicitTLS: true, Auth: &smtpclient.Auth{User: alice, Password: c.password}}
		if in {
			target = smtpclient.Target{Addr: p.addr["smtp"], Name: p.host}
		}
		conn, err := d.Dial(ctx, target)
		for ; err == nil && ctx.Err() == nil; n++ {
			id := fmt.Sprintf("%s-%d", session, n)
			to := bob
			if !in {
				to = fmt.Sprintf("%s@%c.far.test", id, 'a'+rune(rand.IntN(8)))
			}
			env := &smtp.Envelope{}
			env.From, _ = smtp.ParseAddress(from)
			rcpt, _ := smtp.ParseAddress(to)
			env.To = []smtp.Recipient{{Address: rcpt}}
			size := rand.IntN(4000)
			if rand.IntN(50) == 0 {
				size = 200_000 // not in the row of the message
			}
			err = conn.Send(ctx, env, strings.NewReader(loadText(id, size)))[0].Err
			if ferr := l.ack(of, id, err == nil); ferr != nil {
				l.wrong("%v", ferr)
			}
		}
		var reply *smtp.Error
		if errors.As(err, &reply) && reply.Code >= 500 && ctx.Err() == nil { // it may be cut or put off, not refused
			l.wrong("session %s: %v", session, err)
		}
		if conn != nil {
			conn.Close()
		}
	}
}

// observe looks at bob's INBOX all the time, as a node of its own: what it has
// not seen yet must have a greater UID than all it has seen.
func (l *ledger) observe(ctx context.Context, c *cluster) {
	mail, err := pgstore.Open(ctx, c.db, pgstore.Options{Schema: c.schema, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		l.wrong("%v", err)
		return
	}
	defer mail.Close()
	seen := map[store.UID]bool{}
	var last store.UID
	for ; ctx.Err() == nil; <-time.After(20 * time.Millisecond) {
		acc, err := mail.Account(ctx, bob)
		if err != nil {
			continue // PostgreSQL is away
		}
		highest := last
		for m, err := range acc.Messages(ctx, store.Inbox, store.Query{Fields: store.WithIDs}) {
			if err != nil {
				break
			}
			l.mu.Lock()
			if was, known := l.names[m.UID]; known && was != m.ID {
				l.twice++
			}
			l.names[m.UID] = m.ID
			l.mu.Unlock()
			if !seen[m.UID] && m.UID <= last {
				l.wrong("UID %d appeared after %d", m.UID, last)
			}
			seen[m.UID], highest = true, max(highest, m.UID)
		}
		last = highest
	}
}

// inbox reads bob's INBOX: which messages are there how often, and the last
// UID.
func (c *cluster) inbox(t *testing.T) (there map[string]int, last store.UID) {
	t.Helper()
	mail, err := pgstore.Open(t.Context(), c.db, pgstore.Options{Schema: c.schema, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer mail.Close()
	acc, err := mail.Account(t.Context(), bob)
	if err != nil {
		t.Fatal(err)
	}
	there = map[string]int{}
	for m, err := range acc.Messages(t.Context(), store.Inbox, store.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if m.UID <= last {
			t.Errorf("UID %d after %d", m.UID, last)
		}
		last = m.UID
		b, err := acc.Open(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		b.Close()
		id, whole := parseLoad(text)
		if err != nil || !whole {
			t.Errorf("UID %d is not what was sent: %q, %v", m.UID, id, err)
		}
		there[id]++
	}
	return there, last
}

// judgeIn holds bob's INBOX against what was promised.
func (l *ledger) judgeIn(t *testing.T, c *cluster) (arrived int) {
	t.Helper()
	there, _ := c.inbox(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, ok := range l.in {
		if n := there[id]; n > 1 || ok && n == 0 {
			t.Errorf("%s, acknowledged: %v, is there %d times", id, ok, n)
		}
	}
	for id := range there {
		if _, sent := l.in[id]; !sent {
			t.Errorf("%q is there, and nobody sent it", id)
		}
		arrived += there[id]
	}
	return arrived
}

// judgeOut holds what the far side took against what was promised, and against
// the nodes' logs: they tell of a delivery once its outcome is stored.
func (l *ledger) judgeOut(t *testing.T, c *cluster) (doubles, unanswered int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	delivered := map[string]time.Time{} // by the name in the queue
	logs, err := filepath.Glob(filepath.Join(c.dir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal("the nodes have no logs")
	}
	for _, name := range logs {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for sc := bufio.NewScanner(f); sc.Scan(); {
			var at, id string
			for _, w := range strings.Fields(sc.Text()) {
				if v, ok := strings.CutPrefix(w, "time="); ok {
					at = v
				} else if v, ok := strings.CutPrefix(w, "message="); ok {
					id = v
				}
			}
			if !strings.Contains(sc.Text(), "msg=delivered ") {
				continue
			}
			when, err := time.Parse(time.RFC3339Nano, at)
			if err != nil {
				t.Fatal(err)
			}
			before, twice := delivered[id]
			if twice && !l.redo[id] {
				t.Errorf("%s was stored as delivered twice", id)
			}
			if when.After(before) { // what was forgotten does not count
				delivered[id] = when
			}
		}
		f.Close()
	}
	for _, f := range l.fault {
		t.Error(f)
	}
	for id, ok := range l.out {
		if ok && len(l.took[id]) == 0 {
			t.Errorf("%s was acknowledged and is lost", id)
		}
	}
	told := 0
	for id, all := range l.took {
		if _, known := delivered[l.queue[id]]; known {
			told++
		}
		if _, sent := l.out[id]; !sent {
			t.Errorf("%q came, and nobody sent it", id)
		}
		for i, k := range all[:len(all)-1] {
			doubles++
			next := all[i+1].at
			stored, known := delivered[l.queue[id]]
			switch {
			case known && stored.Add(5*time.Millisecond).Before(next):
				t.Errorf("%s was sent again %v after its outcome had been stored", id, next.Sub(stored))
			case k.dropped:
				unanswered++
			case !slices.ContainsFunc(l.times, func(w [2]time.Time) bool { return w[0].Before(next) && w[1].After(k.at.Add(-time.Second)) }):
				t.Errorf("%s was sent again though nothing was killed: %v, then %v", id, k.at, next)
			}
		}
	}
	if told < len(l.took)/2 {
		t.Errorf("the logs tell of %d deliveries only, of %d", told, len(l.took))
	}
	return doubles, unanswered
}

// listen serves the domains a.far.test to h.far.test until the test ends, and
// returns what a node needs to find it.
func (l *ledger) listen(t *testing.T) []string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &smtpserver.Server{Backend: l, Hostname: "mx.far.test", MaxConnectionsPerIP: -1, Log: slog.New(slog.DiscardHandler)}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(&noting{ln, l}) })
	t.Cleanup(func() { srv.Close(); wg.Wait() })
	zone := mxtest.Zone{"mx.far.test": {"A 127.0.0.1"}}
	for c := 'a'; c <= 'h'; c++ {
		zone[string(c)+".far.test"] = []string{"MX 10 mx.far.test"}
	}
	dns := mxtest.NewDNS(zone)
	addr, err := dns.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	return []string{"-dns", addr, "-mx-port", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)}
}

// noting is a listener that keeps its connections, so that they can be cut.
type noting struct {
	net.Listener
	l *ledger
}

func (n *noting) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		n.l.conns.Store(c.RemoteAddr().String(), c)
	}
	return c, err
}

func (l *ledger) NewSession(_ context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
	return &farSession{l: l, c: c}, nil
}

func (l *ledger) chance(percent int) bool { return !l.well.Load() && rand.IntN(100) < percent }

type farSession struct {
	l  *ledger
	c  *smtpserver.Conn
	id string // of the message that is being delivered
}

var errLater = &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 3, 0}, Text: "Later"}

func (s *farSession) Mail(context.Context, smtp.Address, smtp.MailOptions) error { return nil }

func (s *farSession) Rcpt(_ context.Context, to smtp.Address, _ smtp.RcptOptions) error {
	if s.l.chance(5) {
		return errLater
	}
	s.l.mu.Lock()
	other, held := s.l.hands[to.Local]
	s.l.hands[to.Local] = s.c.Hello()
	s.l.mu.Unlock()
	if held {
		s.l.wrong("%s has %s in its hands, and so has %s", s.c.Hello(), to.Local, other)
	}
	s.id = to.Local
	return nil
}

func (s *farSession) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return smtp.Reply{}, err
	}
	id, whole := parseLoad(text)
	if !whole || id != s.id {
		s.l.wrong("%q came, and it is not what was sent", id)
		return smtp.Reply{}, errLater
	}
	if s.l.chance(5) {
		return smtp.Reply{}, errLater
	}
	if s.l.chance(10) {
		select {
		case <-time.After(rand.N(50 * time.Millisecond)):
		case <-ctx.Done():
		}
	}
	drop, name := s.l.chance(5), queueName(text)
	s.l.mu.Lock()
	s.l.took[id] = append(s.l.took[id], took{time.Now(), drop})
	s.l.queue[id] = name
	s.l.mu.Unlock()
	if drop {
		if c, ok := s.l.conns.Load(s.c.Remote().String()); ok {
			c.(net.Conn).Close()
		}
	}
	return smtp.Reply{}, nil
}

func (s *farSession) Reset() {
	if s.id != "" {
		s.l.mu.Lock()
		delete(s.l.hands, s.id)
		s.l.mu.Unlock()
		s.id = ""
	}
}

func (s *farSession) Close() error {
	s.Reset()
	s.l.conns.Delete(s.c.Remote().String())
	return nil
}

// queueName is what the submitting node called a message, in Received.
func queueName(text []byte) string {
	words := strings.Fields(string(text))
	if i := slices.Index(words, "id"); i >= 0 && i+1 < len(words) {
		return strings.TrimRight(words[i+1], ";")
	}
	return ""
}

// loadText is a message that shows whether all of it came.
func loadText(id string, size int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "From: alice@cluster.example\r\nSubject: load\r\nX-Load: %s\r\n\r\n", id)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%s line %d\r\n", id, i)
	}
	fmt.Fprintf(&b, "end of %s\r\n", id)
	return b.String()
}

// parseLoad reads it, behind whatever was put before.
func parseLoad(text []byte) (id string, whole bool) {
	head, body, _ := strings.Cut(string(text), "\r\n\r\n")
	_, rest, _ := strings.Cut(head, "\r\nX-Load: ")
	rest, _, _ = strings.Cut(rest, "\r\n")
	id = strings.Clone(rest) // it outlives the text
	lines := slices.Collect(strings.Lines(body))
	for i, line := range lines {
		want := fmt.Sprintf("%s line %d\r\n", id, i)
		if i == len(lines)-1 {
			want = fmt.Sprintf("end of %s\r\n", id)
		}
		if line != want {
			return id, false
		}
	}
	return id, id != "" && len(lines) > 0
}
