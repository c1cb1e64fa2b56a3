package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/examples/internal/page"
)

// proof is what the steps hand on to each other.
type proof struct {
	*page.Page
	*cluster
	far   *far
	lease time.Duration
	a, b  *process
	owner map[string]string // of each node's leases, by the node's name
	in    int               // messages for bob that were acknowledged
	out   int               // messages for the far side that were
}

// prove is all of it.
func prove(ctx context.Context, p *page.Page, lease time.Duration, verbose bool) (err error) {
	p.Title("Two mail servers over one PostgreSQL")
	t := &proof{Page: p, lease: lease, owner: map[string]string{}}
	defer func() { err = errors.Join(err, t.close(err != nil)) }()
	if t.far, err = newFar(); err != nil {
		return err
	}
	begin := time.Now()
	args := append([]string{"-lease", lease.String(), "-retry", "200ms"}, t.far.args...)
	if t.cluster, err = newCluster(ctx, "", args...); err != nil {
		return err
	}
	if verbose {
		t.logs = os.Stderr
	}
	where := "the database of " + envDSN
	if t.pg != nil {
		where = "a private PostgreSQL from " + t.pg.bin
	}
	t.Tell("%s, with tables and users: %s", where, page.Span(time.Since(begin)))
	if t.a, err = t.begin(ctx, "a", nil); err != nil {
		return err
	}
	if t.b, err = t.begin(ctx, "b", nil); err != nil {
		return err
	}
	for i, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Mail that comes in at one node is announced by the other", t.announce},
		{"Node a is killed, with a queue for a server that is down", func(ctx context.Context) error { return t.outlive(ctx, &t.a, t.b) }},
		{"Node b is killed likewise", func(ctx context.Context) error { return t.outlive(ctx, &t.b, t.a) }},
		{"PostgreSQL itself is killed", t.crash},
		{"What was acknowledged is there, once", t.reckon},
	} {
		p.Begins(i+1, step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		p.Ends()
	}
	begin = time.Now()
	if err := errors.Join(t.a.stop(), t.b.stop()); err != nil {
		return err
	}
	t.Tell("both nodes ended in order in %s", page.Span(time.Since(begin)))
	return p.Finish("Nothing lost.")
}

// close ends what still runs.
func (t *proof) close(failed bool) error {
	for _, n := range []*process{t.a, t.b} {
		if n != nil {
			n.kill()
		}
	}
	if t.far != nil {
		t.far.close()
	}
	if t.cluster == nil {
		return nil
	}
	if failed {
		for _, name := range []string{"a.log", "b.log"} {
			log, _ := os.ReadFile(filepath.Join(t.dir, name))
			lines := strings.SplitAfter(string(log), "\n")
			fmt.Fprintf(os.Stderr, "the end of %s:\n%s", name, strings.Join(lines[max(len(lines)-30, 0):], ""))
		}
	}
	return t.cluster.close()
}

// begin starts a node and learns who it is in the queue.
func (t *proof) begin(ctx context.Context, name string, before *process) (*process, error) {
	begin := time.Now()
	n, err := t.start(name, before)
	if err != nil {
		return nil, err
	}
	err = t.until(ctx, "the node to work", func() (bool, error) {
		var owner string
		err := t.db.QueryRow(ctx, `SELECT coalesce(max(owner), '') FROM `+t.table("queue_owners")+` WHERE NOT dead AND owner <> ALL($1)`,
			[]string{t.owner["a"], t.owner["b"]}).Scan(&owner)
		if owner != "" {
			t.owner[name] = owner
		}
		return owner != "", err
	})
	if err != nil {
		n.kill()
		return nil, err
	}
	var ports []string
	for _, s := range services {
		ports = append(ports, s+n.addr[s][strings.LastIndexByte(n.addr[s], ':'):])
	}
	t.Tell("node %s, process %d, after %s: %s", name, n.cmd.Process.Pid, page.Span(time.Since(begin)), strings.Join(ports, " "))
	return n, nil
}

