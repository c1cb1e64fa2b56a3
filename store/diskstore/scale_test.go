package diskstore

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/postrider/postrider/store"
)

// TestScale fills many accounts at once and counts. POSTRIDER_SCALE=1 is the
// long form: 1,000,000 messages in 1,000 accounts, and one of 1 GB.
func TestScale(t *testing.T) {
	accounts, each, large := 100, 50, int64(40<<20)
	if os.Getenv("POSTRIDER_SCALE") != "" {
		accounts, each, large = 1000, 1000, 1<<30
	}
	s := newStore(t, Options{})
	var wg sync.WaitGroup
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for k := range next {
				if err := fillAccount(s, fmt.Sprint("account ", k), each); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for k := range accounts {
		next <- k
	}
	close(next)
	wg.Wait()
	r := check(t, s)
	if r.Accounts != accounts || r.Messages != accounts*each {
		t.Errorf("%d accounts with %d messages, want %d and %d", r.Accounts, r.Messages, accounts, accounts*each)
	}
	largeMessage(t, s, large)
}

func fillAccount(s *Store, name string, n int) error {
	if err := s.CreateAccount(ctx, name); err != nil {
		return err
	}
	a, err := s.Account(ctx, name)
	if err != nil {
		return err
	}
	var d []store.Draft
	for i := range n {
		d = append(d, store.Draft{Body: strings.NewReader(strings.Repeat(fmt.Sprintf("%s, message %d\r\n", name, i), 1+i%20)), Summary: []byte("summary")})
		if len(d) == 10 || i == n-1 {
			if _, err := a.Append(ctx, store.Inbox, d, store.AppendOptions{}); err != nil {
				return err
			}
			d = nil
		}
	}
	return nil
}

// endless is a body that is nowhere.
type endless int64

func (e endless) Size() int64 { return int64(e) }

func (e endless) ReadAt(p []byte, off int64) (int, error) {
	n := min(int64(len(p)), int64(e)-off)
	if n <= 0 {
		return 0, io.EOF
	}
	for i := range p[:n] {
		p[i] = byte((off + int64(i)) * 31 >> 4)
	}
	if int(n) < len(p) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// largeMessage goes through little memory, in and out.
func largeMessage(t *testing.T, s *Store, size int64) {
	a := newAccount(t, s, "large")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := a.Append(ctx, store.Inbox, []store.Draft{{Head: []byte("X: y\r\n"), Body: endless(size)}}, store.AppendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Open(ctx, r.Messages[0])
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	buf, want := make([]byte, 32<<10), make([]byte, 32<<10)
	for off := int64(6); off < b.Size(); {
		n, err := b.ReadAt(buf, off)
		if err != nil && off+int64(n) < b.Size() {
			t.Fatal(err)
		}
		endless(size).ReadAt(want[:n], off-6)
		if string(want[:n]) != string(buf[:n]) {
			t.Fatalf("another octet after %d", off)
		}
		off += int64(n)
	}
	runtime.ReadMemStats(&after)
	if b.Size() != size+6 {
		t.Errorf("%d octets, want %d", b.Size(), size+6)
	}
	// Beside what goes on in the background.
	if n := after.TotalAlloc - before.TotalAlloc; n > 24<<20 {
		t.Errorf("a message of %d octets allocated %d", size, n)
	}
}
