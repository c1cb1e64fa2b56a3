package diskdb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// Migration is the way from one format to the next.
type Migration struct {
	From string // the text of FORMAT before it, with its line end
	// Step puts some of the changes into b: those to the keys from on, nil at
	// first. It returns where the next Step goes on, nil when none is left. b
	// is one durable write together with where to go on, so no change is made
	// twice, whenever the process ends; a Step that failed has changed
	// nothing. It leaves what it cannot read as it is.
	Step func(d *DB, b *pebble.Batch, from []byte) (next []byte, err error)
}

// migrating is the key of where a migration goes on; it is not there
// otherwise. Engines have no keys that begin with a zero octet.
const migrating = "\x00migrating"

// becomes returns the text of FORMAT after Migrations[i].
func (c *Config) becomes(i int) string {
	if i+1 < len(c.Migrations) {
		return c.Migrations[i+1].From
	}
	return c.Format
}

// between returns the text of FORMAT during Migrations[i]: neither an engine
// that knows only the old format nor one that knows only the new reads it.
func (c *Config) between(i int) string {
	return strings.TrimSuffix(c.Migrations[i].From, "\n") + " on the way to " + c.becomes(i)
}

// checkFormat reads FORMAT, or writes it where nothing is yet. It returns the
// migration that is to be done first, and whether that has begun.
func (d *DB) checkFormat() (first int, begun bool, err error) {
	disk, name := d.c.FS, d.Path("FORMAT")
	f, err := disk.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return len(d.c.Migrations), false, d.newFormat()
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 200))
	if err != nil {
		return 0, false, err
	}
	text := string(b)
	if text == d.c.Format {
		return len(d.c.Migrations), false, nil
	}
	for i, m := range d.c.Migrations {
		if text == m.From || text == d.c.between(i) {
			return i, text != m.From, nil
		}
	}
	return 0, false, fmt.Errorf("%w: FORMAT says %q, the newest that is known is %q", ErrFormat, text, d.c.Format)
}

// newFormat writes FORMAT into a directory that has nothing of others.
func (d *DB) newFormat() error {
	list, err := d.c.FS.List(d.c.Dir)
	if err != nil {
		return err
	}
	for _, n := range list {
		if n != "LOCK" && n != "FORMAT.new" && n != "lost+found" {
			return fmt.Errorf("%w: there is %s and no FORMAT", ErrFormat, n)
		}
	}
	return WriteFile(d.c.FS, d.c.Dir, "FORMAT", d.c.Format)
}

// migrate does the migrations from first on. FORMAT names the new format when
// all of it is durable.
func (d *DB) migrate(first int, begun bool) error {
	for i := first; i < len(d.c.Migrations); i++ {
		if !begun {
			if err := WriteFile(d.c.FS, d.c.Dir, "FORMAT", d.c.between(i)); err != nil {
				return err
			}
		}
		begun = false
		d.c.Log.Info(d.c.Name+": bringing the directory to a newer format", "dir", d.c.Dir, "format", strings.TrimSpace(d.c.becomes(i)))
		if err := d.steps(&d.c.Migrations[i]); err != nil {
			return fmt.Errorf("on the way to %q: %w", d.c.becomes(i), err)
		}
		if err := WriteFile(d.c.FS, d.c.Dir, "FORMAT", d.c.becomes(i)); err != nil {
			return err
		}
	}
	// Of the last one, maybe of one before a crash.
	if v, err := d.Value([]byte(migrating)); err != nil || v == nil {
		return err
	}
	return d.Delete([]byte(migrating), pebble.Sync)
}

// steps does one migration, from where it was left.
func (d *DB) steps(m *Migration) error {
	from, done, err := d.progress(m)
	for err == nil && !done {
		from, err = d.step(m, from)
		done = from == nil
	}
	return err
}

// progress reads where m goes on.
func (d *DB) progress(m *Migration) (from []byte, done bool, err error) {
	v, err := d.Value([]byte(migrating))
	if err != nil || v == nil {
		return nil, false, err
	}
	r, err := Unseal(v)
	if err != nil {
		return nil, false, fmt.Errorf("where to go on: %w", err)
	}
	if r.Text() != m.From {
		return nil, false, nil // of the one before
	}
	done = r.Octet() == 1
	from = r.Bytes()
	return from, done, r.End()
}

// step is one write of m.
func (d *DB) step(m *Migration, from []byte) (next []byte, err error) {
	b := d.NewBatch()
	defer b.Close()
	if next, err = m.Step(d, b, from); err != nil {
		return nil, err
	}
	w := Record(64)
	w.Text(m.From)
	if next == nil {
		w.Octet(1)
	} else {
		w.Octet(0)
	}
	w.Bytes(next)
	if err := b.Set([]byte(migrating), w.Seal(), nil); err != nil {
		return nil, err
	}
	n := int64(b.Len())
	if err := d.Enter(n); err != nil {
		return nil, err
	}
	defer d.Leave(n)
	if err := d.Apply(b, pebble.Sync); err != nil {
		return nil, err
	}
	return next, d.Failure()
}