// until waits for something to be so.
func (t *proof) until(ctx context.Context, what string, so func() (bool, error)) error {
	for {
		ok, err := so()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// queued counts the entries of the queue that fit a condition: its tables are
// there to be read.
func (t *proof) queued(ctx context.Context, where string, args ...any) (n int, err error) {
	err = t.db.QueryRow(ctx, `SELECT count(*) FROM `+t.table("queue_entries")+` WHERE `+where, args...).Scan(&n)
	return n, err
}

// announce measures how long after mail was accepted at one node a client
// that waits at the other hears of it.
func (t *proof) announce(ctx context.Context) error {
	for _, way := range [][2]*process{{t.a, t.b}, {t.b, t.a}} {
		if err := t.oneWay(ctx, way[0], way[1], 20); err != nil {
			return err
		}
	}
	return nil
}

func (t *proof) oneWay(ctx context.Context, at, other *process, messages int) error {
	w, err := t.watch(ctx, other, bob)
	if err != nil {
		return err
	}
	defer w.close()
	took, err := t.announced(ctx, w, at, messages)
	t.in += len(took)
	if err != nil {
		return err
	}
	t.Check(true, "%d messages in at %s; IDLE at %s told of each within %s, half of them within %s of the 250 (goal: 100 ms)",
		messages, at.name, other.name, page.Span(took[len(took)-1]), page.Span(took[len(took)/2]))
	return nil
}

// submit has alice send messages to the far side.
func (t *proof) submit(ctx context.Context, at *process, messages int) error {
	conn, err := t.submission(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close()
	for range messages {
		if err := send(ctx, conn, alice, friend, fmt.Sprintf("Message %d, by %s", t.out, at.name)); err != nil {
			return err
		}
		t.out++
	}
	return nil
}

// comeIn brings a message for bob.
func (t *proof) comeIn(ctx context.Context, at *process) error {
	conn, err := t.world(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := send(ctx, conn, stranger, bob, "Meanwhile"); err != nil {
		return err
	}
	t.in++
	return nil
}

// outlive kills a node that has mail for a server that is down, some of it in
// its hands. The other one takes all of it over.
func (t *proof) outlive(ctx context.Context, victim **process, heir *process) error {
	const messages = 20
	v := *victim
	t.far.set(shut)
	if err := t.submit(ctx, v, messages); err != nil {
		return err
	}
	err := t.until(ctx, "an attempt", func() (bool, error) {
		n, err := t.queued(ctx, `attempt > 0`)
		return n > 0, err
	})
	if err != nil {
		return err
	}
	n, err := t.queued(ctx, `true`)
	if err != nil {
		return err
	}
	t.Check(n == messages, "%d messages submitted to %s, which %s does not take: they are queued", messages, v.name, farDomain)
	t.far.set(silent)
	holds := 0
	err = t.until(ctx, "deliveries to be under way", func() (bool, error) {
		holds, err = t.queued(ctx, `owner = $1`, t.owner[v.name])
		return holds > 0 && t.far.waits(v.host) > 0, err
	})
	if err != nil {
		return err
	}

	v.kill()
	killed := time.Now()
	if n, err = t.queued(ctx, `true`); err != nil {
		return err
	}
	t.Check(n == messages, "%s is killed with %d deliveries under way; the queue holds %d", v.name, holds, n)
	if err := t.comeIn(ctx, heir); err != nil {
		return err
	}
	uids, err := t.uids(ctx, heir, bob)
	if err != nil {
		return err
	}
	t.Check(len(uids) == t.in, "%s goes on: mail comes in, and its users read all %d messages", heir.name, len(uids))
	err = t.until(ctx, "the leases to end", func() (bool, error) {
		n, err := t.queued(ctx, `owner = $1`, t.owner[v.name])
		return n == 0, err
	})
	if err != nil {
		return err
	}
	took := time.Since(killed)
	// A lease renewed in the moment of the kill ends just after that time.
	t.Check(took < t.lease+t.lease/2, "what %s had in its hands is free for %s %s after the kill; the lease time is %s", v.name, heir.name, page.Span(took), t.lease)

	before := len(t.far.server.Messages())
	t.far.set(open)
	opened := time.Now()
	got := t.far.server.Wait(ctx, before+messages)[before:]
	by := map[string]int{}
	for _, m := range got {
		by[m.Hello]++
	}
	t.Check(len(got) == messages && by[heir.host] == messages, "%s is up; %s has delivered %d messages after %s", farDomain, heir.host, by[heir.host], page.Span(time.Since(opened)))
	if *victim, err = t.begin(ctx, v.name, v); err != nil {
		return err
	}
	if err := t.oneWay(ctx, *victim, heir, 3); err != nil {
		return err
	}
	return t.oneWay(ctx, heir, *victim, 3)
}

// crash kills PostgreSQL. The nodes have no word in it.
func (t *proof) crash(ctx context.Context) error {
	if t.pg == nil {
		t.Tell("left out: it is not ours")
		return nil
	}
	begin := time.Now()
	if err := t.pg.crash(); err != nil {
		return err
	}
	err := t.comeIn(ctx, t.a)
	t.Check(err != nil, "without it mail is put off: %v", err)
	if err := t.pg.start(); err != nil {
		return err
	}
	t.Tell("PostgreSQL is back after %s", page.Span(time.Since(begin)))
	for _, n := range []*process{t.a, t.b} {
		err := t.until(ctx, "mail to be taken", func() (bool, error) {
			return t.submit(ctx, n, 1) == nil, nil
		})
		if err != nil {
			return err
		}
		t.Check(true, "%s takes mail again, %s after the kill", n.name, page.Span(time.Since(begin)))
	}
	return t.announce(ctx)
}

// reckon holds what came against what was acknowledged.
func (t *proof) reckon(ctx context.Context) error {
	got := t.far.server.Wait(ctx, t.out)
	subjects := map[string]int{}
	for _, m := range got {
		subjects[m.Subject()]++
	}
	t.Check(len(got) == t.out && len(subjects) == t.out, "%d of %d messages came to %s, each once", len(subjects), t.out, farDomain)
	at, err := t.uids(ctx, t.a, bob)
	if err != nil {
		return err
	}
	other, err := t.uids(ctx, t.b, bob)
	if err != nil {
		return err
	}
	t.Check(len(at) == t.in && slices.Equal(at, other), "%d of %d messages came to %s, and both nodes show the same over IMAP", len(at), t.in, bob)
	t.Check(slices.IsSorted(at) && len(slices.Compact(at)) == t.in, "their UIDs ascend")
	ids, err := t.uidls(ctx, t.a, bob)
	if err != nil {
		return err
	}
	same, err := t.uidls(ctx, t.b, bob)
	if err != nil {
		return err
	}
	t.Check(len(ids) == t.in && slices.Equal(ids, same), "and over POP3")
	n, err := t.queued(ctx, `true`)
	t.Check(n == 0, "the queue is empty")
	return err
}
