package diskdb

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestOpen(t *testing.T) {
	disk := vfs.NewMem()
	c := Config{Dir: "a/b", Name: "test", Format: "test 1\n", Dirs: []string{"files"}, FS: disk, Log: slog.New(slog.DiscardHandler)}
	d, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Set([]byte("k"), []byte("v"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	other := c
	other.Format = "test 2\n"
	if _, err := Open(other); !errors.Is(err, ErrFormat) {
		t.Errorf("opened as another format: %v", err)
	}
	if d, err = Open(c); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if v, err := d.Value([]byte("k")); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := d.Value([]byte("none")); err != nil || v != nil {
		t.Errorf("%q, %v", v, err)
	}
	// A file system that cannot say how full it is is not watched.
	if err := errors.Join(d.Room(1<<50), d.Enter(1<<50)); err != nil {
		t.Error(err)
	}
	d.Leave(1 << 50)
	batch := func(v string) *pebble.Batch {
		b := d.NewBatch()
		b.Set([]byte("k"), []byte(v), nil)
		return b
	}
	w, err := d.Commit(batch("synced"))
	if err == nil {
		err = w.Wait()
	}
	if v, gerr := d.Value([]byte("k")); err != nil || gerr != nil || string(v) != "synced" {
		t.Errorf("%q, %v, %v", v, err, gerr)
	}
	b := batch("later")
	if err := errors.Join(d.CommitLater(b), b.Close()); err != nil {
		t.Error(err)
	}
	if v, err := d.Value([]byte("k")); err != nil || string(v) != "later" {
		t.Errorf("%q, %v", v, err)
	}
	pebbleLog{d}.Fatalf("the disk is %s", "gone")
	if err := d.Failure(); !errors.Is(err, ErrFailed) {
		t.Errorf("Failure: %v", err)
	}
	if _, err := d.Commit(batch("lost")); !errors.Is(err, ErrFailed) {
		t.Errorf("Commit on a disk that failed: %v", err)
	}
}

// TestFlight shows that the bound holds, that what is larger goes alone, and
// that who gives up is not waited for.
func TestFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := Flight{Max: 10}
		ctx, cancel := context.WithCancel(t.Context())
		if err := errors.Join(f.Enter(ctx, 6), f.Enter(ctx, 4)); err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 3)
		go func() {
			if f.Enter(ctx, 100) == nil {
				order <- "large"
			} else {
				order <- "gave up"
			}
		}()
		synctest.Wait()
		go func() {
			f.Enter(t.Context(), 5)
			order <- "small"
		}()
		synctest.Wait()
		f.Leave(6)
		synctest.Wait()
		if len(order) > 0 {
			t.Fatalf("%s is in beside 4 of 10", <-order)
		}
		cancel()
		synctest.Wait()
		if one, two := <-order, <-order; one != "gave up" || two != "small" {
			t.Errorf("%s, %s", one, two)
		}
		f.Leave(4)
		f.Leave(5)
		if err := f.Enter(t.Context(), 100); err != nil || f.n != 100 {
			t.Error(f.n, err)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(uint64(1), int64(-1), "text", []byte{1})
	f.Fuzz(func(t *testing.T, u uint64, i int64, text string, raw []byte) {
		w := Record(0)
		w.Uint(u)
		w.Int(i)
		w.Octet(7)
		w.Fixed(u)
		w.Text(text)
		w.Bytes(raw)
		v := w.Seal()
		r, err := Unseal(v)
		if err != nil {
			t.Fatal(err)
		}
		if a, b, c, d, e, g := r.Uint(), r.Int(), r.Octet(), r.Fixed(), r.Text(), string(r.Bytes()); a != u || b != i || c != 7 || d != u || e != text || g != string(raw) {
			t.Errorf("%d %d %d %d %q %q", a, b, c, d, e, g)
		}
		if err := r.End(); err != nil {
			t.Error(err)
		}
		// Anything else gives an error, and ends.
		if r, err := Unseal(raw); err == nil {
			t.Errorf("%x is a record", raw)
		} else {
			r.B = raw
			for range r.Count() {
				r.Uint()
			}
			r.Size()
			r.Uint32()
			if r.Text(); r.End() == nil && len(raw) == 0 {
				t.Error("nothing was a text")
			}
		}
	})
}
