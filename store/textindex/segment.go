package textindex

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// segment is some messages of one mailbox, in ascending UID, with their
// trigrams. It is written once; later segments have greater UIDs.
type segment struct {
	id         uint64
	docs, dead int
	last       store.UID
}

// members are the messages of a segment, by their number in it.
type members struct {
	uids  []store.UID
	dead  bits // expunged
	whole bits // those that any text may be in
}

// bits is a set of small numbers.
type bits []uint64

func newBits(n int) bits { return make(bits, (n+63)/64) }

func (b bits) add(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }

func (m *members) encode() []byte {
	w := diskdb.Record(len(m.uids) * 3)
	w.Uint(uint64(len(m.uids)))
	var prev store.UID
	for i, u := range m.uids {
		v := uint64(u-prev) << 2
		if m.dead.has(i) {
			v |= 1
		}
		if m.whole.has(i) {
			v |= 2
		}
		w.Uint(v)
		prev = u
	}
	return w.Seal()
}

func decodeMembers(b []byte) (*members, error) {
	r, err := diskdb.Unseal(b)
	if err != nil {
		return nil, err
	}
	n := r.Count()
	m := &members{make([]store.UID, n), newBits(n), newBits(n)}
	var uid store.UID
	for i := range n {
		v := r.Uint()
		uid += store.UID(v >> 2)
		m.uids[i] = uid
		if v&1 != 0 {
			m.dead.add(i)
		}
		if v&2 != 0 {
			m.whole.add(i)
		}
	}
	return m, r.End()
}

func readMembers(db pebble.Reader, s segment) (*members, error) {
	v, err := diskdb.Get(db, membersKey(s.id))
	if err != nil {
		return nil, err
	}
	m, err := decodeMembers(v)
	if err == nil && len(m.uids) != s.docs {
		err = diskdb.ErrDamaged
	}
	return m, err
}

// A block is the lists of some trigrams that follow one another, and has the
// first one in its key. A list is the trigram's distance from the one before,
// a head, and the numbers of the messages: as distances, or, where that takes
// less room, as bits. The head is how many octets they are, twice, plus 1 for
// bits.
const blockSize = 4 << 10

// blocks writes the blocks of a segment.
type blocks struct {
	batch *pebble.Batch
	id    uint64
	docs  int
	buf   []byte
	list  []byte
	first uint32 // of the block
	prev  uint32
	err   error
}

// add appends the list of the next trigram.
func (w *blocks) add(tri uint32, docs []uint32) {
	if len(w.buf) >= blockSize {
		w.flush()
	}
	if len(w.buf) == 0 {
		w.first, w.prev = tri, tri
	}
	w.buf = binary.AppendUvarint(w.buf, uint64(tri-w.prev))
	w.prev = tri
	w.list = w.list[:0]
	bitmap := (w.docs + 7) / 8
	var prev uint32
	for _, d := range docs {
		if len(w.list) > bitmap {
			break
		}
		w.list = binary.AppendUvarint(w.list, uint64(d-prev))
		prev = d
	}
	if len(w.list) <= bitmap {
		w.buf = binary.AppendUvarint(w.buf, uint64(len(w.list))<<1)
		w.buf = append(w.buf, w.list...)
		return
	}
	w.buf = binary.AppendUvarint(w.buf, uint64(bitmap)<<1|1)
	w.buf = append(w.buf, make([]byte, bitmap)...)
	set := w.buf[len(w.buf)-bitmap:]
	for _, d := range docs {
		set[d/8] |= 1 << (d % 8)
	}
}

func (w *blocks) flush() {
	if len(w.buf) > 0 && w.err == nil {
		w.err = w.batch.Set(blockKey(w.id, w.first), w.buf, nil)
	}
	w.buf = w.buf[:0]
}

// posting is one list of a block.
type posting struct {
	tri    uint32
	bitmap bool
	data   []byte
}

var errBlock = fmt.Errorf("%w: a block of the index", diskdb.ErrDamaged)

// next takes the first list off a block; l is the one before.
func (l *posting) next(block []byte) ([]byte, error) {
	d, n := binary.Uvarint(block)
	if n <= 0 || d >= 1<<24 {
		return nil, errBlock
	}
	head, m := binary.Uvarint(block[n:])
	if m <= 0 || head>>1 > uint64(len(block)-n-m) {
		return nil, errBlock
	}
	block = block[n+m:]
	l.tri += uint32(d)
	l.bitmap = head&1 != 0
	l.data = block[:head>>1]
	return block[head>>1:], nil
}

// each calls f with the numbers in l, of docs.
func (l *posting) each(docs int, f func(d int)) error {
	if l.bitmap {
		if len(l.data) != (docs+7)/8 {
			return errBlock
		}
		for d := range docs {
			if l.data[d/8]&(1<<(d%8)) != 0 {
				f(d)
			}
		}
		return nil
	}
	var at uint64
	for b := l.data; len(b) > 0; {
		d, n := binary.Uvarint(b)
		if at += d; n <= 0 || at >= uint64(docs) {
			return errBlock
		}
		f(int(at))
		b = b[n:]
	}
	return nil
}

// and leaves in set those that are in l.
func (l *posting) and(set, scratch bits, docs int) error {
	clear(scratch)
	if err := l.each(docs, func(d int) { scratch.add(d) }); err != nil {
		return err
	}
	for i := range set {
		set[i] &= scratch[i]
	}
	return nil
}

