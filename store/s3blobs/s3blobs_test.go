package s3blobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/store/pgstore"
	"github.com/postrider/postrider/store/s3blobs"
)

var (
	_ pgstore.Blobs = (*s3blobs.Blobs)(nil)
	_ pgqueue.Blobs = (*s3blobs.Blobs)(nil)
)

// octets are n of them, no two blocks alike.
func octets(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// put writes an object.
func put(tb testing.TB, b pgstore.Blobs, name string, body []byte) {
	tb.Helper()
	w, err := b.Create(tb.Context(), name)
	if err != nil {
		tb.Fatal(err)
	}
	defer w.Close()
	if _, err := io.Copy(struct{ io.Writer }{w}, bytes.NewReader(body)); err != nil {
		tb.Fatal(err)
	}
	if err := w.Commit(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

func names(tb testing.TB, b pgstore.Blobs, prefix string, before time.Time) []string {
	tb.Helper()
	var out []string
	for name, err := range b.List(tb.Context(), prefix, before) {
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func TestRoundTrip(t *testing.T) {
	b, _ := bucket(t, nil)
	const part = 5 << 20
	for _, size := range []int{0, 1, 4096, part - 1, part, part + 1, 2 * part, 2*part + 77} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			body := octets(size)
			name := fmt.Sprint("dir/", size)
			put(t, b, name, body)
			got := make([]byte, size)
			if n, err := b.ReadAt(t.Context(), name, got, 0); n != size || err != nil && !errors.Is(err, io.EOF) {
				t.Fatalf("ReadAt: %d octets, %v", n, err)
			}
			if !bytes.Equal(got, body) {
				t.Error("other octets than were written")
			}
			if size > 100 {
				p := make([]byte, 100)
				for _, off := range []int{0, 1, size / 2, size - 100} {
					if n, err := b.ReadAt(t.Context(), name, p, int64(off)); n != 100 || err != nil || !bytes.Equal(p, body[off:off+100]) {
						t.Errorf("at %d: %d octets, %v", off, n, err)
					}
				}
				if n, err := b.ReadAt(t.Context(), name, p, int64(size-40)); n != 40 || !errors.Is(err, io.EOF) || !bytes.Equal(p[:40], body[size-40:]) {
					t.Errorf("across the end: %d octets, %v", n, err)
				}
			}
			if n, err := b.ReadAt(t.Context(), name, make([]byte, 10), int64(size)+5); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("behind the end: %d octets, %v", n, err)
			}
		})
	}
}

func TestNotThere(t *testing.T) {
	b, _ := bucket(t, nil)
	if _, err := b.ReadAt(t.Context(), "nothing", make([]byte, 10), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading what is not there: %v", err)
	}
	if err := b.Delete(t.Context(), "nothing"); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	if err := b.Delete(t.Context(), "nothing", "nothing else"); err != nil {
		t.Errorf("deleting two that are not there: %v", err)
	}
	other := *b
	other.Bucket = "no-such-bucket"
	w, err := other.Create(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Commit(t.Context()); err == nil || !strings.Contains(err.Error(), "NoSuchBucket") {
		t.Errorf("a bucket that is not there: %v", err)
	}
}

func TestListAndDelete(t *testing.T) {
	b, dir := bucket(t, nil)
	for _, name := range []string{"a/1", "a/2", "a/3", "b/1"} {
		put(t, b, name, []byte(name))
	}
	other := *b
	other.Prefix = "other/"
	put(t, &other, "a/9", []byte("x"))
	later := time.Now().Add(time.Hour)
	if got := names(t, b, "a/", later); !slices.Equal(got, []string{"a/1", "a/2", "a/3"}) {
		t.Errorf("objects: %q", got)
	}
	if got := names(t, b, "a/", time.Now().Add(-time.Hour)); len(got) != 0 {
		t.Errorf("old objects: %q", got)
	}
	if err := b.Delete(t.Context(), "a/1", "a/3", "a/7"); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "b/1"); err != nil {
		t.Fatal(err)
	}
	if got := names(t, b, "", later); !slices.Equal(got, []string{"a/2"}) {
		t.Errorf("left: %q", got)
	}
	if got := files(t, dir); len(got) != 2 {
		t.Errorf("files: %q", got)
	}
}

// An upload that was begun is listed, and deleting its name ends it.
func TestUnfinished(t *testing.T) {
	b, dir := bucket(t, nil)
	later := time.Now().Add(time.Hour)
	begin := func(name string) s3blobs.Writer {
		w, err := b.Create(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(octets(6 << 20)); err != nil { // one part is up
			t.Fatal(err)
		}
		return w
	}
	closed := begin("u/closed")
	deleted := begin("u/deleted")
	kept := begin("u/kept")
	if got := names(t, b, "u/", later); !slices.Equal(got, []string{"u/closed", "u/deleted", "u/kept"}) {
		t.Errorf("under way: %q", got)
	}
	if err := closed.Close(); err != nil {
		t.Error(err)
	}
	if err := closed.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if err := b.Delete(t.Context(), "u/deleted"); err != nil {
		t.Error(err)
	}
	if err := deleted.Commit(t.Context()); err == nil {
		t.Error("an upload that was given up was completed")
	}
	deleted.Close()
	if err := kept.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if err := kept.Commit(t.Context()); err != nil {
		t.Errorf("committed again: %v", err)
	}
	if err := kept.Close(); err != nil {
		t.Error(err)
	}
	if got := names(t, b, "u/", later); !slices.Equal(got, []string{"u/kept"}) {
		t.Errorf("left: %q", got)
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("files: %q", got)
	}
}

func TestCancelled(t *testing.T) {
	b, dir := bucket(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	w, err := b.Create(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(octets(6 << 20)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := w.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if got := append(names(t, b, "", time.Now().Add(time.Hour)), files(t, dir)...); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
	if _, err := b.Create(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("Create: %v", err)
	}
}
