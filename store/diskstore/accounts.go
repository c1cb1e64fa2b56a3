package diskstore

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
	"weak"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// account is one account in memory: there is at most one of a name, and every
// handle is it. What nobody has a handle to is forgotten, and read again.
type account struct {
	s    *Store
	no   uint64
	name string

	mu     sync.Mutex // held while a write is worked out and applied
	gone   bool       // deleted
	rec    accountRecord
	modSeq store.ModSeq
	boxes  map[uint64]*mailbox
	names  map[string]*mailbox
	last   *landing // of the latest write

	watchers
}

// landing is a write that is applied and maybe not durable yet.
type landing struct {
	done chan struct{}
	err  error
}

// wait returns when the write is durable.
func (l *landing) wait() error {
	if l == nil {
		return nil
	}
	<-l.done
	return l.err
}

func (s *Store) loading(name string) *sync.Mutex {
	return &s.loads[maphash.String(loadSeed, name)%uint64(len(s.loads))]
}

var loadSeed = maphash.MakeSeed()

// Account returns an account; store.ErrNotExist.
func (s *Store) Account(ctx context.Context, id string) (store.Account, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	a, err := s.account(id)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (s *Store) account(name string) (*account, error) {
	s.mu.Lock()
	a := s.accounts[name].Value()
	s.mu.Unlock()
	if a != nil {
		return a, nil
	}
	l := s.loading(name)
	l.Lock()
	defer l.Unlock()
	s.mu.Lock()
	a = s.accounts[name].Value()
	s.mu.Unlock()
	if a != nil {
		return a, nil
	}
	n, err := s.nameOf(name)
	if err != nil {
		return nil, err
	}
	if n.no == 0 {
		return nil, store.ErrNotExist
	}
	if a, err = s.load(n.no, name); err != nil {
		return nil, unavailable(err)
	}
	s.put(a)
	return a, nil
}

// put makes a loaded account known.
func (s *Store) put(a *account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.accounts) > 2*keptAccounts && len(s.accounts)%keptAccounts == 0 {
		for n, p := range s.accounts {
			if p.Value() == nil {
				delete(s.accounts, n)
			}
		}
	}
	s.accounts[a.name] = weak.Make(a)
	if len(s.kept) < keptAccounts {
		s.kept = append(s.kept, a)
		return
	}
	s.kept[s.keep] = a
	s.keep = (s.keep + 1) % keptAccounts
}

// nameOf reads an account's name; a number of 0 when there is no such account.
func (s *Store) nameOf(name string) (nameRecord, error) {
	if len(name) > maxName {
		return nameRecord{}, nil
	}
	v, err := s.db.Value(nameKey(name))
	if err != nil || v == nil {
		return nameRecord{}, unavailable(err)
	}
	n, err := decodeName(v)
	return n, unavailable(err)
}

// load reads an account: its record and its mailboxes, not their messages.
func (s *Store) load(no uint64, name string) (*account, error) {
	a := &account{s: s, no: no, name: name, boxes: make(map[uint64]*mailbox), names: make(map[string]*mailbox)}
	v, err := s.db.Value(key1(kAccount, no))
	if err != nil {
		return nil, err
	}
	if a.rec, err = decodeAccount(v); err != nil {
		return nil, err
	}
	a.modSeq = a.rec.modSeq
	prefix := key1(kMailbox, no)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper(prefix)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if len(it.Key()) != len(prefix)+8 {
			continue
		}
		b, err := decodeMailbox(u8(it.Key()[len(prefix):]), it.Value())
		if err != nil {
			return nil, err
		}
		a.boxes[b.no], a.names[b.name] = b, b
		a.modSeq = max(a.modSeq, b.modSeq)
	}
	return a, it.Error()
}

func checkName(name string) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) {
		return store.ErrLimit
	}
	return nil
}

