package diskdb

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestLogAhead shows that small writes find their place in the log written
// already, and that what was synced is read behind none of the zeros, whatever
// else of the file a power loss leaves.
func TestLogAhead(t *testing.T) {
	disk := vfs.NewCrashableMem()
	c := Config{Dir: "db", Name: "test", Format: "test 1\n", FS: disk, Log: slog.New(slog.DiscardHandler)}
	d, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	logSize := func() (n int64) {
		list, err := disk.List(d.Path("db"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range list {
			if isLog(name) {
				info, err := disk.Stat(d.Path("db", name))
				if err != nil {
					t.Fatal(err)
				}
				n += info.Size()
			}
		}
		return n
	}
	put := func(key, size int) {
		t.Helper()
		b := d.NewBatch()
		b.Set(fmt.Append(nil, key), bytes.Repeat([]byte{byte(key)}, size), nil)
		w, err := d.Commit(b)
		if err == nil {
			err = w.Wait()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	changes, last := 0, int64(-1)
	for key := range 100 {
		put(key, 1000)
		if n := logSize(); n != last {
			changes, last = changes+1, n
		}
		if key%10 != 9 {
			continue
		}
		c.FS = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
		again, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		for k := range key + 1 {
			if v, err := again.Value(fmt.Append(nil, k)); err != nil || len(v) != 1000 || v[999] != byte(k) {
				t.Fatalf("after %d writes: of the one of %d there are %d octets, %v", key+1, k, len(v), err)
			}
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	if changes > 2 {
		t.Errorf("the log grew %d times in 100 writes", changes)
	}
	// What is written much at a time is not written twice.
	f, err := disk.OpenReadWrite("file", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := &logFile{File: f, d: d}
	for n := range 40 {
		if _, err := l.Write(make([]byte, 100<<10)); err != nil {
			t.Fatal(err)
		}
		if err := l.SyncData(); err != nil {
			t.Fatal(err)
		}
		if info, err := f.Stat(); err != nil || n > 20 && info.Size() != int64(n+1)*100<<10 {
			t.Fatalf("after %d writes of 100 KiB there are %d octets, %v", n+1, info.Size(), err)
		}
	}
}
