package diskstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/storetest"
)

// testKeys wraps with one key for each account.
type testKeys struct{ unwrapped atomic.Int64 }

func (k *testKeys) key(account string) []byte {
	h := hashOf("key of " + account)
	return append(h[:], h[:]...)
}

func (k *testKeys) Wrap(_ context.Context, account string, key []byte) ([]byte, error) {
	return sealBox(k.key(account), "wrap", key)
}

func (k *testKeys) Unwrap(_ context.Context, account string, wrapped []byte) ([]byte, error) {
	k.unwrapped.Add(1)
	return openBox(k.key(account), "wrap", wrapped)
}

// TestLawsSealed runs the laws over a store that compresses and encrypts.
func TestLawsSealed(t *testing.T) {
	for name, o := range map[string]Options{
		"compressed":            {Compress: true, BodyMemory: 20, lengths: lengths{5, 6, 3}},
		"sealed":                {Keys: &testKeys{}, lengths: lengths{5, 6, 3}},
		"compressed and sealed": {Compress: true, Keys: &testKeys{}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, l := range storetest.Laws() {
				switch l.Name {
				case "L10", "L11", "L13", "L14", "L19", "Read", "Write", "Bodies", "Damage": // those that are about content
				default:
					continue
				}
				err := l.Check(t.Context(), storetest.Config{Open: func() (one, two store.Store, err error) {
					s := newStore(t, o)
					if l.Name != "Damage" {
						t.Cleanup(func() { check(t, s) })
					}
					return s, s, nil
				}, Sweep: sweepAll, Damage: damage})
				if err != nil && !errors.Is(err, storetest.ErrSkipped) {
					t.Errorf("%s: %v", l.Name, err)
				}
			}
		})
	}
}