// CreateAccount makes an account with an empty Inbox; store.ErrExist.
func (s *Store) CreateAccount(ctx context.Context, id string) error {
	if err := checkName(id); err != nil {
		return err
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	l := s.loading(id)
	l.Lock()
	defer l.Unlock()
	n, err := s.nameOf(id)
	if err != nil {
		return err
	}
	if n.no != 0 {
		return store.ErrExist
	}
	if err := s.db.Room(4096); err != nil {
		return full(err)
	}
	a := &account{s: s, no: s.nums.next(), name: id, boxes: make(map[uint64]*mailbox), names: make(map[string]*mailbox)}
	a.rec = accountRecord{name: id, validity: n.validity}
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tx()
	t.rec = &accountRecord{name: id, validity: n.validity}
	t.batch().Set(nameKey(id), nameRecord{no: a.no}.encode(), nil)
	t.addMailbox(inboxNo, string(store.Inbox), nil)
	w, err := t.apply()
	if err == nil {
		err = t.land(w)
	}
	if err != nil {
		return err
	}
	s.put(a)
	return nil
}

// DeleteAccount removes an account with its mail; store.ErrNotExist. Handles
// to it, its sessions' among them, get store.ErrNotExist from then on. The
// space is given back after the grace.
func (s *Store) DeleteAccount(ctx context.Context, id string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	a, err := s.account(id)
	if err != nil {
		return err
	}
	a.mu.Lock()
	if a.gone {
		a.mu.Unlock()
		return store.ErrNotExist
	}
	t := a.tx()
	t.batch().Set(nameKey(id), nameRecord{validity: a.rec.validity}.encode(), nil)
	t.due(0, 0)
	w, err := t.apply()
	if err == nil {
		a.gone = true
		a.boxes, a.names = nil, nil
		s.mu.Lock()
		delete(s.accounts, id)
		s.kept = slices.DeleteFunc(s.kept, func(x *account) bool { return x == a })
		s.keep = 0
		s.mu.Unlock()
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return t.land(w)
}

// SetQuota bounds an account's messages to this many octets, 0 = no limit.
// What is there already stays. store.ErrNotExist.
func (s *Store) SetQuota(ctx context.Context, id string, octets int64) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	a, err := s.account(id)
	s.end()
	if err != nil {
		return err
	}
	return a.commit(ctx, func(t *tx) error {
		t.record().quota = max(octets, 0)
		return nil
	})
}

// Accounts returns the names of all accounts, sorted.
func (s *Store) Accounts(ctx context.Context) ([]string, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kName}, UpperBound: []byte{kName + 1}})
	if err != nil {
		return nil, unavailable(err)
	}
	defer it.Close()
	var out []string
	for ok := it.First(); ok; ok = it.Next() {
		if n, err := decodeName(it.Value()); err == nil && n.no != 0 {
			out = append(out, string(it.Key()[1:]))
		}
	}
	return out, unavailable(it.Error())
}

// box returns a mailbox, with the lock held.
func (a *account) box(id store.MailboxID) (*mailbox, error) {
	if a.gone {
		return nil, store.ErrNotExist
	}
	b := a.boxes[boxNo(id)]
	if b == nil {
		return nil, store.ErrNotExist
	}
	return b, nil
}

// used is what the account's messages take.
func (a *account) used() (n int64) {
	for _, b := range a.boxes {
		n += b.counts.Size
	}
	return n
}

// readWords returns the keywords of b; the lock is held.
func (a *account) readWords(b *mailbox) (*words, error) {
	if b.words != nil {
		return b.words, nil
	}
	v, err := a.s.db.Value(boxKey(kWords, a.no, b.no))
	if err != nil {
		return nil, unavailable(err)
	}
	if v == nil {
		b.words = makeWords(nil)
		return b.words, nil
	}
	t, err := decodeWords(v)
	if err != nil {
		return nil, unavailable(err)
	}
	b.words = t
	return t, nil
}

// readDir returns what is known of the chunks of b; the lock is held.
func (a *account) readDir(b *mailbox) ([]chunkInfo, error) {
	if b.read {
		return b.dir, nil
	}
	if b.tail <= 1 {
		b.read = true
		return nil, nil
	}
	prefix := boxKey(kChunk, a.no, b.no)
	it, err := a.s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper(prefix)})
	if err != nil {
		return nil, unavailable(err)
	}
	defer it.Close()
	var dir []chunkInfo
	for ok := it.First(); ok; ok = it.Next() {
		first, col, good := chunkFirst(it.Key())
		if !good || col != colFlags {
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, unavailable(err)
		}
		r, err := diskdb.Unseal(v)
		if err != nil {
			return nil, unavailable(err)
		}
		dir = append(dir, chunkHead(&r, first))
		if err := r.Err(); err != nil {
			return nil, unavailable(err)
		}
	}
	if err := it.Error(); err != nil {
		return nil, unavailable(err)
	}
	b.dir, b.read = dir, true
	return dir, nil
}

// Quota implements store.Quoter. It is asked at each RCPT, and does not wait
// for the deliveries under way to be durable.
func (a *account) Quota(ctx context.Context) (store.Quota, error) {
	if err := a.s.begin(ctx); err != nil {
		return store.Quota{}, err
	}
	defer a.s.end()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return store.Quota{}, store.ErrNotExist
	}
	return store.Quota{Used: a.used(), Limit: a.rec.quota}, nil
}

// look runs f with the lock held, and returns when what it saw is durable.
func (a *account) look(ctx context.Context, f func() error) error {
	if err := a.s.begin(ctx); err != nil {
		return err
	}
	defer a.s.end()
	a.mu.Lock()
	if a.gone {
		a.mu.Unlock()
		return store.ErrNotExist
	}
	err := f()
	l := a.last
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return l.wait()
}

// validity returns the next UIDVALIDITY: never used in the account, also
// before it was deleted and made again, and not below the clock.
func (r *accountRecord) nextValidity() uint32 {
	r.validity = max(r.validity+1, uint32(time.Now().Unix()))
	return r.validity
}
