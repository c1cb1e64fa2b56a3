package diskstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// How writes find messages. The account's lock is held throughout, so what is
// in memory and in the database are the same state.

// damaged says where a record is that cannot be read.
func damaged(err error, what string, args ...any) error {
	return unavailable(fmt.Errorf("%s: %w", fmt.Sprintf(what, args...), err))
}

// lost says why an email has no body: the sweeper was quicker, and took the
// email with it; or the body is lost.
func (a *account) lost(no uint64, err error) error {
	if !errors.Is(err, store.ErrNotExist) {
		return err
	}
	if v, again := a.s.db.Value(key2(kEmail, a.no, no)); again != nil || v == nil {
		return err
	}
	return damaged(diskdb.ErrDamaged, "email %s has lost its body", idOf('m', no))
}

// cursor reads chunks and rows of a mailbox; the state is that of its making.
type cursor struct {
	acct, box uint64
	chunks    *pebble.Iterator // nil = not used so far
	rows      *pebble.Iterator
	onRow     bool
	key       []byte // of the last row
}

func newCursor(r pebble.Reader, acct uint64, b *mailbox, chunks, rows bool) (*cursor, error) {
	c := &cursor{acct: acct, box: b.no}
	var err error
	if chunks {
		p := boxKey(kChunk, acct, b.no)
		if c.chunks, err = r.NewIter(&pebble.IterOptions{LowerBound: p, UpperBound: upper(p)}); err != nil {
			return nil, unavailable(err)
		}
	}
	if rows {
		p := boxKey(kRow, acct, b.no)
		if c.rows, err = r.NewIter(&pebble.IterOptions{LowerBound: p, UpperBound: upper(p)}); err != nil {
			c.close()
			return nil, unavailable(err)
		}
	}
	return c, nil
}

func (c *cursor) close() {
	if c.chunks != nil {
		c.chunks.Close()
	}
	if c.rows != nil {
		c.rows.Close()
	}
}

// chunk reads the chunk that begins at first.
func (c *cursor) chunk(first store.UID) (*chunk, chunkInfo, error) {
	it := c.chunks
	if !it.SeekGE(chunkKey(c.acct, c.box, first, colFlags)) {
		return nil, chunkInfo{}, c.bad(it, first)
	}
	ch := newChunk()
	at, col, ok := chunkFirst(it.Key())
	if !ok || at != first || col != colFlags {
		return nil, chunkInfo{}, c.bad(it, first)
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return nil, chunkInfo{}, unavailable(err)
	}
	info, err := ch.decodeFlags(first, v)
	if err != nil {
		return nil, chunkInfo{}, damaged(err, "flags of mailbox %s from UID %d", boxID(c.box), first)
	}
	if !it.Next() {
		return nil, chunkInfo{}, c.bad(it, first)
	}
	if at, col, ok = chunkFirst(it.Key()); !ok || at != first || col != colStatic {
		return nil, chunkInfo{}, c.bad(it, first)
	}
	if v, err = it.ValueAndErr(); err != nil {
		return nil, chunkInfo{}, unavailable(err)
	}
	err = ch.decodeStatic(v)
	if err == nil && (len(ch.uids) != len(ch.codes) || ch.uids[0] != first || ch.uids[len(ch.uids)-1] != info.last) {
		err = diskdb.ErrDamaged
	}
	if err != nil {
		return nil, chunkInfo{}, damaged(err, "index of mailbox %s from UID %d", boxID(c.box), first)
	}
	return ch, info, nil
}

// anyUnseen reports whether a chunk has an unseen message. It reads only the
// flags.
func (c *cursor) anyUnseen(first store.UID) (bool, error) {
	it := c.chunks
	if !it.SeekGE(chunkKey(c.acct, c.box, first, colFlags)) {
		return false, c.bad(it, first)
	}
	if at, col, ok := chunkFirst(it.Key()); !ok || at != first || col != colFlags {
		return false, c.bad(it, first)
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return false, unavailable(err)
	}
	ch := newChunk()
	defer ch.free()
	if _, err := ch.decodeFlags(first, v); err != nil {
		return false, damaged(err, "flags of mailbox %s from UID %d", boxID(c.box), first)
	}
	for _, code := range ch.codes {
		if code&codeGone == 0 && unseen(store.SystemFlags(code)) {
			return true, nil
		}
	}
	return false, nil
}

