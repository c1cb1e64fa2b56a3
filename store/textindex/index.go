package textindex

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// Options are how an Index is to be; the zero value will do.
type Options struct {
	// MessageText is how much text of one message is indexed, in octets; one
	// with more is always found, and looked through by who searches. 0 = 4
	// MiB, negative = no limit.
	MessageText int64
	// Accounts is how many accounts, those used last, are watched for what is
	// new; the others are looked at when they are used again. 0 = 1,000,
	// negative = none.
	Accounts int
	// Cache is memory for what is read often, in octets; 0 = 32 MiB.
	Cache int64
	// Log hears of what goes wrong in the background; nil = slog.Default().
	Log *slog.Logger
}

const (
	defaultText     = 4 << 20
	defaultAccounts = 1000
)

// Errors of an Index.
var (
	ErrLocked = diskdb.ErrLocked // another process has it open
	ErrClosed = errors.New("textindex: closed")
)

// Index is a store.Store with an index. It is safe for concurrent use.
type Index struct {
	inner store.Store
	o     Options
	db    *diskdb.DB
	id    atomic.Uint64 // the last segment's

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	worker sync.WaitGroup
	wake   chan struct{}

	mu      sync.Mutex
	behind  map[string]bool // accounts to be looked at
	queue   []string        // in that order
	watched map[string]*list.Element
	recent  list.List // of *watch, the one used last first
	ended   bool      // nobody is watched any more

	writing sync.Mutex // who changes the index, with the gatherer
	g       *gatherer

	using  sync.RWMutex // who reads the database holds it
	closed bool
}

// watch is an account that tells of what is new.
type watch struct {
	account string
	stop    func()
}

// Open opens the index in a directory, which is made if it is not there. One
// that is damaged, or of another version, is emptied first; what is no index
// is not touched. s stays the caller's: close it after the Index.
func Open(dir string, s store.Store, o Options) (*Index, error) {
	if o.MessageText == 0 {
		o.MessageText = defaultText
	}
	if o.Accounts == 0 {
		o.Accounts = defaultAccounts
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	ix := &Index{inner: s, o: o, wake: make(chan struct{}, 1), behind: map[string]bool{}, watched: map[string]*list.Element{}}
	err := ix.open(dir)
	if err != nil && !errors.Is(err, ErrLocked) && ours(dir) {
		o.Log.Warn("textindex: the index is made anew", "dir", dir, "err", err)
		if err = empty(dir); err == nil {
			err = ix.open(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("textindex: %w", err)
	}
	ix.g = newGatherer(o.MessageText)
	ix.ctx, ix.cancel = context.WithCancel(context.Background())
	ix.worker.Go(ix.work)
	return ix, nil
}

func (ix *Index) open(dir string) (err error) {
	ix.db, err = diskdb.Open(diskdb.Config{Dir: dir, Name: "textindex", Format: format, Cache: ix.o.Cache, Log: ix.o.Log})
	if err != nil {
		return err
	}
	it, err := ix.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'s'}, UpperBound: []byte{'s' + 1}})
	if err == nil {
		if it.Last() && len(it.Key()) > 9 {
			ix.id.Store(segmentOf(it.Key()))
		}
		err = it.Close()
	}
	if err != nil {
		ix.db.Close()
	}
	return err
}

// ours tells whether the directory is an index, whatever its state.
func ours(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "FORMAT"))
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 100))
	return err == nil && strings.HasPrefix(string(b), formatPrefix)
}

// empty removes an index, and FORMAT, by which it is known, last.
func empty(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Name() != "FORMAT" && n.Name() != "LOCK" {
			if err := os.RemoveAll(filepath.Join(dir, n.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(filepath.Join(dir, "FORMAT"))
}

// Close ends what runs in the background, and closes the index. Accounts that
// are in use go on without it: their Candidates fails with ErrClosed.
func (ix *Index) Close() error {
	ix.cancel()
	ix.worker.Wait()
	ix.mu.Lock()
	var stops []func()
	for e := ix.recent.Front(); e != nil; e = e.Next() {
		stops = append(stops, e.Value.(*watch).stop)
	}
	ix.recent.Init()
	clear(ix.watched)
	ix.ended = true
	ix.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	ix.writing.Lock() // a Sync under way sees that ctx is done
	defer ix.writing.Unlock()
	ix.using.Lock()
	defer ix.using.Unlock()
	if ix.closed {
		return nil
	}
	ix.closed = true
	return ix.db.Close()
}

// Unwrap returns the store without the index; see store.As.
func (ix *Index) Unwrap() store.Store { return ix.inner }

// Account implements store.Store. The index begins to follow the account.
func (ix *Index) Account(ctx context.Context, id string) (store.Account, error) {
	acc, err := ix.inner.Account(ctx, id)
	if err != nil {
		return nil, err
	}
	ix.follow(id, acc)
	ix.later(id)
	return &account{acc, ix, id}, nil
}

// follow watches the account, and ends watching the one that was not used for
// the longest time.
func (ix *Index) follow(id string, acc store.Account) {
	if ix.o.Accounts < 0 {
		return
	}
	ix.mu.Lock()
	e := ix.watched[id]
	if e != nil {
		ix.recent.MoveToFront(e)
	}
	if e != nil || ix.ended {
		ix.mu.Unlock()
		return
	}
	w := &watch{account: id, stop: func() {}}
	ix.watched[id] = ix.recent.PushFront(w)
	ix.mu.Unlock()

	stop := store.Watch(acc, 0, func() { ix.later(id) })
	var old *watch
	ix.mu.Lock()
	w.stop = stop
	if ix.ended {
		old = w
	} else if ix.recent.Len() > ix.o.Accounts {
		e := ix.recent.Back()
		if old = e.Value.(*watch); old != w {
			ix.recent.Remove(e)
			delete(ix.watched, old.account)
		} else {
			old = nil
		}
	}
	ix.mu.Unlock()
	if old != nil {
		old.stop()
	}
}

// later has the account looked at.
func (ix *Index) later(id string) {
	ix.mu.Lock()
	if !ix.behind[id] {
		ix.behind[id] = true
		ix.queue = append(ix.queue, id)
	}
	ix.mu.Unlock()
	select {
	case ix.wake <- struct{}{}:
	default:
	}
}

// work brings accounts up to date, one after the other.
func (ix *Index) work() {
	for {
		select {
		case <-ix.ctx.Done():
			return
		case <-ix.wake:
		}
		for ix.ctx.Err() == nil {
			ix.mu.Lock()
			if len(ix.queue) == 0 {
				ix.mu.Unlock()
				break
			}
			id := ix.queue[0]
			ix.queue = ix.queue[1:]
			delete(ix.behind, id)
			ix.mu.Unlock()
			if err := ix.Sync(ix.ctx, id); err != nil && ix.ctx.Err() == nil && !errors.Is(err, store.ErrNotExist) {
				ix.o.Log.Warn("textindex: an account could not be brought up to date", "account", id, "err", err)
			}
		}
	}
}
