package objects_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/objects"
)

// memory is Blobs with what it was asked for.
type memory struct {
	mu       sync.Mutex
	m        map[string][]byte
	requests int
	octets   int
	largest  int
	refuse   error // Commits fail with it
}

func (m *memory) Create(_ context.Context, name string) (objects.Writer, error) {
	return &writer{m: m, name: name}, nil
}

type writer struct {
	m    *memory
	name string
	buf  bytes.Buffer
}

func (w *writer) Write(p []byte) (int, error) { return w.buf.Write(p) }
func (w *writer) Close() error                { return nil }
func (w *writer) Commit(context.Context) error {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.m.refuse != nil {
		return w.m.refuse
	}
	if w.m.m == nil {
		w.m.m = make(map[string][]byte)
	}
	w.m.m[w.name] = w.buf.Bytes()
	return nil
}

func (m *memory) ReadAt(_ context.Context, name string, p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests++
	m.octets += len(p)
	m.largest = max(m.largest, len(p))
	b, ok := m.m[name]
	if !ok {
		return 0, fs.ErrNotExist
	}
	return bytes.NewReader(b).ReadAt(p, off)
}

func (m *memory) Delete(context.Context, ...string) error { return nil }

func (m *memory) List(context.Context, string, time.Time) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}

func upload(t *testing.T, m *memory, body []byte) *objects.Upload {
	t.Helper()
	u, err := objects.Begin(t.Context(), m, "x")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, uint64(len(body))))
	for rest := body; len(rest) > 0; {
		n := min(len(rest), 1+r.IntN(100_000))
		if _, err := u.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	return u
}

func octets(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestReader(t *testing.T) {
	for _, size := range []int{1, objects.Block - 1, objects.Block, objects.Block + 1, 3*objects.Window + 5} {
		body := octets(size)
		m := new(memory)
		u := upload(t, m, body)
		if err := u.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, want := len(u.Sums()), 4*((size+objects.Block-1)/objects.Block); n != want {
			t.Fatalf("%d octets have sums of %d, want %d", size, n, want)
		}
		r := &objects.Reader{Blobs: m, Name: "x", Size: int64(size), Sums: u.Sums()}
		var wg sync.WaitGroup
		for g := range 4 { // from many goroutines, in any order
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(2, uint64(g)))
				at := 0
				for range 200 {
					if rnd.IntN(3) == 0 {
						at = rnd.IntN(size + 10)
					}
					p := make([]byte, rnd.IntN(200_000))
					n, err := r.ReadAt(t.Context(), p, int64(at))
					want := body[min(at, size):min(at+len(p), size)]
					if !bytes.Equal(p[:n], want) || (err != nil) != (n < len(p)) || err != nil && !errors.Is(err, io.EOF) {
						t.Errorf("%d at %d of %d: %d octets, %v", len(p), at, size, n, err)
						return
					}
					at += n
				}
			})
		}
		wg.Wait()
		if m.largest > objects.Window {
			t.Errorf("%d octets at once", m.largest)
		}
	}
}

// What is read on from where the last read ended costs few requests and no
// octet twice; what is not costs a block.
func TestReaderAsksFor(t *testing.T) {
	const size = 20 * objects.Window
	m := new(memory)
	u := upload(t, m, octets(size))
	if err := u.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &objects.Reader{Blobs: m, Name: "x", Size: size, Sums: u.Sums()}
	p := make([]byte, 4096)
	for at := int64(0); at < size; at += int64(len(p)) {
		if _, err := r.ReadAt(t.Context(), p, at); err != nil {
			t.Fatal(err)
		}
	}
	if m.octets != size || m.requests > 25 {
		t.Errorf("in order: %d octets in %d requests", m.octets, m.requests)
	}
	m.octets, m.requests = 0, 0
	for at := int64(size - objects.Window); at > 0; at -= objects.Window {
		if _, err := r.ReadAt(t.Context(), p[:100], at+7); err != nil {
			t.Fatal(err)
		}
	}
	if m.octets > m.requests*objects.Block {
		t.Errorf("here and there: %d octets in %d requests", m.octets, m.requests)
	}
}

func TestReaderDamage(t *testing.T) {
	body := octets(3*objects.Block + 9)
	for name, harm := range map[string]func(m *memory, r *objects.Reader){
		"octet":   func(m *memory, r *objects.Reader) { m.m["x"][2*objects.Block] ^= 1 },
		"short":   func(m *memory, r *objects.Reader) { m.m["x"] = m.m["x"][:3*objects.Block] },
		"gone":    func(m *memory, r *objects.Reader) { delete(m.m, "x") },
		"no sums": func(m *memory, r *objects.Reader) { r.Sums = r.Sums[:8] },
		"longer":  func(m *memory, r *objects.Reader) { r.Size++; m.m["x"] = append(m.m["x"], 'x') },
	} {
		m := new(memory)
		u := upload(t, m, bytes.Clone(body))
		if err := u.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := &objects.Reader{Blobs: m, Name: "x", Size: int64(len(body)), Sums: u.Sums()}
		harm(m, r)
		p := make([]byte, r.Size)
		n, err := r.ReadAt(t.Context(), p, 0)
		if !errors.Is(err, objects.ErrDamaged) || !bytes.Equal(p[:n], body[:n]) {
			t.Errorf("%s: %d octets, %v", name, n, err)
		}
	}
}

func TestUpload(t *testing.T) {
	body := octets(200_000)
	m := &memory{refuse: errors.New("no")}
	u := upload(t, m, body)
	p := make([]byte, len(body))
	if _, err := u.ReadAt(t.Context(), p, 0); !errors.Is(err, m.refuse) {
		t.Errorf("ReadAt: %v", err)
	}
	if err := u.Commit(t.Context()); !errors.Is(err, m.refuse) {
		t.Errorf("Commit: %v", err)
	}
	m.refuse = nil
	if _, err := u.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, body) {
		t.Errorf("ReadAt: %v", err)
	}
	if _, err := u.Write([]byte("x")); err == nil {
		t.Error("an object that is complete was written to")
	}
	if err := u.Commit(t.Context()); err != nil {
		t.Errorf("Commit again: %v", err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	given := upload(t, m, body)
	if err := given.Close(); err != nil {
		t.Error(err)
	}
	if err := given.Commit(t.Context()); err == nil {
		t.Error("an object that was given up was completed")
	}
}
