package memstore

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"sync"
	"time"

	"github.com/postrider/postrider/store"
)

// Store is a store in memory. The zero value is ready; set the fields before
// the first account is made. It is safe for concurrent use, and also a
// store.Admin, store.Stager and store.Deliverer; its accounts are also
// store.Watcher, Subscriber, RecentClaimer, Quoter, SummaryWriter
// and Importer.
type Store struct {
	// History is how many ranges of expunged UIDs each mailbox remembers;
	// 0 = 65,536, negative = none, so that each sync lists anew.
	History int
	// Keywords is how many different keywords a mailbox may have in use at
	// once; 0 = 256, negative = no limit. Beyond: store.ErrLimit.
	Keywords int
	// Mailboxes is how many an account may have; 0 = 10,000, negative = no
	// limit. Beyond: store.ErrLimit.
	Mailboxes int
	// MessageSize is the greatest message, in octets; 0 = no limit. Beyond:
	// store.ErrTooBig.
	MessageSize int64
	// Grace is how long an expunged message can still be opened; 0 = one
	// hour, negative = not at all. At most 64 MiB an account wait for the end
	// of it, the latest.
	Grace time.Duration

	mu           sync.RWMutex
	accounts     map[string]*account
	lastValidity uint32 // UIDVALIDITYs are unique in the whole store
}

// New returns an empty store.
func New() *Store { return &Store{} }

const (
	defaultHistory   = 1 << 16
	defaultKeywords  = 256
	defaultMailboxes = 10_000
	defaultGrace     = time.Hour
	graceBytes       = 64 << 20
	onceMemory       = 1 << 14 // deliveries that an account remembers
	maxName          = 1024    // octets of a mailbox or keyword name
)

// limit gives 0 its default and turns a negative one off.
func limit(n, def int) int {
	switch {
	case n == 0:
		return def
	case n < 0:
		return int(^uint(0) >> 1)
	}
	return n
}

// Account returns an account; store.ErrNotExist.
func (s *Store) Account(ctx context.Context, id string) (store.Account, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a := s.find(id)
	if a == nil {
		return nil, store.ErrNotExist
	}
	return a, nil
}

func (s *Store) find(id string) *account {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.accounts[id]
}

// CreateAccount makes an account with an empty Inbox; store.ErrExist.
func (s *Store) CreateAccount(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accounts[id] != nil {
		return store.ErrExist
	}
	if s.accounts == nil {
		s.accounts = make(map[string]*account)
	}
	a := &account{
		store:    s,
		boxes:    make(map[store.MailboxID]*mailbox),
		names:    make(map[string]*mailbox),
		contents: make(map[string]*content),
		threads:  make(map[string]*thread),
		once:     make(map[string]struct{}),
		subs:     make(map[string]struct{}),
		watchers: make(map[*watcher]struct{}),
	}
	a.addMailbox(store.Inbox, string(store.Inbox), nil, s.validityLocked())
	s.accounts[id] = a
	return nil
}

// DeleteAccount removes an account with its mail; store.ErrNotExist. Handles
// to it, its sessions' among them, get store.ErrNotExist from then on.
func (s *Store) DeleteAccount(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	a := s.accounts[id]
	delete(s.accounts, id)
	s.mu.Unlock()
	if a == nil {
		return store.ErrNotExist
	}
	a.mu.Lock()
	a.gone = true
	a.boxes, a.names, a.contents, a.threads, a.dying = nil, nil, nil, nil, nil
	a.mu.Unlock()
	a.notify()
	return nil
}

// SetQuota bounds an account's messages to this many octets, 0 = no limit.
// What is there already stays. store.ErrNotExist.
func (s *Store) SetQuota(id string, octets int64) error {
	a := s.find(id)
	if a == nil {
		return store.ErrNotExist
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.quota = octets
	return nil
}

// validity returns a UIDVALIDITY that was never used in this store and is not
// below the clock: an account that is made again cannot meet its old ones.
func (s *Store) validity() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.validityLocked()
}

func (s *Store) validityLocked() uint32 {
	s.lastValidity = max(s.lastValidity+1, uint32(time.Now().Unix()))
	return s.lastValidity
}

// used tells of a UIDVALIDITY that came from elsewhere.
func (s *Store) used(validity uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastValidity = max(s.lastValidity, validity)
}

var ids = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newID returns an object identifier (RFC 8474 §4): a letter for its kind,
// then 125 bits of chance.
func newID(kind byte) string {
	var b [15]byte
	rand.Read(b[:])
	out := make([]byte, 1, 25)
	out[0] = kind
	return string(ids.AppendEncode(out, b[:]))
}
