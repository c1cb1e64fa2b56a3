package diskdb

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// TestDamagedValues: a file of values that is not there, or not as it was
// written, makes errors of what was in it, and of nothing else.
func TestDamagedValues(t *testing.T) {
	for name, damage := range map[string]func(text []byte) []byte{
		"gone":         nil,
		"changed":      func(text []byte) []byte { text[len(text)/2] ^= 1; return text },
		"end changed":  func(text []byte) []byte { text[len(text)-5] ^= 1; return text },
		"cut":          func(text []byte) []byte { return text[:len(text)/2] },
		"nothing left": func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{Dir: t.TempDir(), Name: "test", Format: "test 1\n", MinFree: -1, Log: slog.New(slog.DiscardHandler)}
			d, err := Open(c)
			if err != nil {
				t.Fatal(err)
			}
			value := func(key int) []byte { return bytes.Repeat(fmt.Append(nil, key, " "), 1000) }
			set := func(from, to int) {
				t.Helper()
				for key := from; key < to; key++ {
					if err := d.Set(fmt.Append(nil, key), value(key), pebble.Sync); err != nil {
						t.Fatal(err)
					}
				}
				if err := d.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			files := func() []string {
				list, err := filepath.Glob(d.Path("db", "*.blob"))
				if err != nil {
					t.Fatal(err)
				}
				return list
			}
			set(10, 20)
			bad := files()
			set(20, 30)
			if len(bad) != 1 || len(files()) != 2 {
				t.Fatalf("files %v, %v", bad, files())
			}
			if err := d.Close(); err != nil { // what it has open it would go on reading
				t.Fatal(err)
			}
			if damage == nil {
				err = os.Remove(bad[0])
			} else if text, rerr := os.ReadFile(bad[0]); rerr != nil {
				err = rerr
			} else {
				err = os.WriteFile(bad[0], damage(text), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if d, err = Open(c); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := d.Close(); err != nil && damage != nil {
					t.Error(err)
				}
			}()
			damaged := 0
			for key := 10; key < 30; key++ {
				switch v, err := d.Value(fmt.Append(nil, key)); {
				case errors.Is(err, ErrDamaged) && key < 20:
					damaged++
				case err != nil || !bytes.Equal(v, value(key)):
					t.Errorf("key %d: %d octets, %v", key, len(v), err)
				}
			}
			if damaged == 0 {
				t.Error("nothing is damaged")
			}
			set(30, 40)
			if v, err := d.Value([]byte("35")); err != nil || !bytes.Equal(v, value(35)) {
				t.Errorf("what is written now: %d octets, %v", len(v), err)
			}
		})
	}
}
