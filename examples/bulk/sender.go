package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/queue/feedback"
	"github.com/postrider/postrider/queue/submission"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/delivery"
)

// mergers is how many messages are made at one time: the disk syncs once for
// all of them.
const mergers = 16

// sender is the queue with what stands before and behind it.
type sender struct {
	*config
	merge   *merge
	disk    *diskqueue.Storage
	queue   *queue.Queue
	submit  *submission.Submitter
	paths   *feedback.Matcher
	tally   *tally
	far     *far // nil with -relay
	pool    *smtpclient.Pool
	bounces *smtpserver.Server // nil without -bounce-listen
	linger  time.Duration      // how long to wait for bounces when all is sent
	list    *os.File           // of those not to write to, nil = none
	wg      sync.WaitGroup
}

func newSender(c *config, m *merge) (_ *sender, err error) {
	// A bounce comes back to b+ID-SIGNATURE+ann=example.org@shop.example
	// (VERP), which nobody else can make.
	s := &sender{config: c, merge: m, tally: newTally(), paths: &feedback.Matcher{Base: c.bounces, Key: []byte(c.secret)}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.disk, err = diskqueue.Open(filepath.Join(c.data, "queue"), nil); err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	s.queue = &queue.Queue{Storage: s.disk, Hostname: m.from.Domain, OnEvent: s.event, ReturnPath: s.paths.ReturnPath, DelayNotice: -1,
		Retry: queue.Backoff(c.retry, time.Hour), Concurrency: c.concurrency, PerSite: c.concurrency} // the provider's limit is for all
	if c.rate > 0 {
		s.queue.Limiter = &queue.Rates{Rate: func(key string) queue.Rate {
			if key == "total" {
				return queue.Rate{N: c.rate, Per: time.Second}
			}
			return queue.Rate{}
		}}
	}
	if s.queue.Suppressor, err = s.suppressions(); err != nil {
		return nil, fmt.Errorf("-suppress: %w", err)
	}
	s.submit = &submission.Submitter{Queue: s.queue}

	var keys []dkim.SignOptions
	listen := c.bounceListen
	if c.relay == "" {
		if s.far, err = newFar(m.from.Domain); err != nil {
			return nil, err
		}
		s.queue.Transport, keys = s.far.transport(), s.far.keys
		listen = "127.0.0.1:0"
	} else {
		s.pool = &smtpclient.Pool{MaxGroup: c.concurrency}
		r := &smtpclient.Relay{Addr: c.relay, Pool: s.pool}
		if c.relayUser != "" {
			r.Auth = &smtpclient.Auth{User: c.relayUser, Password: os.Getenv("RELAY_PASSWORD")}
		}
		s.queue.Transport = r
	}
	// The queue's own notices are no news: its events were first.
	s.queue.Transport = quiet{s.queue.Transport, m.bounces.Domain}
	if c.dkim != "" {
		if keys, err = loadKey(c.dkim, m.from.Domain); err != nil {
			return nil, err
		}
	}
	if keys != nil {
		s.submit.Sign = func(context.Context, smtp.Address) (submission.Signer, error) { return dkim.NewSigner(keys...) }
	}
	if listen == "" {
		return s, nil
	}
	if c.relay != "" {
		s.linger = c.patience
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("-bounce-listen: %w", err)
	}
	s.bounces = &smtpserver.Server{Hostname: m.bounces.Domain, MaxMessageBytes: 1 << 20,
		Backend: &delivery.Backend{Recipients: s.bounceTo, Target: delivery.TargetFunc(s.bounce)}}
	s.wg.Go(func() { s.bounces.Serve(l) })
	if s.far != nil {
		s.far.bounceAddr = l.Addr().String()
	}
	return s, nil
}

// quiet is a transport that swallows notices to our own address for bounces.
type quiet struct {
	queue.Transport
	domain string
}

func (t quiet) Deliver(ctx context.Context, env *smtp.Envelope, body queue.Body) []smtp.Result {
	if env.From.IsZero() && env.To[0].Domain == t.domain {
		return make([]smtp.Result, len(env.To))
	}
	return t.Transport.Deliver(ctx, env, body)
}

// Group keeps the transport's.
func (t quiet) Group(ctx context.Context, domain string) (string, error) {
	if g, ok := t.Transport.(queue.Grouper); ok && domain != t.domain {
		return g.Group(ctx, domain)
	}
	return domain, nil
}

// loadKey reads selector:keyfile.
func loadKey(spec, domain string) ([]dkim.SignOptions, error) {
	selector, file, ok := strings.Cut(spec, ":")
	if !ok {
		return nil, errors.New("-dkim: want selector:keyfile")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("-dkim: %w", err)
	}
	key, err := dkim.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("-dkim %s: %w", file, err)
	}
	return []dkim.SignOptions{{Domain: domain, Selector: selector, Key: key}}, nil
}

// suppressions reads the list of those not to write to, and keeps it open for
// more.
func (s *sender) suppressions() (queue.Suppressor, error) {
	list := &queue.SuppressionList{}
	if s.suppress == "" {
		return list, nil
	}
	f, err := os.OpenFile(s.suppress, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s.list = f
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if text := strings.TrimSpace(sc.Text()); text != "" {
			addr, err := smtp.ParseAddress(text)
			if err != nil {
				return nil, err
			}
			list.Add("", addr, "")
		}
	}
	return list, sc.Err()
}

