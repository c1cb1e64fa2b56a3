package s3blobs_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
	"github.com/postrider/postrider/store/storetest"
)

// every = no body stays in the database.
const every = -1

func openStore(tb testing.TB, pool *pgxpool.Pool, o pgstore.Options) *pgstore.Store {
	tb.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	s, err := pgstore.Open(tb.Context(), pool, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func openQueue(tb testing.TB, pool *pgxpool.Pool, o pgqueue.Options) *pgqueue.Storage {
	tb.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	s, err := pgqueue.Open(tb.Context(), pool, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

// transport keeps connections for many requests at once.
func transport(tb testing.TB) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	tb.Cleanup(t.CloseIdleConnections)
	return t
}

func TestStoreLaws(t *testing.T) {
	t.Parallel() // they wait most of the time
	pool := pgtest.Pool(t)
	b, _ := bucket(t, transport(t))
	storetest.Run(t, storetest.Config{
		Open: func() (one, two store.Store, err error) {
			o := pgstore.Options{Schema: pgtest.Schema(t, pool), Blobs: b, BlobsAbove: every}
			return openStore(t, pool, o), openStore(t, pool, o), nil
		},
		SetQuota: func(s store.Store, account string, octets int64) error {
			return s.(*pgstore.Store).SetQuota(context.Background(), account, octets)
		},
		Rounds: 50,
		// A loaded machine with a database and a gateway beside is slow.
		Watch: 20 * time.Second, Timeout: 5 * time.Minute,
	})
}

func TestQueueStorage(t *testing.T) {
	t.Parallel()
	b, _ := bucket(t, transport(t))
	queuetest.Run(t, func(t *testing.T, c queuetest.Config) queue.Storage {
		if c.MaxBytes != 0 {
			t.Skip("a database has no bound of the queue's own")
		}
		pool := pgtest.Pool(t)
		return openQueue(t, pool, pgqueue.Options{Schema: pgtest.Schema(t, pool), Now: c.Now, KeepEvents: true, Blobs: b, BlobsAbove: every})
	})
}

// account makes one.
func account(tb testing.TB, s *pgstore.Store, id string) store.Account {
	tb.Helper()
	if err := s.CreateAccount(tb.Context(), id); err != nil {
		tb.Fatal(err)
	}
	a, err := s.Account(tb.Context(), id)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// large is how large the large body is: POSTRIDER_LARGE=1 makes it 1 GiB.
func large() int64 {
	if os.Getenv("POSTRIDER_LARGE") != "" {
		return 1 << 30
	}
	return 100 << 20
}

// pattern is a body that nobody has in memory.
type pattern struct{ at int64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(p.at>>12) ^ byte(p.at*7)
		p.at++
	}
	return len(b), nil
}

// heap watches how much memory is in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A large body goes up and down in constant memory, and a part of it costs
// about that part.
func TestLarge(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	var c counter
	b, _ := bucket(t, &c)
	s := openStore(t, pool, pgstore.Options{Schema: pgtest.Schema(t, pool), Blobs: b, Timeout: 10 * time.Minute})
	acc := account(t, s, "ann")
	size := large()
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	runtime.GC()
	before, most := heap(), uint64(0)
	watched := func(n int64, r io.Reader, w io.Writer) {
		t.Helper()
		buf := make([]byte, 64<<10)
		for done, i := int64(0), 0; done < n; i++ {
			m, err := io.ReadFull(r, buf[:min(int64(len(buf)), n-done)])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(buf[:m]); err != nil {
				t.Fatal(err)
			}
			done += int64(m)
			if i%100 == 0 {
				most = max(most, heap())
			}
		}
	}
	st, err := s.Stage(ctx, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	watched(size, new(pattern), st)
	r, err := acc.Append(ctx, store.Inbox, []store.Draft{{Head: []byte("Return-Path: <>\r\n"), Body: st}}, store.AppendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m := r.Messages[0]
	if m.Size != size+17 {
		t.Fatalf("Size is %d", m.Size)
	}
	blob, err := acc.Open(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	requests, octets := c.gets()
	watched(size, io.NewSectionReader(blob, 17, size), &compare{t: t})
	requests2, octets2 := c.gets()
	t.Logf("%d MiB: up to %d KiB of heap more, %d GETs for %d MiB", size>>20, int64(most-min(before, most))>>10, requests2-requests, (octets2-octets)>>20)
	if most > before+(48<<20) {
		t.Errorf("the heap grew by %d MiB", (most-before)>>20)
	}
	if n := int64(requests2 - requests); n > size>>20+10 {
		t.Errorf("%d GETs for a read of all", n)
	}
	if n := octets2 - octets; n > size+size/50 {
		t.Errorf("%d octets for a read of all %d", n, size)
	}
	// FETCH BODY[]<0.100>, and some from the middle.
	for _, off := range []int64{0, size / 2} {
		blob, err := acc.Open(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		requests, octets := c.gets()
		if n, err := blob.ReadAt(make([]byte, 100), off); n != 100 || err != nil {
			t.Fatalf("%d octets, %v", n, err)
		}
		requests2, octets2 := c.gets()
		if requests2-requests != 1 || octets2-octets > 128<<10 {
			t.Errorf("100 octets at %d: %d GETs, %d octets", off, requests2-requests, octets2-octets)
		}
		blob.Close()
	}
}

// compare checks what is written to it.
type compare struct {
	t    *testing.T
	want pattern
	buf  []byte
}

func (c *compare) Write(p []byte) (int, error) {
	c.buf = append(c.buf[:0], p...)
	c.want.Read(c.buf)
	if !bytes.Equal(c.buf, p) {
		c.t.Fatalf("other octets before %d", c.want.at)
	}
	return len(p), nil
}

// The choice is by size.
func TestBySize(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	b, dir := bucket(t, nil)
	o := pgstore.Options{Schema: pgtest.Schema(t, pool), Blobs: b}
	s := openStore(t, pool, o)
	acc := account(t, s, "ann")
	for i, c := range []struct{ size, objects int }{{0, 0}, {10, 0}, {128 << 10, 0}, {128<<10 + 1, 1}, {300 << 10, 2}} {
		body := octets(c.size)
		r, err := acc.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(body)}}, store.AppendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(files(t, dir)); n != c.objects {
			t.Errorf("%d: %d objects after %d octets, want %d", i, n, c.size, c.objects)
		}
		same(t, acc, r.Messages[0], body)
	}
	var chunks int
	if err := pool.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM %s.chunks", o.Schema)).Scan(&chunks); err != nil || chunks != 0 {
		t.Errorf("%d chunks, %v", chunks, err)
	}
	// Without Blobs what is in an object cannot be read, and says so.
	o.Blobs = nil
	plain := openStore(t, pool, o)
	a, err := plain.Account(ctx, "ann")
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range a.Messages(ctx, store.Inbox, store.Query{UIDs: store.UIDs(5)}) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Open(ctx, m); err == nil {
			t.Error("an object was opened without Blobs")
		}
	}
	if err := plain.Sweep(ctx); err != nil {
		t.Error(err)
	}
}

// same checks what a message says.
func same(tb testing.TB, acc store.Account, m store.Message, want []byte) {
	tb.Helper()
	b, err := acc.Open(tb.Context(), m)
	if err != nil {
		tb.Fatal(err)
	}
	defer b.Close()
	got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil || !bytes.Equal(got, want) {
		tb.Fatalf("UID %d: %d octets, want %d, %v", m.UID, len(got), len(want), err)
	}
}
