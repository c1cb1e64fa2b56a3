package diskstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/postrider/postrider/store"
)

// TestMemoryIsUsedAgain opens, reads and closes messages from many goroutines,
// some of which read on after the Close: no reader sees another message.
func TestMemoryIsUsedAgain(t *testing.T) {
	s, err := open(t, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := newAccount(t, s, "a")
	const n = 8
	d := make([]store.Draft, n)
	for i := range d {
		d[i] = store.Draft{Head: bytes.Repeat([]byte{byte('a' + i)}, 10), Body: bytes.NewReader(bytes.Repeat([]byte{byte('a' + i)}, 1000+i*3000))}
	}
	r, err := a.Append(ctx, store.Inbox, d, store.AppendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	same := func(p []byte, i int) error {
		if k := bytes.Count(p, []byte{byte('a' + i)}); k != len(p) {
			return fmt.Errorf("message %d has %d of %d octets of others", i, len(p)-k, len(p))
		}
		return nil
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			p := make([]byte, 30_000)
			for round := range 200 {
				i := (g + round) % n
				b, err := a.Open(ctx, r.Messages[i])
				if err != nil {
					t.Error(err)
					return
				}
				var reader sync.WaitGroup
				reader.Go(func() {
					p := make([]byte, 30_000)
					for {
						k, err := b.ReadAt(p, 5)
						if errors.Is(err, errBodyClosed) {
							return
						}
						if err := same(p[:k], i); err != nil {
							t.Error(err)
							return
						}
					}
				})
				k, err := b.ReadAt(p, 0)
				if int64(k) != b.Size() || err != io.EOF {
					t.Error(k, err)
				}
				if err := errors.Join(same(p[:k], i), b.Close(), b.Close()); err != nil {
					t.Error(err)
				}
				reader.Wait()
			}
		})
		wg.Go(func() {
			p := make([]byte, 30_000)
			for range 50 {
				var last store.Body
				i := 0
				for m, err := range a.Messages(ctx, store.Inbox, store.Query{Fields: store.WithBody}) {
					if err != nil || m.Body == nil {
						t.Error(m, err)
						return
					}
					if last != nil {
						if _, err := last.ReadAt(p, 0); !errors.Is(err, errBodyClosed) {
							t.Errorf("a body of the turn before: %v", err)
						}
					}
					k, _ := m.Body.ReadAt(p, 0)
					if err := same(p[:k], i); err != nil || int64(k) != m.Size {
						t.Error(k, err)
					}
					last, i = m.Body, i+1
					if i == n-1 {
						break
					}
				}
			}
		})
	}
	wg.Wait()
}
