package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/store"
)

// source is a body that misbehaves.
type source struct {
	data   string
	size   int64 // what it says; less or more than there is
	failAt int64 // it cannot be read from here on; 0 = it can
	// at is called once, before anything behind this offset is read.
	hook int64
	at   func()
	once sync.Once
}

var errRead = errors.New("storetest: this body cannot be read to its end")

func (s *source) Size() int64 { return s.size }

func (s *source) ReadAt(b []byte, off int64) (int, error) {
	if s.at != nil && off+int64(len(b)) > s.hook {
		s.once.Do(s.at)
	}
	end := int64(len(s.data))
	err := io.EOF
	if s.failAt > 0 {
		end, err = s.failAt, errRead
	}
	if off >= end {
		return 0, err
	}
	n := copy(b, s.data[off:end])
	if n < len(b) {
		return n, err
	}
	return n, nil
}

// sources are bodies of n octets that no store can take.
func sources(n int) map[string]func() *source {
	data, size := strings.Repeat("0123456789abcde\n", n/16+1)[:n], int64(n)
	return map[string]func() *source{
		"fails in the middle":        func() *source { return &source{data: data, size: size, failAt: size / 2} },
		"fails at its last octet":    func() *source { return &source{data: data, size: size, failAt: size - 1} },
		"ends in the middle":         func() *source { return &source{data: data[:n/2], size: size} },
		"ends before its last octet": func() *source { return &source{data: data[:n-1], size: size} },
	}
}

// Sizes of a body that a store keeps beside its message, and of one that it
// keeps elsewhere.
var bodySizes = []int{64, 400_000}

func lawBodies(p *probe) {
	in := store.Inbox
	p.fill(p.a, in, 3)
	state := func() string {
		m := p.mailbox(p.b, in)
		s := fmt.Sprintf("UIDNext %d, ModSeq %d, %+v", m.UIDNext, m.ModSeq, m.Counts)
		for _, m := range p.list(p.b, in, store.Query{}) {
			s += fmt.Sprintf("; UID %d %s", m.UID, m.ID)
		}
		return s
	}
	was := state()
	nothing := func(what string) {
		if is := state(); is != was {
			p.fatalf("%s left something:\n%s\nwas\n%s", what, is, was)
		}
	}
	for _, n := range bodySizes {
		for name, bad := range sources(n) {
			what := fmt.Sprintf("Append of a body of %d octets that %s", n, name)
			refused := func(what string, d []store.Draft, o store.AppendOptions) {
				_, err := p.a.Append(p.ctx, in, d, o)
				want := io.ErrUnexpectedEOF
				if strings.HasPrefix(name, "fails") {
					want = errRead
				}
				p.want(err, want, what)
				nothing(what)
			}
			refused(what, []store.Draft{{Body: bad()}}, store.AppendOptions{})
			refused(what+", behind a head", []store.Draft{{Head: []byte("X: y\r\n"), Body: bad(), MessageID: "x@example.org"}}, store.AppendOptions{})
			refused(what+", between two good ones", []store.Draft{text("one"), {Body: bad()}, text("three")}, store.AppendOptions{})
			var o store.AppendOptions
			o.Replace.Box, o.Replace.UID = in, 2
			refused(what+" instead of another", []store.Draft{{Body: bad()}}, o)
		}
	}
	p.bodyTooLong(in)
	p.cancelled(in)
	p.stagedEnds(in)
	p.badDeliveries()
	for _, n := range bodySizes {
		p.slowBody(in, n)
	}
}

// bodyTooLong: a body is as long as it says, whatever comes behind.
func (p *probe) bodyTooLong(in store.MailboxID) {
	for _, n := range bodySizes {
		long := &source{data: strings.Repeat("x", n+500), size: int64(n)}
		uid := p.append(p.a, in, store.Draft{Body: long}).First()
		m := p.message(p.b, in, uid, 0)
		if got := p.read(p.b, m); m.Size != int64(n) || len(got) != n {
			p.errorf("a body says that it has %d octets, and more can be read: the message has Size %d and %d octets", n, m.Size, len(got))
		}
		p.expunge(p.a, in, store.UIDs(uid))
	}
}