// lookup finds the messages of s that have all the trigrams, which ascend.
func lookup(db pebble.Reader, s segment, tris []uint32, found func(store.UID)) error {
	m, err := readMembers(db, s)
	if err != nil {
		return err
	}
	set, scratch := newBits(s.docs), newBits(s.docs)
	for i := range set {
		set[i] = ^uint64(0)
	}
	lower, upper := blockRange(s.id)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer it.Close()
	for _, tri := range tris {
		ok, err := one(it, s, tri, set, scratch)
		if err != nil {
			return err
		}
		if !ok {
			clear(set)
			break
		}
	}
	for i, u := range m.uids {
		if (set.has(i) || m.whole.has(i)) && !m.dead.has(i) {
			found(u)
		}
	}
	return it.Error()
}

// one looks one trigram up.
func one(it *pebble.Iterator, s segment, tri uint32, set, scratch bits) (bool, error) {
	if !it.SeekLT(blockKey(s.id, tri+1)) {
		return false, it.Error()
	}
	block, err := it.ValueAndErr()
	if err != nil {
		return false, err
	}
	l := posting{tri: blockFirst(it.Key())}
	for len(block) > 0 && l.tri <= tri {
		if block, err = l.next(block); err != nil {
			return false, err
		}
		if l.tri == tri {
			return true, l.and(set, scratch, s.docs)
		}
	}
	return false, nil
}

// merger reads the lists of one segment that goes into another.
type merger struct {
	s     segment
	m     *members
	to    []int // the new numbers, -1 = dead
	it    *pebble.Iterator
	block []byte
	l     posting
	done  bool
}

func newMerger(db pebble.Reader, s segment) (*merger, error) {
	m, err := readMembers(db, s)
	if err != nil {
		return nil, err
	}
	lower, upper := blockRange(s.id)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	x := &merger{s: s, m: m, it: it, done: true}
	if it.First() {
		err = x.load()
	} else {
		err = it.Error()
	}
	if err != nil {
		it.Close()
		return nil, err
	}
	return x, nil
}

func (x *merger) load() (err error) {
	if x.block, err = x.it.ValueAndErr(); err != nil {
		return err
	}
	x.done = false
	x.l = posting{tri: blockFirst(x.it.Key())}
	x.block, err = x.l.next(x.block)
	return err
}

func (x *merger) next() (err error) {
	if len(x.block) > 0 {
		x.block, err = x.l.next(x.block)
		return err
	}
	if x.it.Next() {
		return x.load()
	}
	x.done = true
	return x.it.Error()
}

// merge writes one segment with what lives of several, in their order.
func merge(db pebble.Reader, batch *pebble.Batch, id uint64, from []segment) (segment, error) {
	out := segment{id: id, last: from[len(from)-1].last}
	var all members
	var in []*merger
	defer func() {
		for _, x := range in {
			x.it.Close()
		}
	}()
	var whole []int
	for _, s := range from {
		x, err := newMerger(db, s)
		if err != nil {
			return out, err
		}
		in = append(in, x)
		x.to = make([]int, s.docs)
		for i, u := range x.m.uids {
			x.to[i] = -1
			if !x.m.dead.has(i) {
				x.to[i] = len(all.uids)
				if x.m.whole.has(i) {
					whole = append(whole, len(all.uids))
				}
				all.uids = append(all.uids, u)
			}
		}
	}
	out.docs = len(all.uids)
	if out.docs == 0 {
		return out, nil
	}
	all.dead, all.whole = newBits(out.docs), newBits(out.docs)
	for _, d := range whole {
		all.whole.add(d)
	}
	w := blocks{batch: batch, id: id, docs: out.docs}
	var docs []uint32
	for {
		least := uint32(1 << 24)
		for _, x := range in {
			if !x.done {
				least = min(least, x.l.tri)
			}
		}
		if least == 1<<24 {
			break
		}
		docs = docs[:0]
		for _, x := range in {
			if x.done || x.l.tri != least {
				continue
			}
			err := x.l.each(x.s.docs, func(d int) {
				if n := x.to[d]; n >= 0 {
					docs = append(docs, uint32(n))
				}
			})
			if err == nil {
				err = x.next()
			}
			if err == nil && !x.done && x.l.tri <= least {
				err = errBlock
			}
			if err != nil {
				return out, err
			}
		}
		if len(docs) > 0 {
			w.add(least, docs)
		}
	}
	w.flush()
	if w.err == nil {
		w.err = batch.Set(membersKey(id), all.encode(), nil)
	}
	return out, w.err
}

// drop deletes a segment.
func (s segment) drop(batch *pebble.Batch) error {
	return batch.DeleteRange(membersKey(s.id), membersKey(s.id+1), nil)
}

// trigrams returns those that whoever has all the texts has, ascending: at
// most max, spread over the texts. None when every text is too short.
func trigrams(folded [][]byte, most int) []uint32 {
	var out []uint32
	for _, t := range folded {
		for i := 0; i+3 <= len(t); i++ {
			out = append(out, uint32(t[i])<<16|uint32(t[i+1])<<8|uint32(t[i+2]))
		}
	}
	if len(out) > most {
		step := float64(len(out)) / float64(most)
		for i := range most {
			out[i] = out[int(float64(i)*step)]
		}
		out = out[:most]
	}
	slices.Sort(out)
	return slices.Compact(out)
}
