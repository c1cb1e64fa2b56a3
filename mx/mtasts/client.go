package mtasts

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/smtp"
)

// Resolver looks up TXT records; *net.Resolver is one. Names have a final dot.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Client finds the policies of domains and keeps them. The zero Client is
// not ready: it needs a Resolver. Its fields are read-only once it is in use,
// and it may be used from many goroutines.
type Client struct {
	// Resolver is asked for the record of a domain at each Lookup: it
	// should have a cache of its own.
	Resolver Resolver
	// Cache keeps policies; nil = in memory, 10,000 of them.
	Cache Cache
	// HTTP fetches policies; nil = a client of our own with a timeout of one
	// minute. Redirects are not followed, whatever it says (RFC 8461 §3.3).
	HTTP *http.Client
	// Logger is told what fails; nil = slog.Default().
	Logger *slog.Logger

	once    sync.Once
	memory  Memory
	http    *http.Client
	mu      sync.Mutex
	flights map[string]*flight
	failed  map[string]failure // by domain
}

// Reason says why there is no new policy, in the words of RFC 8460 §4.3.
type Reason string

// The reasons.
const (
	FetchFailed   Reason = "sts-policy-fetch-error"
	Invalid       Reason = "sts-policy-invalid"
	WebPKIInvalid Reason = "sts-webpki-invalid" // of the policy host's certificate
)

// Error is a policy that is announced and cannot be had.
type Error struct {
	Domain string
	Reason Reason
	Err    error
}

func (e *Error) Error() string { return "mtasts: policy of " + e.Domain + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

const (
	fetchTimeout = time.Minute // RFC 8461 §3.3
	fetchPause   = 5 * time.Minute
	maxFailed    = 10_000
	renewEvery   = 24 * time.Hour
)

// Lookup returns the policy that is in force for a recipient domain, nil if
// there is none (RFC 8461 §5.1). A policy that was kept is in force until it
// is too old, whatever became of its record.
//
// The error, an *[Error], says that a policy is announced and could not be
// had: it is for reports and logs, and Lookup has then returned the one kept
// before, or nil. Mail goes on in either case.
func (c *Client) Lookup(ctx context.Context, domain string) (*Policy, error) {
	c.init()
	domain, err := smtp.ParseDomain(strings.TrimSuffix(domain, "."))
	if err != nil || strings.HasPrefix(domain, "[") {
		return nil, nil // there are no policies for address literals
	}
	kept, err := c.cache().Get(ctx, domain)
	if err != nil {
		c.log().Error("mtasts: reading the cache", "domain", domain, "err", err)
	}
	if kept != nil && !time.Now().Before(kept.Fetched.Add(kept.Policy.MaxAge)) {
		kept = nil
	}
	rec, ok := c.record(ctx, domain)
	if !ok || kept != nil && kept.ID == rec.ID {
		return kept.policy(), nil
	}
	entry, err := c.fetchOnce(ctx, domain, rec.ID)
	if err != nil {
		return kept.policy(), err
	}
	return entry.policy(), nil
}

// record looks the record of a domain up; none, and more than one, mean that
// there is nothing new to be known.
func (c *Client) record(ctx context.Context, domain string) (Record, bool) {
	all, err := c.Resolver.LookupTXT(ctx, "_mta-sts."+domain+".")
	if err != nil {
		return Record{}, false
	}
	var found []string
	for _, txt := range all {
		if IsRecord(txt) {
			found = append(found, txt)
		}
	}
	if len(found) != 1 {
		return Record{}, false
	}
	rec, err := ParseRecord(found[0])
	return rec, err == nil
}

func (c *Client) init() {
	c.once.Do(func() {
		c.flights, c.failed = map[string]*flight{}, map[string]failure{}
		c.http = newHTTP(c.HTTP)
	})
}

func (c *Client) cache() Cache {
	if c.Cache != nil {
		return c.Cache
	}
	return &c.memory
}

func (c *Client) log() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.Default()
}

type flight struct {
	ended chan struct{}
	entry *Entry
	err   error
}

// failure keeps a fetch from being repeated too soon.
type failure struct {
	id  string
	at  time.Time
	err error
}

// fetchOnce fetches a policy, once at a time for each domain, and keeps it.
// The fetch itself goes on when ctx is done: others may wait for it, and the
// next mail will.
func (c *Client) fetchOnce(ctx context.Context, domain, id string) (*Entry, error) {
	c.mu.Lock()
	if f, ok := c.failed[domain]; ok && f.id == id && time.Since(f.at) < fetchPause {
		c.mu.Unlock()
		return nil, f.err
	}
	f := c.flights[domain]
	if f == nil {
		f = &flight{ended: make(chan struct{})}
		c.flights[domain] = f
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
			defer cancel()
			f.entry, f.err = c.renew(ctx, domain, id)
			c.mu.Lock()
			delete(c.flights, domain)
			c.mu.Unlock()
			close(f.ended)
		}()
	}
	c.mu.Unlock()
	select {
	case <-f.ended:
		return f.entry, f.err
	case <-ctx.Done():
		return nil, &Error{domain, FetchFailed, ctx.Err()}
	}
}

// renew fetches a policy and keeps it, or keeps the failure in mind.
func (c *Client) renew(ctx context.Context, domain, id string) (*Entry, error) {
	p, err := c.fetch(ctx, domain)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		for d, f := range c.failed {
			if len(c.failed) < maxFailed && time.Since(f.at) < fetchPause {
				break
			}
			delete(c.failed, d)
		}
		c.failed[domain] = failure{id, time.Now(), err}
		return nil, err
	}
	c.mu.Lock()
	delete(c.failed, domain)
	c.mu.Unlock()
	e := &Entry{ID: id, Policy: p, Fetched: time.Now()}
	if err := c.cache().Put(ctx, domain, e); err != nil {
		c.log().Error("mtasts: writing the cache", "domain", domain, "err", err)
	}
	return e, nil
}

// Run fetches each policy that is kept anew, a day after it was fetched or
// when half of its time is over, so that nobody who hinders a fetch can wait
// for it to expire (RFC 8461 §3.3). It returns when ctx is done.
func (c *Client) Run(ctx context.Context) error {
	c.init()
	t := time.NewTicker(time.Hour)
	defer t.Stop()
	for {
		c.renewAll(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

func (c *Client) renewAll(ctx context.Context) {
	for domain, e := range c.cache().All(ctx) {
		if ctx.Err() != nil {
			return
		}
		age := time.Since(e.Fetched)
		if age >= e.Policy.MaxAge || age < min(renewEvery, e.Policy.MaxAge/2) {
			continue
		}
		id := e.ID
		if rec, ok := c.record(ctx, domain); ok {
			id = rec.ID
		}
		_, err := c.fetchOnce(ctx, domain, id)
		if err != nil && ctx.Err() == nil && e.Policy.Mode != None {
			c.log().Warn("mtasts: a policy cannot be renewed", "domain", domain, "expires", e.Fetched.Add(e.Policy.MaxAge), "err", err)
		}
	}
}