// event counts, and remembers those whose address is no good.
func (s *sender) event(e queue.Event) {
	if class := s.tally.event(e); class.Hard() {
		s.never(e.To)
	}
}

// never puts an address on the list. One write is one line, whoever else writes.
func (s *sender) never(to smtp.Address) {
	if s.list != nil && !to.IsZero() {
		fmt.Fprintln(s.list, to)
	}
}

// bounceTo takes mail for the return paths that were made here.
func (s *sender) bounceTo(_ context.Context, to smtp.Address) ([]store.Target, error) {
	if _, err := s.paths.Match(to); err != nil {
		return nil, delivery.ErrNoUser
	}
	return []store.Target{{Account: to.String()}}, nil
}

// bounce reads what came back.
func (s *sender) bounce(ctx context.Context, in *delivery.Inbound) error {
	for _, to := range in.Recipients {
		list, err := s.paths.Read(ctx, to.Address, in.Body, in.Body.Size())
		if errors.Is(err, feedback.ErrNotFeedback) {
			continue
		}
		if err != nil {
			return err
		}
		for _, f := range list {
			switch f.Class {
			case report.AutoReply, report.Success, report.Late, report.Challenge:
				continue // they have it, or may get it yet
			}
			s.tally.cameBack(f.Message, f.Class)
			if f.Class.Hard() || f.Class == report.Complaint {
				s.never(f.Recipient)
			}
		}
	}
	return nil
}

// run merges and sends until all is done, or ctx is.
func (s *sender) run(ctx context.Context, rows rows, b *bar) error {
	for e, err := range s.disk.List(ctx, queue.Filter{}) { // of an earlier run
		if err != nil {
			return err
		}
		s.tally.found(e)
	}
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var failed error // of the queue
	ended := make(chan struct{})
	s.wg.Go(func() {
		defer close(ended)
		failed = s.queue.Run(runCtx)
	})
	merged := make(chan error, 1)
	s.wg.Go(func() { merged <- s.mergeAll(ctx, rows) })

	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var err error
	for done := false; !done; {
		select {
		case err = <-merged:
			merged = nil
			done = err != nil
		case <-ctx.Done():
			done = true
		case <-ended:
			done = true
		case <-tick.C:
			b.show(s.tally.sums())
			done = s.tally.settled(s.linger, s.patience) && (s.far == nil || s.far.owed.Load() == 0)
		}
	}
	// What is on its way comes to its end.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	if s.queue.Shutdown(drain) != nil {
		s.queue.Close()
	}
	<-ended
	where := "gone with this run; -data keeps them for the next"
	if s.keep() {
		where = "in " + s.data + ": the next run goes on with them"
	}
	b.table(s.tally.sums(), where)
	if ctx.Err() != nil {
		err = nil // interrupted, as somebody wanted
	}
	return errors.Join(err, failed)
}

// keep reports whether the queue outlives this run.
func (s *sender) keep() bool { return !strings.HasPrefix(filepath.Base(s.data), "bulk-") }

// mergeAll queues a message for each row. At no time are there more than
// mergers of them in memory.
func (s *sender) mergeAll(ctx context.Context, next rows) error {
	type job struct {
		row  row
		line int
	}
	jobs := make(chan job)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range mergers {
		wg.Go(func() {
			for j := range jobs {
				if err := s.put(ctx, j.row, j.line); err != nil {
					cancel(err)
				}
			}
		})
	}
	var err error
	for ctx.Err() == nil {
		var j job
		if j.row, j.line, err = next(); err != nil {
			if errors.Is(err, errRow) {
				s.tally.refuse(fmt.Sprintf("line %d: %v", j.line, err))
				continue
			}
			break
		}
		s.tally.read()
		select {
		case jobs <- j:
		case <-ctx.Done():
		}
	}
	close(jobs)
	wg.Wait()
	s.tally.mu.Lock()
	s.tally.merged = true
	s.tally.mu.Unlock()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// put queues one message. Its error ends the run: the disk is full, say.
func (s *sender) put(ctx context.Context, r row, line int) error {
	m, o, err := s.merge.message(r)
	if err == nil {
		var sub *queue.Submission
		if sub, err = s.submit.Prepare(ctx, m, o); err == nil {
			err := s.queue.Put(ctx, sub)
			if err != nil || sub.Duplicate {
				sub.Body.Close()
			}
			if err == nil && sub.Duplicate {
				s.tally.repeat()
			}
			return err
		}
	}
	if ctx.Err() != nil || errors.Is(err, queue.ErrFull) {
		return err
	}
	s.tally.refuse(fmt.Sprintf("line %d: %v", line, err)) // the message, not the disk
	return nil
}

// close ends what is still there.
func (s *sender) close() {
	if s.queue != nil {
		s.queue.Close()
	}
	if s.far != nil {
		s.far.close()
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.bounces != nil {
		s.bounces.Close()
	}
	s.wg.Wait()
	if s.disk != nil {
		s.disk.Close()
	}
	if s.list != nil {
		s.list.Close()
	}
}
