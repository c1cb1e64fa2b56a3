package diskstore

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/storetest"
)

func open(t testing.TB, o Options) (*Store, error) {
	o.Log = slog.New(slog.DiscardHandler)
	if o.MinFree == 0 {
		o.MinFree = -1
	}
	return Open(t.TempDir(), &o)
}

// sweepAll gives back what waits for the end of its grace, and counts bodies.
func sweepAll(s store.Store) (bodies int64, err error) {
	if c, ok := s.(*crasher); ok {
		s = c.Store
	}
	d := s.(*Store)
	if _, err := d.sweep(ctx, time.Now().Add(24*time.Hour)); err != nil {
		return 0, err
	}
	inDB := int64(0)
	for _, kind := range []byte{kBlob, kFile, kEmail, kBlobRef, kRef} {
		it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kind}, UpperBound: []byte{kind + 1}})
		if err != nil {
			return 0, err
		}
		for ok := it.First(); ok; ok = it.Next() {
			inDB++
		}
		if err := it.Close(); err != nil {
			return 0, err
		}
	}
	files, err := d.o.fs.List(d.db.Path("blobs"))
	return inDB + int64(len(files)), err
}

// damage changes or removes what is kept of a body.
func damage(s store.Store, account string, m store.Message, gone bool) error {
	d := s.(*Store)
	a, err := d.account(account)
	if err != nil {
		return err
	}
	no, _ := numberOf('m', m.ID)
	e, err := a.readEmail(ctx, no)
	if err != nil {
		return err
	}
	key := key1(kBlob, e.blob)
	v, err := d.db.Value(key)
	if err != nil {
		return err
	}
	path := d.blobPath(e.blob)
	switch {
	case v != nil && gone:
		return d.db.Delete(key, pebble.Sync)
	case v != nil:
		v[len(v)/2] ^= 1
		return d.db.Set(key, v, pebble.Sync)
	case gone:
		return d.o.fs.Remove(path)
	}
	f, err := d.o.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], info.Size()/2); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b[:], info.Size()/2)
	return errors.Join(err, f.Close())
}

func TestLaws(t *testing.T) {
	setQuota := func(s store.Store, account string, octets int64) error {
		return s.(*Store).SetQuota(t.Context(), account, octets)
	}
	for name, c := range map[string]struct {
		o     Options
		level storetest.Level
	}{
		"full":          {},
		"short history": {o: Options{History: 20}},
		"no history":    {Options{History: -1}, storetest.NoHistory},
		"short chunks":  {o: Options{BodyMemory: 20, lengths: lengths{5, 6, 3}}},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, storetest.Config{
				Open: func() (one, two store.Store, err error) {
					s, err := open(t, c.o)
					if err == nil {
						t.Cleanup(func() {
							if err := s.Close(); err != nil {
								t.Error(err)
							}
						})
					}
					return s, s, err
				},
				Level:    c.level,
				SetQuota: setQuota,
				Sweep:    sweepAll,
				Damage:   damage,
			})
		})
	}
}

// crasher is a store on a disk in memory that knows what was synced.
type crasher struct {
	*Store
	disk *vfs.MemFS
	step *atomic.Pointer[func()]
	rng  *rand.Rand
	// Controls: what is wrong with it.
	account func(a store.Account) store.Account
	stale   bool // what a crash leaves is what an earlier one would have left
	last    *vfs.MemFS
}

func newCrasher(disk *vfs.MemFS) (*crasher, error) {
	c := &crasher{disk: disk, step: new(atomic.Pointer[func()]), rng: rand.New(rand.NewPCG(1, 2))}
	o := Options{BodyMemory: 2000, MinFree: -1, Log: slog.New(slog.DiscardHandler), lengths: lengths{5, 6, 3}}
	o.fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if f := c.step.Load(); f != nil && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			(*f)()
		}
		return nil
	}))
	var err error
	c.Store, err = Open("mail", &o)
	return c, err
}

// Steps implements storetest.Crasher.
func (c *crasher) Steps(step func()) {
	if step == nil {
		c.step.Store(nil)
		return
	}
	c.step.Store(&step)
}

// Crash implements storetest.Crasher. Some of what was not synced may be there
// all the same; all of it, if only the process ends.
func (c *crasher) Crash() (open func() (store.Store, error)) {
	percent := []int{0, 50, 100}[c.rng.IntN(3)]
	image := c.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng})
	if c.stale {
		if c.last == nil {
			c.last = image
		}
		image = c.last.CrashClone(vfs.CrashCloneCfg{})
	}
	return func() (store.Store, error) { return newCrasher(image) }
}

func (c *crasher) Account(ctx context.Context, id string) (store.Account, error) {
	a, err := c.Store.Account(ctx, id)
	if err == nil && c.account != nil {
		a = c.account(a)
	}
	return a, err
}

// inParts does in several writes what must be one.
type inParts struct{ *account }

func (a inParts) Append(ctx context.Context, box store.MailboxID, d []store.Draft, o store.AppendOptions) (r store.Appended, err error) {
	for i := range d {
		one, err := a.account.Append(ctx, box, d[i:i+1], o)
		if err != nil {
			return r, err
		}
		r.Messages = append(r.Messages, one.Messages...)
	}
	return r, nil
}

// moves copies and then expunges.
type moves struct{ *account }

func (a moves) Copy(ctx context.Context, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
	r, err := a.account.Copy(ctx, from, uids, to, store.CopyOptions{})
	if err == nil && o.Move {
		_, err = a.account.Expunge(ctx, from, r.Source, store.ExpungeOptions{})
	}
	return r, err
}

// TestCrashes stops the machine before each step of the disk, and shows that
// the law would notice.
func TestCrashes(t *testing.T) {
	for name, c := range map[string]struct {
		broken bool
		change func(c *crasher)
	}{
		"as it is":                       {},
		"control: appends one by one":    {true, func(c *crasher) { c.account = func(a store.Account) store.Account { return inParts{a.(*account)} } }},
		"control: moves in two writes":   {true, func(c *crasher) { c.account = func(a store.Account) store.Account { return moves{a.(*account)} } }},
		"control: what returned is lost": {true, func(c *crasher) { c.stale = true }},
	} {
		t.Run(name, func(t *testing.T) {
			open := func() (one, two store.Store, err error) {
				s, err := newCrasher(vfs.NewCrashableMem())
				if err != nil {
					return nil, nil, err
				}
				if c.change != nil {
					c.change(s)
				}
				t.Cleanup(func() { s.Close() })
				return s, s, nil
			}
			for _, l := range storetest.Laws() {
				if l.Name != "Crashes" {
					continue
				}
				err := l.Check(t.Context(), storetest.Config{Open: open, Sweep: sweepAll, Timeout: 5 * time.Minute})
				if errors.Is(err, storetest.ErrSkipped) || (err != nil) != c.broken {
					t.Errorf("the law about crashes says: %v", err)
				}
			}
		})
	}
}
