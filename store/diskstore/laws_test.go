package diskstore

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

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
	var b [1]byte
	if _, err := f.ReadAt(b[:], m.Size/2); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b[:], m.Size/2)
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