func (c *cursor) bad(it *pebble.Iterator, first store.UID) error {
	if err := it.Error(); err != nil {
		return unavailable(err)
	}
	return damaged(diskdb.ErrDamaged, "mailbox %s has no messages from UID %d", boxID(c.box), first)
}

// row reads the row of a UID that is greater than the one before.
func (c *cursor) row(uid store.UID) (row, error) {
	if c.key == nil {
		c.key = rowKey(c.acct, c.box, 0)
	}
	binary.BigEndian.PutUint32(c.key[lenRow-4:], uint32(uid))
	key := c.key
	ok := c.onRow && c.rows.Next()
	if !ok || string(c.rows.Key()) != string(key) {
		ok = c.rows.SeekGE(key)
	}
	c.onRow = ok
	if !ok || string(c.rows.Key()) != string(key) {
		if err := c.rows.Error(); err != nil {
			return row{}, unavailable(err)
		}
		return row{}, damaged(diskdb.ErrDamaged, "mailbox %s, UID %d: it has no row", boxID(c.box), uid)
	}
	m, err := decodeRow(uid, c.rows.Value())
	if err != nil {
		return row{}, damaged(err, "mailbox %s, UID %d", boxID(c.box), uid)
	}
	return m, nil
}

// tail calls f for the rows with these UIDs that are not gone.
func (c *cursor) tail(uids store.UIDSet, f func(m *row) error) error {
	for _, g := range uids {
		for ok := c.rows.SeekGE(rowKey(c.acct, c.box, g.First)); ok; ok = c.rows.Next() {
			key := c.rows.Key()
			if len(key) != lenRow {
				continue
			}
			uid := uidOf(key[lenRow-4:])
			if uid > g.Last {
				break
			}
			m, err := decodeRow(uid, c.rows.Value())
			if err != nil {
				return damaged(err, "mailbox %s, UID %d", boxID(c.box), uid)
			}
			if m.gone {
				continue
			}
			if err := f(&m); err != nil {
				return err
			}
		}
		if err := c.rows.Error(); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// overlapping returns the chunks of dir that may have UIDs of a set, the
// first and the one behind the last.
func overlapping(dir []chunkInfo, first, last store.UID) (from, to int) {
	from = sort.Search(len(dir), func(i int) bool { return dir[i].last >= first })
	to = from + sort.Search(len(dir)-from, func(i int) bool { return dir[from+i].first > last })
	return from, to
}

// within returns the part of uids from first to last.
func within(uids store.UIDSet, first, last store.UID) store.UIDSet {
	i := sort.Search(len(uids), func(i int) bool { return uids[i].Last >= first })
	j := i + sort.Search(len(uids)-i, func(j int) bool { return uids[i+j].First > last })
	if i == j {
		return nil
	}
	if uids[i].First >= first && uids[j-1].Last <= last {
		return uids[i:j]
	}
	out := append(store.UIDSet{}, uids[i:j]...)
	out[0].First = max(out[0].First, first)
	out[len(out)-1].Last = min(out[len(out)-1].Last, last)
	return out
}

// members calls f with the places in c of the messages with these UIDs that
// are not gone.
func (c *chunk) members(uids store.UIDSet, f func(j int)) {
	for j, u := range c.uids {
		for len(uids) > 0 && uids[0].Last < u {
			uids = uids[1:]
		}
		if len(uids) == 0 {
			return
		}
		if u >= uids[0].First && c.codes[j]&codeGone == 0 {
			f(j)
		}
	}
}

func (t *tx) readChunk(b *mailbox, first store.UID) (*chunk, error) {
	c, err := newCursor(t.a.s.db, t.a.no, b, true, false)
	if err != nil {
		return nil, err
	}
	defer c.close()
	ch, _, err := c.chunk(first)
	return ch, err
}

func (t *tx) tailRows(b *mailbox, uids store.UIDSet, f func(m *row) error) error {
	if uids = within(uids, b.tail, store.MaxUID); b.tailRows == 0 || len(uids) == 0 {
		return nil
	}
	c, err := newCursor(t.a.s.db, t.a.no, b, false, true)
	if err != nil {
		return err
	}
	defer c.close()
	return c.tail(uids, f)
}

// each calls f for the messages with these UIDs, in order; whole: also with
// what only their rows have. What the write itself has changed is not seen.
func (t *tx) each(b *mailbox, uids store.UIDSet, whole bool, f func(m *row) error) error {
	if len(uids) == 0 {
		return nil
	}
	from, to := overlapping(b.dir, uids.First(), uids.Last())
	c, err := newCursor(t.a.s.db, t.a.no, b, from < to, true)
	if err != nil {
		return err
	}
	defer c.close()
	for _, info := range b.dir[from:to] {
		in := within(uids, info.first, info.last)
		if len(in) == 0 {
			continue
		}
		ch, _, err := c.chunk(info.first)
		if err != nil {
			return err
		}
		ch.members(in, func(j int) {
			if err != nil {
				return
			}
			m := row{uid: ch.uids[j], size: ch.sizes[j], email: ch.emails[j]}
			if whole {
				if m, err = c.row(m.uid); err != nil {
					return
				}
			}
			m.system, m.words, m.modSeq = store.SystemFlags(ch.codes[j]), ch.sets[ch.codes[j]>>8], ch.modSeqs[j]
			err = f(&m)
		})
		ch.free()
		if err != nil {
			return err
		}
	}
	if uids = within(uids, b.tail, store.MaxUID); len(uids) == 0 {
		return nil
	}
	return c.tail(uids, f)
}

// editChunks calls f for the chunks of b that have messages of uids, with
// those of them that are in it, and writes what it changed.
func (t *tx) editChunks(b *boxTx, uids store.UIDSet, f func(c *chunk, in store.UIDSet) (changed bool, err error)) error {
	if len(uids) == 0 {
		return nil
	}
	from, to := overlapping(b.dir, uids.First(), uids.Last())
	if from == to {
		return nil
	}
	cur, err := newCursor(t.a.s.db, t.a.no, b.mailbox, true, false)
	if err != nil {
		return err
	}
	defer cur.close()
	drop := 0
	for k := from; k < to; k++ {
		in := within(uids, b.dir[k].first, b.dir[k].last)
		if len(in) == 0 {
			continue
		}
		c, _, err := cur.chunk(b.dir[k].first)
		if err != nil {
			return err
		}
		changed, err := f(c, in)
		if err == nil && changed {
			drop += t.rewrite(b, k, c)
		}
		c.free()
		if err != nil {
			return err
		}
	}
	if drop > 0 {
		kept := b.writable()[:0]
		for _, i := range b.dir {
			if i.live > 0 {
				kept = append(kept, i)
			}
		}
		b.dir = kept
	}
	return nil
}

// rewrite writes chunk k of b after a change, and returns 1 if nothing is
// left of it.
func (t *tx) rewrite(b *boxTx, k int, c *chunk) int {
	dir := b.writable()
	first, i := dir[k].first, c.info()
	dir[k] = i
	b.edited = true
	if i.live > 0 && int(i.live)*4 >= len(c.uids) {
		t.putChunk(b, c, i, false)
		return 0
	}
	// Most of it is gone: what is left moves together.
	t.batch().Delete(chunkKey(t.a.no, b.no, first, colFlags), nil)
	t.batch().Delete(chunkKey(t.a.no, b.no, first, colStatic), nil)
	if i.live == 0 {
		return 1
	}
	c.compact()
	dir[k] = c.info()
	t.putChunk(b, c, dir[k], true)
	return 0
}

// compact takes out what is gone.
func (c *chunk) compact() {
	n := 0
	for j, code := range c.codes {
		if code&codeGone != 0 {
			continue
		}
		c.uids[n], c.sizes[n], c.emails[n], c.codes[n], c.modSeqs[n] = c.uids[j], c.sizes[j], c.emails[j], code, c.modSeqs[j]
		n++
	}
	c.uids, c.sizes, c.emails, c.codes, c.modSeqs = c.uids[:n], c.sizes[:n], c.emails[:n], c.codes[:n], c.modSeqs[:n]
}
