package diskstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// content is a head and a body in memory.
type content struct{ head, body []byte }

func (c *content) Size() int64 { return int64(len(c.head) + len(c.body)) }

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	n := 0
	if off < int64(len(c.head)) {
		n = copy(p, c.head[off:])
	}
	if at := off + int64(n) - int64(len(c.head)); n < len(p) && at < int64(len(c.body)) {
		n += copy(p[n:], c.body[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// blob is an open message.
type blob struct {
	content
	s      *Store
	e      *email
	file   *frameFile // nil = the body is in content
	closed atomic.Bool
}

func (b *blob) Size() int64 { return b.e.size() }

func (b *blob) ReadAt(p []byte, off int64) (int, error) {
	if b.closed.Load() {
		return 0, errBodyClosed
	}
	if b.file == nil {
		return b.content.ReadAt(p, off)
	}
	if off < 0 {
		return 0, errOffset
	}
	n := 0
	if off < int64(len(b.head)) {
		if n = copy(p, b.head[off:]); n == len(p) {
			return n, nil
		}
	}
	k, err := b.file.ReadAt(p[n:], off+int64(n)-int64(len(b.head)))
	return n + k, err
}

func (b *blob) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	var err error
	if b.file != nil {
		err = b.file.f.Close()
	}
	b.s.pins.drop(b.e.blob)
	return err
}

// Open implements store.Account.
func (a *account) Open(ctx context.Context, m store.Message) (store.Blob, error) {
	s := a.s
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	no, ok := numberOf('m', m.ID)
	if !ok {
		return nil, store.ErrNotExist
	}
	a.mu.Lock()
	gone, l := a.gone, a.last
	a.mu.Unlock()
	if gone {
		return nil, store.ErrNotExist
	}
	e, err := a.readEmail(ctx, no)
	if err != nil {
		return nil, err
	}
	if err := l.wait(); err != nil {
		return nil, err
	}
	b := &blob{s: s, e: e}
	b.head = e.head
	s.pins.add(e.blob)
	if err := b.open(); err != nil {
		s.pins.drop(e.blob)
		return nil, a.lost(no, err)
	}
	return b, nil
}

// open reads the body. The sweeper may have been quicker.
func (b *blob) open() error {
	if b.e.blob == 0 {
		return nil
	}
	body, file, err := b.s.readBody(b.e)
	if err != nil {
		return err
	}
	b.body, b.file = body, file
	return nil
}

// readEmail reads an email; store.ErrNotExist.
func (a *account) readEmail(ctx context.Context, no uint64) (*email, error) {
	v, err := a.s.db.Value(key2(kEmail, a.no, no))
	if err != nil {
		return nil, unavailable(err)
	}
	if v == nil {
		return nil, store.ErrNotExist
	}
	e, size, err := decodeEmail(no, v)
	if err == nil {
		err = a.s.unlock(ctx, a.name, e, size)
	}
	if err != nil {
		return nil, damaged(err, "email %s", idOf('m', no))
	}
	return e, nil
}

// readBody reads the body of an email, or opens its file.
func (s *Store) readBody(e *email) ([]byte, *frameFile, error) {
	v, err := s.db.Value(key1(kBlob, e.blob))
	if err != nil {
		return nil, nil, unavailable(err)
	}
	if v != nil {
		body, err := s.decodeBody(v, e.bodyKey, e.bodySize)
		if err != nil {
			return nil, nil, damaged(err, "body of email %s", idOf('m', e.no))
		}
		return body, nil, nil
	}
	if v, err = s.db.Value(key1(kFile, e.blob)); err != nil {
		return nil, nil, unavailable(err)
	}
	if v == nil {
		return nil, nil, store.ErrNotExist
	}
	l, err := s.decodeLayout(v, e.bodyKey)
	if err == nil && l.size != e.bodySize {
		err = diskdb.ErrDamaged
	}
	if err != nil {
		return nil, nil, damaged(err, "body of email %s", idOf('m', e.no))
	}
	f, err := s.o.fs.Open(s.blobPath(e.blob))
	if errors.Is(err, fs.ErrNotExist) {
		if v, err := s.db.Value(key1(kFile, e.blob)); err == nil && v == nil {
			return nil, nil, store.ErrNotExist
		}
		err = damaged(fmt.Errorf("%w: %w", diskdb.ErrDamaged, err), "body of email %s", idOf('m', e.no))
	}
	if err != nil {
		return nil, nil, unavailable(err)
	}
	return nil, &frameFile{f: f, layout: l}, nil
}

// encodeBody is the record of a body in the database.
func encodeBody(c coding, body []byte) ([]byte, error) {
	stored, err := c.seal(body, 0)
	if err != nil {
		return nil, err
	}
	w := diskdb.Record(len(stored) + 8)
	w.Octet(c.octet())
	w.B = append(w.B, stored...)
	return w.Seal(), nil
}

// decodeBody reads a body of size octets; it belongs to v.
func (s *Store) decodeBody(v, key []byte, size int64) ([]byte, error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return nil, err
	}
	c, err := s.readCoding(r.Octet(), key)
	if err != nil {
		return nil, err
	}
	if r.Err() != nil || size > 1<<31 {
		return nil, diskdb.ErrDamaged
	}
	return c.open(nil, r.B, 0, int(size))
}

// prepared is a Draft ready to become a row.
type prepared struct {
	no       uint64 // of the email; 0 = a new one
	thread   uint64 // 0 = to be found
	head     []byte
	blob     uint64
	bodySize int64 // of the body
	body     *staged
	own      bool // body is to be closed
	flags    store.Flags
	date     time.Time
	summary  []byte
	ids      [][hashBytes]byte

	bodyKey []byte // nil = the body is not sealed
	// What lock made of it.
	dataKey, wrapped, sealedKey []byte
	storedHead, storedSummary   []byte
}

func (p *prepared) size() int64 { return int64(len(p.head)) + p.bodySize }

// cost is about what goes into the database.
func (p *prepared) cost() int64 {
	n := int64(len(p.head)+len(p.summary)) + rowCost + 256
	if p.body != nil && p.body.file == nil {
		n += p.bodySize
	}
	return n
}

func (p *prepared) how() byte {
	if p.wrapped != nil {
		return codeSealed
	}
	return 0
}

func (p *prepared) release() {
	if p.own {
		p.body.Close()
	}
}

// maxReferences bounds what one message adds to the threads.
const maxReferences = 32

// prepare brings a Draft's body to where it will stay, and seals what is to
// be sealed for an account, before any lock is taken.
func (s *Store) prepare(ctx context.Context, account string, d store.Draft) (p prepared, err error) {
	if err := s.begin(ctx); err != nil {
		return p, err
	}
	defer s.end()
	p = prepared{flags: store.NewFlags(d.Flags.System&^codeGone, d.Flags.Keywords...), date: d.InternalDate, summary: bytes.Clone(d.Summary), head: d.Head}
	if d.Body != nil {
		p.bodySize = d.Body.Size()
	}
	if s.o.MessageSize > 0 && p.size() > s.o.MessageSize {
		return p, store.ErrTooBig
	}
	for i, id := range append([]string{d.MessageID}, d.References...) {
		// The message's own, the thread's first, and the latest.
		if id != "" && (i < 2 || i > len(d.References)-(maxReferences-2)) {
			p.ids = append(p.ids, hashOf(id))
		}
	}
	switch b := d.Body.(type) {
	case *blob:
		if b.s == s && !b.closed.Load() {
			p.blob, p.bodySize, p.thread, p.bodyKey = b.e.blob, b.e.bodySize, b.e.thread, b.e.bodyKey
			if len(d.Head) == 0 {
				p.no, p.head = b.e.no, b.head // the same octets
			} else {
				p.head = append(bytes.Clone(d.Head), b.head...)
			}
			return p, p.lock(ctx, s.o.Keys, account)
		}
	case *staged:
		if b.s == s {
			p.body = b
			if len(d.Head) == 0 {
				p.no = b.no
			}
		}
	}
	if p.body == nil && p.bodySize > 0 {
		if p.body, err = s.newStaged(p.bodySize); err != nil {
			return p, err
		}
		p.own = true
		if err := p.body.readFrom(d.Body, p.bodySize); err != nil {
			p.release()
			return p, fmt.Errorf("diskstore: reading the body: %w", err)
		}
	}
	if p.body != nil {
		if err := p.body.seal(); err != nil {
			p.release()
			return p, err
		}
		p.bodySize = p.body.size
		if p.bodySize > 0 {
			p.blob, p.bodyKey = p.body.no, p.body.frames.key
		} else {
			p.body = nil // and not our own: we make none for nothing
		}
	}
	if err := p.lock(ctx, s.o.Keys, account); err != nil {
		p.release()
		return p, err
	}
	return p, nil
}

// email returns the account's email for a Draft: the one that it has, or a
// new one, which it writes.
func (t *tx) email(ctx context.Context, p *prepared) (*email, error) {
	a := t.a
	if p.no != 0 {
		if e := t.fresh[p.no]; e != nil {
			return e, nil
		}
		e, err := a.readEmail(ctx, p.no)
		if err == nil || !errors.Is(err, store.ErrNotExist) {
			return e, err
		}
	}
	e := &email{no: p.no, thread: p.thread, blob: p.blob, bodySize: p.bodySize, head: p.head, ids: p.ids,
		key: p.wrapped, sealedKey: p.sealedKey}
	if e.no == 0 {
		e.no = a.s.nums.next()
	}
	if err := t.enthread(e); err != nil {
		return nil, err
	}
	b := t.batch()
	b.Set(key2(kEmail, a.no, e.no), e.encode(p.storedHead), nil)
	if len(p.summary) > 0 {
		b.Set(key2(kSummary, a.no, e.no), encodeSummary(p.how(), p.storedSummary), nil)
	}
	if e.blob != 0 {
		b.Set(key3(kBlobRef, e.blob, a.no, e.no), nil, nil)
	}
	if p.body != nil && !p.body.stored.Load() && !slices.Contains(t.stored, p.body) {
		if p.body.file != nil {
			b.Set(key1(kFile, e.blob), p.body.frames.encode(), nil)
		} else {
			b.Set(key1(kBlob, e.blob), p.body.record, nil)
		}
		t.stored = append(t.stored, p.body)
	}
	if t.fresh == nil {
		t.fresh = make(map[uint64]*email)
	}
	t.fresh[e.no] = e
	return e, nil
}

// enthread finds the thread of a new email, that of one that it refers to or
// is referred to by, else a new one (RFC 8474 §5.2), and makes its Message-IDs
// lead there.
func (t *tx) enthread(e *email) error {
	leads := make([]thread, len(e.ids))
	for i, h := range e.ids {
		lead, known := t.leads[h]
		if !known {
			v, err := t.a.s.db.Value(hashKey(kThread, t.a.no, h))
			if err != nil {
				return unavailable(err)
			}
			if v != nil {
				if lead, err = decodeThread(v); err != nil {
					lead = thread{} // it leads nowhere any more
				}
			}
		}
		leads[i] = lead
		if e.thread == 0 {
			e.thread = lead.no
		}
	}
	if e.thread == 0 {
		e.thread = t.a.s.nums.next()
	}
	for i, h := range e.ids {
		lead, known := t.leads[h]
		if !known {
			lead = leads[i]
		}
		if lead.no == 0 {
			lead.no = e.thread
		}
		lead.refs++
		if t.leads == nil {
			t.leads = make(map[[hashBytes]byte]thread)
		}
		t.leads[h] = lead
		t.batch().Set(hashKey(kThread, t.a.no, h), lead.encode(), nil)
	}
	return nil
}
