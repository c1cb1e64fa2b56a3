package diskdb

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// twice doubles the digits in every value, which shows if it is done twice.
func twice(d *DB, b *pebble.Batch, from []byte) (next []byte, err error) {
	it, err := d.NewIter(&pebble.IterOptions{LowerBound: []byte("k"), UpperBound: []byte("l")})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	n := 0
	for ok := it.SeekGE(from); ok; ok = it.Next() {
		if n++; n > 3 {
			return append([]byte(nil), it.Key()...), nil
		}
		if err := b.Set(append([]byte(nil), it.Key()...), append(append([]byte(nil), it.Value()...), it.Value()...), nil); err != nil {
			return nil, err
		}
	}
	return nil, it.Error()
}

func formatOf(t *testing.T, disk vfs.FS) string {
	t.Helper()
	f, err := disk.Open("d/FORMAT")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMigrate brings a directory over two formats, and stops the machine
// before each step of the disk on the way.
func TestMigrate(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	old := Config{Dir: "d", Name: "test", Format: "test 1\n", Log: log}
	middle := Config{Dir: "d", Name: "test", Format: "test 2\n", Migrations: []Migration{{"test 1\n", twice}}, Log: log}
	last := Config{Dir: "d", Name: "test", Format: "test 3\n", Migrations: []Migration{{"test 1\n", twice}, {"test 2\n", twice}}, Log: log}
	const keys = 10
	disk := vfs.NewCrashableMem()
	old.FS = disk
	d, err := Open(old)
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		if err := d.Set(fmt.Appendf(nil, "k%02d", i), fmt.Append(nil, i), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(d *DB, times int) {
		t.Helper()
		for i := range keys {
			want := ""
			for range times {
				want += fmt.Sprint(i)
			}
			if v, err := d.Value(fmt.Appendf(nil, "k%02d", i)); err != nil || string(v) != want {
				t.Errorf("key %d has %q, %v; want %q", i, v, err, want)
			}
		}
		if v, err := d.Value([]byte(migrating)); err != nil || v != nil {
			t.Errorf("a migration left %q, %v", v, err)
		}
	}

	before := disk.CrashClone(vfs.CrashCloneCfg{})
	var mu sync.Mutex
	var images []*vfs.MemFS
	last.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			images = append(images, disk.CrashClone(vfs.CrashCloneCfg{}))
		}
		return nil
	}))
	if d, err = Open(last); err != nil {
		t.Fatal(err)
	}
	check(d, 4)
	mu.Lock()
	taken := images
	mu.Unlock()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	underway := 0
	for i, image := range taken {
		text := formatOf(t, image)
		if text != "test 1\n" && text != "test 2\n" && text != "test 3\n" {
			underway++
			// Half of it is in another format: neither may see it.
			old.FS, middle.FS = image, image
			if _, err := Open(old); !errors.Is(err, ErrFormat) {
				t.Fatalf("crash %d: opened in the middle of a migration, as the old format: %v", i, err)
			}
		}
		last.FS = image
		d, err := Open(last)
		if err != nil {
			t.Fatalf("crash %d, at %q: %v", i, text, err)
		}
		check(d, 4)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if text := formatOf(t, image); text != "test 3\n" {
			t.Errorf("crash %d: FORMAT says %q in the end", i, text)
		}
	}
	t.Logf("%d crashes, %d of them in the middle of a migration", len(taken), underway)
	if underway < 10 {
		t.Errorf("only %d crashes were in the middle of a migration", underway)
	}

	// By way of the one in the middle, too; and what failed goes on later.
	image := before
	errStop := errors.New("stop")
	failing := middle
	failing.FS = image
	n := 0
	failing.Migrations = []Migration{{"test 1\n", func(d *DB, b *pebble.Batch, from []byte) ([]byte, error) {
		if n++; n == 3 {
			return nil, errStop
		}
		return twice(d, b, from)
	}}}
	if _, err := Open(failing); !errors.Is(err, errStop) {
		t.Fatalf("a Step that failed: %v", err)
	}
	middle.FS, last.FS = image, image
	if d, err = Open(middle); err != nil {
		t.Fatal(err)
	}
	check(d, 2)
	d.Close()
	if d, err = Open(last); err != nil {
		t.Fatal(err)
	}
	check(d, 4)
	d.Close()
}

// TestNewerFormat shows that a directory of a newer version is left as it is.
func TestNewerFormat(t *testing.T) {
	disk := vfs.NewMem()
	c := Config{Dir: "d", Name: "test", Format: "test 9\n", FS: disk, Log: slog.New(slog.DiscardHandler)}
	d, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	var changes []string
	c.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && disk.PathBase(op.Path) != "LOCK" {
			changes = append(changes, fmt.Sprint(op.Kind, " ", op.Path))
		}
		return nil
	}))
	c.Format, c.Migrations = "test 2\n", []Migration{{"test 1\n", twice}}
	if _, err := Open(c); !errors.Is(err, ErrFormat) {
		t.Errorf("opened a newer format: %v", err)
	}
	if len(changes) > 0 {
		t.Errorf("a directory of a newer format was changed: %q", changes)
	}
}