// cancelled has the context end while a body is read.
func (p *probe) cancelled(in store.MailboxID) {
	for _, n := range bodySizes {
		was := p.mailbox(p.b, in)
		ctx, cancel := context.WithCancel(p.ctx)
		b := &source{data: strings.Repeat("x", n), size: int64(n), hook: int64(n / 2), at: cancel}
		r, err := p.a.Append(ctx, in, []store.Draft{{Body: b}, text("y")}, store.AppendOptions{})
		cancel()
		is := p.mailbox(p.b, in)
		switch added := is.Counts.Messages - was.Counts.Messages; {
		case err == nil && (added != 2 || len(r.Messages) != 2), err != nil && added != 0 && added != 2:
			p.errorf("a context that ended while a body of %d octets was read: error %v, %d of 2 messages appended", n, err, added)
		}
	}
}

// stagedEnds: what was staged and closed is gone, and cannot be appended.
func (p *probe) stagedEnds(in store.MailboxID) {
	for _, n := range bodySizes {
		for _, hint := range []int64{-1, 10, int64(n), int64(10 * n)} {
			st, err := store.Stage(p.ctx, p.one, hint)
			p.ok(err, "Stage")
			for range n / 8 {
				_, err = io.WriteString(st, "abcdefgh")
				p.ok(err, "writing a staged body")
			}
			if hint == 10 { // the sender went away
				was := p.mailbox(p.b, in)
				p.ok(st.Close(), "Close of a staged body")
				if _, err := p.a.Append(p.ctx, in, []store.Draft{text("x"), {Body: st}}, store.AppendOptions{}); err == nil && st.Size() > 0 {
					p.errorf("a staged body of %d octets was appended after its Close", n)
				} else if is := p.mailbox(p.b, in); err != nil && is.Counts != was.Counts {
					p.errorf("an Append of a closed staged body failed (%v) and left %+v, was %+v", err, is.Counts, was.Counts)
				}
				continue
			}
			uid := p.append(p.a, in, store.Draft{Body: st}).First()
			p.ok(st.Close(), "Close of a staged body")
			m := p.message(p.b, in, uid, 0)
			if got := p.read(p.b, m); got != strings.Repeat("abcdefgh", n/8) {
				p.errorf("a staged body of %d octets, announced as %d, came out with %d", n, hint, len(got))
			}
			p.expunge(p.a, in, store.UIDs(uid))
		}
	}
}

// badDeliveries: a body that fails is delivered to nobody, and its name is not
// used up.
func (p *probe) badDeliveries() {
	if _, ok := p.one.(store.Admin); !ok || p.cfg.Account != "" {
		return
	}
	ids := []string{"one", "two", "three"}
	for _, id := range ids {
		p.create(id)
	}
	round := 0
	for _, n := range bodySizes {
		for name, bad := range sources(n) {
			round++
			var targets []store.Target
			for _, id := range ids {
				targets = append(targets, store.Target{Account: id, Head: []byte("Delivered-To: " + id + "\r\n"), Once: fmt.Sprintf("%d/%s", round, id)})
			}
			what := fmt.Sprintf("Deliver of a body of %d octets that %s", n, name)
			for i, err := range store.Deliver(p.ctx, p.one, store.Draft{Body: bad()}, targets) {
				if err == nil {
					p.errorf("%s gave no error for %s", what, ids[i])
				}
			}
			for _, id := range ids {
				if got := p.uids(p.handle(p.two, id), store.Inbox); got.Count() != int64(round-1) {
					p.fatalf("%s left something with %s", what, id)
				}
			}
			for i, err := range store.Deliver(p.ctx, p.one, text("good"), targets) {
				if err != nil {
					p.errorf("%s, and then of one that can be read: %s: %v", what, ids[i], err)
				}
			}
			for _, id := range ids {
				if got := p.uids(p.handle(p.two, id), store.Inbox); got.Count() != int64(round) {
					p.fatalf("%s, and then of one that can be read, under the same name: %s has %d messages, want %d", what, id, got.Count(), round)
				}
			}
		}
	}
}

