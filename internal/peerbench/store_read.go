package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/diskstore"
)

// readBench reads n messages of one size, and n files with the same octets.
type readBench struct {
	b       *storeBench
	size, n int
	dir     string
	store   *diskstore.Store
	acc     store.Account
	list    []store.Message
	buf     []byte
}

// begin writes them at the first call.
func (r *readBench) begin() error {
	if r.dir != "" {
		return nil
	}
	dir, err := r.b.folder("read")
	if err != nil {
		return err
	}
	if r.store, err = diskstore.Open(filepath.Join(dir, "mail"), nil); err != nil {
		return err
	}
	if err := r.store.CreateAccount(bg, "u"); err != nil {
		return err
	}
	if r.acc, err = r.store.Account(bg, "u"); err != nil {
		return err
	}
	text := bytes.TrimSuffix(smtpText(r.size), []byte(".\r\n"))[:r.size]
	r.dir, r.buf = dir, make([]byte, min(r.size, 64<<10))
	for i := range r.n {
		copy(text[20:], fmt.Sprintf("%08d", i))
		if err := os.WriteFile(r.name(i), text, 0o600); err != nil {
			return err
		}
		// As a delivery does it.
		head := []byte("Return-Path: <sender@example.test>\r\nDelivered-To: u@example.test\r\n")
		d := store.Draft{Head: head, Body: bytes.NewReader(text[len(head):]), Summary: text[:600], MessageID: fmt.Sprint(i)}
		if _, err := r.acc.Append(bg, store.Inbox, []store.Draft{d}, store.AppendOptions{}); err != nil {
			return err
		}
	}
	return r.reopen()
}

func (r *readBench) name(i int) string { return filepath.Join(r.dir, fmt.Sprint("file", i)) }

// reopen makes the store forget what it has in memory.
func (r *readBench) reopen() error {
	err := r.store.Close()
	if err != nil {
		return err
	}
	if r.store, err = diskstore.Open(filepath.Join(r.dir, "mail"), nil); err != nil {
		return err
	}
	if r.acc, err = r.store.Account(bg, "u"); err != nil {
		return err
	}
	r.list = r.list[:0]
	for m, err := range r.acc.Messages(bg, store.Inbox, store.Query{}) {
		if err != nil {
			return err
		}
		r.list = append(r.list, m)
	}
	return nil
}

// drain reads all of it, as a server that sends it would.
func (r *readBench) drain(b io.ReaderAt) error {
	n := 0
	for n < r.size {
		k, err := b.ReadAt(r.buf, int64(n))
		if n += k; err != nil && n < r.size {
			return err
		}
	}
	return nil
}

func (r *readBench) readFile(i int) error {
	f, err := os.Open(r.name(i))
	if err != nil {
		return err
	}
	defer f.Close()
	return r.drain(f)
}

func (r *readBench) readMessage(i int) error {
	b, err := r.acc.Open(bg, r.list[i])
	if err != nil {
		return err
	}
	defer b.Close()
	return r.drain(b)
}

// all reads each once, and returns µs for one: the median of some at a time,
// so that what else the machine did does not count.
func (r *readBench) all(read func(i int) error) (float64, error) {
	var took []float64
	step := max(r.n/100, 1)
	for i := 0; i < r.n; i += step {
		end := min(i+step, r.n)
		began := time.Now()
		for k := i; k < end; k++ {
			if err := read(k); err != nil {
				return 0, err
			}
		}
		took = append(took, time.Since(began).Seconds()*1e6/float64(end-i))
	}
	return median(took), nil
}

func (r *readBench) again(read func(i int) error) (float64, error) {
	if err := r.begin(); err != nil {
		return 0, err
	}
	if _, err := r.all(read); err != nil {
		return 0, err
	}
	return best(r.b.times(), func() (float64, error) { return r.all(read) })
}

func (r *readBench) file() (float64, error) { return r.again(r.readFile) }

func (r *readBench) hot() (float64, error) { return r.again(r.readMessage) }

func (r *readBench) fileOnce() (float64, error) { return r.again(r.readFile) }

func (r *readBench) once() (float64, error) {
	if err := r.begin(); err != nil {
		return 0, err
	}
	return best(r.b.times(), func() (float64, error) {
		if err := r.reopen(); err != nil {
			return 0, err
		}
		return r.all(r.readMessage)
	})
}