// TestSealed looks into the files of a store: nothing of a message is there to
// be read, with the key of another account neither, and what was written
// without keys, or not compressed, is read all the same.
func TestSealed(t *testing.T) {
	dir := t.TempDir()
	const secret = "the plot thickens"
	keys := &testKeys{}
	o := Options{MinFree: -1, BodyMemory: 5000}
	bodies := map[string]string{"short": secret, "long": strings.Repeat(secret+"\r\n", 10_000)}
	step := func(o Options, f func(s *Store, a, b store.Account)) {
		s, err := Open(dir, &o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, name := range []string{"a", "b"} {
			if err := s.CreateAccount(ctx, name); err != nil && !errors.Is(err, store.ErrExist) {
				t.Fatal(err)
			}
		}
		a, err := s.Account(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Account(ctx, "b")
		if err != nil {
			t.Fatal(err)
		}
		f(s, a, b)
	}
	add := func(s *Store, a, b store.Account) {
		for _, text := range bodies {
			d := store.Draft{Head: []byte("Subject: " + secret + "\r\n"), Body: strings.NewReader(text), Summary: []byte(secret)}
			if _, err := a.Append(ctx, store.Inbox, []store.Draft{d}, store.AppendOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for m := range a.Messages(ctx, store.Inbox, store.Query{}) { // and a link from another account
			blob, err := a.Open(ctx, m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Append(ctx, store.Inbox, []store.Draft{{Body: blob}}, store.AppendOptions{}); err != nil {
				t.Fatal(err)
			}
			blob.Close()
		}
	}
	sealed := o
	sealed.Keys = keys
	step(sealed, add)
	visible := func() bool {
		found := false
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			found = found || bytes.Contains(text, []byte("plot"))
			return err
		})
		return found
	}
	if visible() {
		t.Error("the message can be read in the files")
	}
	step(o, func(s *Store, a, _ store.Account) {
		for m := range a.Messages(ctx, store.Inbox, store.Query{}) {
			if _, err := a.Open(ctx, m); err == nil {
				t.Error("it was opened without keys")
			}
		}
	})
	packed := sealed
	packed.Compress = true
	step(packed, add)
	step(o, func(s *Store, a, _ store.Account) { // not sealed
		d := store.Draft{Head: []byte("Subject: " + secret + "\r\n"), Body: strings.NewReader(secret), Summary: []byte(secret)}
		if _, err := a.Append(ctx, store.Inbox, []store.Draft{d}, store.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	if !visible() {
		t.Error("what is not sealed cannot be seen: this test sees nothing")
	}
	step(packed, func(s *Store, a, b store.Account) {
		check(t, s)
		for k, acc := range []store.Account{a, b} {
			n := 0
			for m, err := range acc.Messages(ctx, store.Inbox, store.Query{Fields: store.WithSummary | store.WithBody}) {
				if err != nil {
					t.Fatal(err)
				}
				n++
				blob, err := acc.Open(ctx, m)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
				blob.Close()
				head, body, _ := strings.Cut(string(text), "\r\n")
				if err != nil || head != "Subject: "+secret || body != bodies["short"] && body != bodies["long"] {
					t.Errorf("account %d, UID %d: %d octets, %v", k, m.UID, len(text), err)
				}
				if k == 0 && string(m.Summary) != secret {
					t.Errorf("UID %d: Summary %q", m.UID, m.Summary)
				}
			}
			if n == 0 {
				t.Error("nothing is there")
			}
		}
	})
	if keys.unwrapped.Load() == 0 {
		t.Error("nothing was unwrapped")
	}
	// The long body is much the same again and again.
	step(packed, func(s *Store, a, _ store.Account) {
		list, err := os.ReadDir(filepath.Join(dir, "blobs"))
		if err != nil {
			t.Fatal(err)
		}
		small := 0
		for _, d := range list {
			if i, err := d.Info(); err == nil && i.Size() < 20_000 {
				small++
			}
		}
		if small == 0 {
			t.Error("no file is compressed")
		}
	})
}

// TestFrames packs and seals frames of many lengths, easy and hard ones.
func TestFrames(t *testing.T) {
	hard := make([]byte, frameSize)
	rand.Read(hard)
	p := &packer{}
	for name, c := range map[string]coding{"packed": {zstd: true, pack: p}, "sealed": {key: newKey()}, "packed and sealed": {zstd: true, pack: p, key: newKey()}} {
		for _, what := range [][]byte{bytes.Repeat([]byte("x"), frameSize), bytes.Repeat([]byte("ab cd "), frameSize/6+1), hard} {
			for n := 1; n <= frameSize; n += 1 + n/50 {
				plain := what[:n]
				stored, err := c.seal(plain, 3)
				if err != nil {
					t.Fatal(err)
				}
				if again, err := c.open(nil, bytes.Clone(stored), 3, n); err != nil || !bytes.Equal(again, plain) {
					t.Fatalf("%s: a frame of %d octets, stored as %d, comes out as %d, %v", name, n, len(stored), len(again), err)
				}
				if _, err := c.open(nil, bytes.Clone(stored), 3, n+1); !errors.Is(err, diskdb.ErrDamaged) {
					t.Fatalf("%s: a frame of %d octets was taken for one of %d: %v", name, n, n+1, err)
				}
			}
		}
	}
	// As the first versions wrote short ones: without their length.
	old := coding{zstd: true, pack: p}
	stored := []byte("\x01\x28\xb5\x2f\xfd\x00\x00\x5b\x00\x00x")
	if out, err := old.open(nil, stored, 0, 11); err != nil || string(out) != "xxxxxxxxxxx" {
		t.Errorf("a short frame without its length: %q, %v", out, err)
	}
	bomb := []byte("\x01\x28\xb5\x2f\xfd\x00\x70\x03\x00\x10x") // more than there is room for
	if _, err := old.open(nil, bomb, 0, 11); !errors.Is(err, diskdb.ErrDamaged) {
		t.Errorf("a frame that gets longer than it should: %v", err)
	}
}