// slowBody appends a body that stands still in its middle: nobody waits for
// it, and its UID comes after those that were given meanwhile.
func (p *probe) slowBody(in store.MailboxID, n int) {
	reached, goOn := make(chan struct{}), make(chan struct{})
	slow := &source{data: strings.Repeat("s", n), size: int64(n), hook: int64(n / 2), at: func() {
		close(reached)
		<-goOn
	}}
	var release sync.Once
	resume := func() { release.Do(func() { close(goOn) }) }
	defer resume()
	var r store.Appended
	done := make(chan error, 1)
	go func() {
		var err error
		r, err = p.a.Append(p.ctx, in, []store.Draft{text("before"), {Body: slow}}, store.AppendOptions{})
		done <- err
	}()
	select {
	case <-reached:
	case err := <-done:
		p.fatalf("Append of a slow body ended before it was read: %v", err)
	case <-p.ctx.Done():
		p.fatalf("a slow body was not read")
	}
	last := store.UID(0)
	others := make(chan error, 1)
	go func() {
		others <- func() error {
			for _, acc := range []store.Account{p.a, p.b} {
				got, err := acc.Append(p.ctx, in, []store.Draft{text("quick")}, store.AppendOptions{})
				if err != nil {
					return err
				}
				last = got.Messages[0].UID
				u := store.UIDs(last)
				_, err = acc.SetFlags(p.ctx, in, u, store.FlagOp{Flags: store.NewFlags(store.Seen)})
				if err == nil {
					_, err = acc.Copy(p.ctx, in, u, in, store.CopyOptions{})
				}
				if err == nil {
					_, err = acc.Expunge(p.ctx, in, u, store.ExpungeOptions{})
				}
				if err == nil {
					_, err = p.tryMailbox(acc, in)
				}
				if err == nil {
					_, err = p.tryList(acc, in, store.Query{})
				}
				if err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	select {
	case err := <-others:
		p.ok(err, "calls while a body is slow")
	case <-time.After(p.timeout() / 6):
		resume()
		<-others
		p.fatalf("others wait for a body of %d octets that is slow", n)
	}
	resume()
	p.ok(<-done, "Append of a slow body")
	if len(r.Messages) != 2 || r.Messages[0].UID <= last {
		p.fatalf("a slow Append got %+v; UID %d was given while it went on", r.Messages, last)
	}
	if got := p.read(p.b, p.message(p.b, in, r.Messages[1].UID, 0)); got != slow.data {
		p.errorf("of a slow body of %d octets %d came out", n, len(got))
	}
}

// lawSweep looks at what is left behind, and at what is taken too early.
func lawSweep(p *probe) {
	if p.cfg.Sweep == nil {
		p.skipf("Config.Sweep is not set")
	}
	in := store.Inbox
	box := p.newBox(p.a, "box")
	sweep := func() int64 {
		n, err := p.cfg.Sweep(p.one)
		p.ok(err, "Sweep")
		return n
	}
	empty := func(what string) {
		p.expunge(p.a, in, store.AllUIDs())
		p.expunge(p.a, box, store.AllUIDs())
		if n := sweep(); n != 0 {
			p.fatalf("%s: all messages are expunged, and after a sweep %d bodies are kept", what, n)
		}
	}
	big := strings.Repeat("0123456789abcdef", 25_000)
	p.append(p.a, in, text("small"), text(big))
	_, err := p.a.Copy(p.ctx, in, store.AllUIDs(), box, store.CopyOptions{})
	p.ok(err, "Copy")
	if n := sweep(); n == 0 {
		p.fatalf("there are messages, and Sweep says that no body is kept")
	}
	empty("copies")

	// What failed leaves nothing.
	for _, n := range bodySizes {
		for name, bad := range sources(n) {
			if _, err := p.a.Append(p.ctx, in, []store.Draft{text("good"), text(big), {Body: bad()}}, store.AppendOptions{}); err == nil {
				p.errorf("Append of a body that %s gave no error", name)
			}
		}
		st, err := store.Stage(p.ctx, p.one, -1)
		p.ok(err, "Stage")
		_, err = st.Write([]byte(big[:n]))
		p.ok(err, "writing a staged body")
		p.ok(st.Close(), "Close of a staged body")
	}
	empty("bodies that failed, and were staged in vain")

	// A slow reader of what is expunged; then it is gone.
	p.append(p.a, in, text(big))
	m := p.message(p.a, in, p.uids(p.a, in).First(), 0)
	b, err := p.a.Open(p.ctx, m)
	p.ok(err, "Open")
	var got []byte
	buf := make([]byte, 50_000)
	for off := int64(0); off < m.Size; off += int64(len(buf)) {
		n, err := b.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			p.fatalf("a reader of a message that was expunged and swept: %v after %d octets", err, off)
		}
		got = append(got, buf[:n]...)
		if off == 0 {
			p.expunge(p.b, in, store.AllUIDs())
		}
		sweep()
	}
	if string(got) != big {
		p.errorf("a reader of a message that was expunged and swept got %d octets, want %d", len(got), len(big))
	}
	p.ok(b.Close(), "Close of a Blob")
	empty("a slow reader")
	_, err = p.b.Open(p.ctx, m)
	p.want(err, store.ErrNotExist, "Open of a message after its grace")

	// Whoever stages, streams or links while it is swept loses nothing.
	st, err := store.Stage(p.ctx, p.one, -1)
	p.ok(err, "Stage")
	_, err = io.WriteString(st, big)
	p.ok(err, "writing a staged body")
	sweep()
	staged := p.append(p.a, in, store.Draft{Body: st})
	p.ok(st.Close(), "Close of a staged body")
	slow := &source{data: big, size: int64(len(big)), hook: int64(len(big) / 2), at: func() { p.cfg.Sweep(p.one) }}
	streamed := p.append(p.a, in, store.Draft{Body: slow})
	sweep()
	for u := range staged.Union(streamed).All() {
		if got := p.read(p.b, p.message(p.b, in, u, 0)); got != big {
			p.errorf("a body that was swept while it came in has %d octets, want %d", len(got), len(big))
		}
	}
	b, err = p.a.Open(p.ctx, p.message(p.a, in, staged.First(), 0))
	p.ok(err, "Open")
	p.expunge(p.a, in, staged)
	sweep()
	_, err = p.b.Append(p.ctx, box, []store.Draft{{Body: b}}, store.AppendOptions{})
	p.ok(err, "Append of a Blob whose message is expunged and swept")
	p.ok(b.Close(), "Close of a Blob")
	sweep()
	if got := p.read(p.b, p.message(p.b, box, p.uids(p.b, box).Last(), 0)); got != big {
		p.errorf("a body that was linked after its message was swept has %d octets, want %d", len(got), len(big))
	}
	empty("links")
	p.sweepRace(in, box)
	empty("a race with the sweep")
}

// sweepRace has writers link, copy and expunge beside a sweep that never
// rests: each message that is listed can be read.
func (p *probe) sweepRace(in, box store.MailboxID) {
	done := make(chan struct{})
	var sweeps sync.WaitGroup
	sweeps.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := p.cfg.Sweep(p.one); err != nil {
				p.errorf("Sweep: %v", err)
				return
			}
		}
	})
	p.together(4, func(i int) error {
		acc := p.a
		if i%2 == 1 {
			acc = p.b
		}
		rnd := rand.New(rand.NewPCG(7, uint64(i)))
		for n := range max(p.rounds()/10, 20) {
			body := strings.Repeat(fmt.Sprintf("%d/%d ", i, n), 1+rnd.IntN(100))
			r, err := acc.Append(p.ctx, in, []store.Draft{text(body)}, store.AppendOptions{})
			if err != nil {
				return err
			}
			b, err := acc.Open(p.ctx, r.Messages[0])
			if err != nil {
				return err
			}
			if rnd.IntN(2) == 0 {
				if _, err := acc.Expunge(p.ctx, in, store.UIDs(r.Messages[0].UID), store.ExpungeOptions{}); err != nil {
					return err
				}
			}
			_, err = acc.Append(p.ctx, box, []store.Draft{{Head: []byte("X: y\r\n"), Body: b}}, store.AppendOptions{})
			b.Close()
			if err != nil {
				return fmt.Errorf("linking a body whose message may be expunged: %w", err)
			}
		}
		return nil
	})
	close(done)
	sweeps.Wait()
	p.readable(in)
	p.readable(box)
}

