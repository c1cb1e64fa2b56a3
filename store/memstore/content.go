package memstore

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/postrider/postrider/store"
)

// content is what a message says: shared by its copies in an account, never
// changed but for the Summary. It is the Body and the Blob of those messages.
// References are counted by the account; an account that links another's
// content has its own content over the same data.
type content struct {
	owner      *Store
	id, thread string
	head, data []byte

	// Guarded by the account's mutex.
	refs    int
	summary []byte
	ids     []string // Message-ID and References: keys of account.threads
}

var errOffset = errors.New("memstore: negative offset")

// Size implements store.Body.
func (c *content) Size() int64 { return int64(len(c.head) + len(c.data)) }

// ReadAt implements store.Body.
func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	n := 0
	if off < int64(len(c.head)) {
		n = copy(p, c.head[off:])
	}
	if at := off + int64(n) - int64(len(c.head)); n < len(p) && at < int64(len(c.data)) {
		n += copy(p[n:], c.data[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close implements store.Blob: the bytes are the garbage collector's.
func (c *content) Close() error { return nil }

// Open implements store.Account.
func (a *account) Open(ctx context.Context, m store.Message) (store.Blob, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if err := a.begin(ctx); err != nil {
		return nil, err
	}
	c := a.contents[m.ID]
	if c == nil || c.refs == 0 && a.store.Grace < 0 {
		return nil, store.ErrNotExist
	}
	if c.refs == 0 {
		for _, d := range a.dying {
			if d.c == c && time.Since(d.at) > a.grace() {
				return nil, store.ErrNotExist
			}
		}
	}
	return c, nil
}

// WriteSummary implements store.SummaryWriter.
func (a *account) WriteSummary(ctx context.Context, m store.Message, summary []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.begin(ctx); err != nil {
		return err
	}
	c := a.contents[m.ID]
	if c == nil {
		return store.ErrNotExist
	}
	c.summary = append([]byte(nil), summary...)
	return nil
}

// dead is a content that no mailbox has any more.
type dead struct {
	c  *content
	at time.Time
}

func (a *account) grace() time.Duration {
	if a.store.Grace == 0 {
		return defaultGrace
	}
	return a.store.Grace
}

// hold counts one more row with c.
func (a *account) hold(c *content) {
	if a.contents[c.id] != c {
		a.contents[c.id] = c
		a.enthread(c)
	}
	c.refs++
	a.used += c.Size()
}

// drop counts one row less. The last one's content dies after the grace.
func (a *account) drop(c *content, now time.Time) {
	a.used -= c.Size()
	if c.refs--; c.refs > 0 {
		return
	}
	a.dying = append(a.dying, dead{c, now})
	a.dyingSum += c.Size()
	a.sweep(now)
}

// sweep forgets what died long ago.
func (a *account) sweep(now time.Time) {
	for len(a.dying) > 0 {
		d := a.dying[0]
		if a.dyingSum <= graceBytes && now.Sub(d.at) <= a.grace() {
			return
		}
		a.dying[0] = dead{}
		a.dying = a.dying[1:]
		a.dyingSum -= d.c.Size()
		if d.c.refs == 0 && a.contents[d.c.id] == d.c {
			delete(a.contents, d.c.id)
			a.unthread(d.c)
		}
	}
}

// thread is what the messages that know a Message-ID belong to.
type thread struct {
	id   string
	refs int
}

// maxReferences bounds what one message adds to the table of threads.
const maxReferences = 100

// threadOf returns the thread of a new message: that of a message it refers
// to or is referred to by, else a new one (RFC 8474 §5.2).
func (a *account) threadOf(ids []string) string {
	for _, id := range ids {
		if t := a.threads[id]; t != nil {
			return t.id
		}
	}
	return newID('t')
}

// enthread makes c's Message-IDs lead to its thread.
func (a *account) enthread(c *content) {
	for _, id := range c.ids {
		t := a.threads[id]
		if t == nil {
			t = &thread{id: c.thread}
			a.threads[id] = t
		}
		t.refs++
	}
}

func (a *account) unthread(c *content) {
	for _, id := range c.ids {
		if t := a.threads[id]; t != nil {
			if t.refs--; t.refs == 0 {
				delete(a.threads, id)
			}
		}
	}
}