// readable reads all messages of a mailbox.
func (p *probe) readable(box store.MailboxID) {
	for _, m := range p.list(p.b, box, store.Query{}) {
		b, err := p.b.Open(p.ctx, m)
		if err != nil {
			p.fatalf("UID %d is there and cannot be opened: %v", m.UID, err)
		}
		_, err = readBody(b)
		b.Close()
		if err != nil {
			p.fatalf("UID %d is there and cannot be read: %v", m.UID, err)
		}
	}
}

// lawDamage: a body that cannot be read is told as such, and only there.
func lawDamage(p *probe) {
	if p.cfg.Damage == nil {
		p.skipf("Config.Damage is not set")
	}
	in := store.Inbox
	body := func(uid store.UID) string {
		return strings.Repeat(fmt.Sprintf("body of UID %d\n", uid), 1+int(uid%2)*25_000)
	}
	var d []store.Draft
	for uid := store.UID(1); uid <= 8; uid++ {
		d = append(d, store.Draft{Body: bytes.NewReader([]byte(body(uid))), Summary: []byte("summary"), MessageID: fmt.Sprint(uid)})
	}
	p.append(p.a, in, d...)
	bad := store.UIDs(2, 3, 4, 5)
	for u := range bad.All() {
		p.ok(p.cfg.Damage(p.one, p.account, p.message(p.a, in, u, 0), u > 3), "Damage")
	}
	all := store.WithDates | store.WithIDs | store.WithSummary | store.WithBody
	for _, acc := range []store.Account{p.a, p.b} {
		seen := store.UIDSet{}
		for m, err := range acc.Messages(p.ctx, in, store.Query{Fields: all}) {
			if err != nil {
				p.fatalf("Messages of a mailbox with damaged bodies: %v", err)
			}
			seen.Add(m.UID)
			if m.Body == nil {
				continue
			}
			switch got, err := readBody(m.Body); {
			case bad.Contains(m.UID) && err == nil:
				p.errorf("the damaged body of UID %d came with Messages, with %d octets and no error", m.UID, len(got))
			case !bad.Contains(m.UID) && (err != nil || got != body(m.UID)):
				p.errorf("the body of UID %d, beside damaged ones: %d octets, %v", m.UID, len(got), err)
			}
		}
		p.equalSet("Messages of a mailbox with damaged bodies gives UIDs", seen, "1:8")
		for uid := store.UID(1); uid <= 8; uid++ {
			m := p.message(acc, in, uid, 0)
			b, err := acc.Open(p.ctx, m)
			got := ""
			if err == nil {
				got, err = readBody(b)
				b.Close()
			}
			switch {
			case bad.Contains(uid):
				p.want(err, store.ErrDamaged, fmt.Sprintf("reading UID %d, whose body is damaged (%d octets came)", uid, len(got)))
			case err != nil || got != body(uid):
				p.errorf("UID %d, beside damaged ones: %d octets, %v", uid, len(got), err)
			}
		}
	}
	// The rest of life goes on.
	p.setFlags(p.a, in, store.AllUIDs(), store.AddFlags, store.NewFlags(store.Flagged))
	p.fill(p.b, in, 1)
	p.expunge(p.a, in, bad)
	p.equalSet("after damaged messages are expunged there are UIDs", p.uids(p.b, in), "1,6:9")
	p.readable(in)
}
