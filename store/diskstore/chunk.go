package diskstore

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// chunkRows is the most messages of a chunk.
const chunkRows = 1024

// lengths are how long chunks and tails get. Tests have shorter ones.
type lengths struct {
	chunk   int // at most chunkRows
	tailMax int // beyond it the tail moves into chunks,
	tailMin int // but for so many
}

func (l lengths) orDefault() lengths {
	if l.chunk == 0 {
		return lengths{chunkRows, 512, 256}
	}
	return l
}

// chunkInfo is what is in memory of a chunk.
type chunkInfo struct {
	first, last store.UID
	newest      store.ModSeq // of its messages
	live        int32
}

// chunk is up to 1,024 messages in columns. Messages that are gone keep their
// place.
type chunk struct {
	uids   []store.UID
	sizes  []int64
	emails []uint64

	codes   []uint32 // flags in the low 8 bits, the index of a set above
	modSeqs []store.ModSeq
	sets    [][]int // of keywords; the first is empty
}

// codeGone marks a message that is not there any more.
const codeGone = 1 << 7

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func newChunk() *chunk {
	c := chunks.Get().(*chunk)
	c.uids, c.sizes, c.emails = c.uids[:0], c.sizes[:0], c.emails[:0]
	c.codes, c.modSeqs, c.sets = c.codes[:0], c.modSeqs[:0], append(c.sets[:0], nil)
	return c
}

func (c *chunk) free() { chunks.Put(c) }

func (c *chunk) info() chunkInfo {
	i := chunkInfo{first: c.uids[0], last: c.uids[len(c.uids)-1]}
	for j, m := range c.modSeqs {
		if c.codes[j]&codeGone == 0 {
			i.live++
			i.newest = max(i.newest, m)
		}
	}
	return i
}

// set returns the index of a set of keywords.
func (c *chunk) set(words []int) uint32 {
	if len(words) == 0 {
		return 0
	}
	for i := len(c.sets) - 1; i > 0; i-- {
		if slices.Equal(c.sets[i], words) {
			return uint32(i)
		}
	}
	c.sets = append(c.sets, words)
	return uint32(len(c.sets) - 1)
}

// add appends a row.
func (c *chunk) add(m *row) {
	c.uids = append(c.uids, m.uid)
	c.sizes = append(c.sizes, m.size)
	c.emails = append(c.emails, m.email)
	c.codes = append(c.codes, uint32(m.system)|c.set(m.words)<<8)
	c.modSeqs = append(c.modSeqs, m.modSeq)
}

// encodeStatic: the number of messages, then one column after the other, each
// value as the difference to the one before.
func (c *chunk) encodeStatic() []byte {
	w := diskdb.Record(8 * len(c.uids))
	w.Uint(uint64(len(c.uids)))
	last := store.UID(0)
	for _, u := range c.uids {
		w.Uint(uint64(u - last))
		last = u
	}
	for _, n := range c.sizes {
		w.Uint(uint64(n))
	}
	e := uint64(0)
	for _, n := range c.emails {
		w.Int(int64(n - e))
		e = n
	}
	return w.Seal()
}

func (c *chunk) decodeStatic(v []byte) error {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return err
	}
	n := r.Count()
	if n == 0 || n > chunkRows {
		r.Fail()
		return r.Err()
	}
	// By hand from here: this is what listing a mailbox costs.
	b, i := r.B, 0
	var d uint64
	c.uids, c.sizes, c.emails = slices.Grow(c.uids, n)[:n], slices.Grow(c.sizes, n)[:n], slices.Grow(c.emails, n)[:n]
	last := uint64(0)
	for j := range c.uids {
		d, i = number(b, i)
		if last += d; d == 0 || last > uint64(store.MaxUID) {
			r.Fail()
			return r.Err()
		}
		c.uids[j] = store.UID(last)
	}
	for j := range c.sizes {
		if d, i = number(b, i); d > 1<<62 {
			r.Fail()
			return r.Err()
		}
		c.sizes[j] = int64(d)
	}
	e := uint64(0)
	for j := range c.emails {
		d, i = number(b, i)
		e += d>>1 ^ -(d & 1)
		c.emails[j] = e
	}
	if i != len(b) {
		r.Fail()
	}
	return r.Err()
}

// number reads what Writer.Uint wrote at i; the index behind it is -1 when
// there is none, and stays so.
func number(b []byte, i int) (uint64, int) {
	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		return uint64(b[i]), i + 1
	}
	return longNumber(b, i)
}

func longNumber(b []byte, i int) (uint64, int) {
	if i < 0 || i > len(b) {
		return 0, -1
	}
	v, n := binary.Uvarint(b[i:])
	if n <= 0 {
		return 0, -1
	}
	return v, i + n
}

// encodeFlags: what chunkInfo has, the sets of keywords, then runs of equal
// messages.
func (c *chunk) encodeFlags(i chunkInfo) []byte {
	w := diskdb.Record(64 + len(c.codes))
	w.Uint(uint64(i.last))
	w.Uint(uint64(i.newest))
	w.Uint(uint64(i.live))
	// Only sets in use.
	number := make([]uint64, len(c.sets))
	used := make([][]int, 0, len(c.sets))
	for _, code := range c.codes {
		if s := code >> 8; s > 0 && number[s] == 0 && code&codeGone == 0 {
			used = append(used, c.sets[s])
			number[s] = uint64(len(used))
		}
	}
	w.Uint(uint64(len(used)))
	for _, s := range used {
		putWords(w, s)
	}
	w.Uint(uint64(len(c.codes)))
	prev := store.ModSeq(0)
	for j := 0; j < len(c.codes); {
		code, m := c.codes[j], c.modSeqs[j]
		k := j + 1
		if code&codeGone != 0 {
			for k < len(c.codes) && c.codes[k]&codeGone != 0 {
				k++
			}
			w.Uint(uint64(k - j))
			w.Octet(codeGone)
			j = k
			continue
		}
		for k < len(c.codes) && c.codes[k] == code && c.modSeqs[k] == m {
			k++
		}
		w.Uint(uint64(k - j))
		w.Octet(byte(code))
		w.Uint(number[code>>8])
		w.Int(int64(m - prev))
		prev, j = m, k
	}
	return w.Seal()
}

// chunkHead reads what chunkInfo has; first is in the key.
func chunkHead(r *diskdb.Reader, first store.UID) chunkInfo {
	i := chunkInfo{first: first, last: store.UID(r.Uint32()), newest: store.ModSeq(r.Uint()), live: int32(r.Uint32())}
	if i.live < 0 || i.live > chunkRows || i.last < first {
		r.Fail()
	}
	return i
}

func (c *chunk) decodeFlags(first store.UID, v []byte) (chunkInfo, error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return chunkInfo{}, err
	}
	i := chunkHead(&r, first)
	for range r.Count() {
		c.sets = append(c.sets, getWords(&r))
	}
	n := r.Uint()
	if n == 0 || n > chunkRows {
		r.Fail()
	}
	if err := r.Err(); err != nil {
		return i, err
	}
	// By hand from here, as in decodeStatic.
	b, at := r.B, 0
	c.codes, c.modSeqs = slices.Grow(c.codes, int(n))[:n], slices.Grow(c.modSeqs, int(n))[:n]
	prev := store.ModSeq(0)
	for j := uint64(0); j < n; {
		var k, d uint64
		k, at = number(b, at)
		if k == 0 || k > n-j || uint(at) >= uint(len(b)) {
			r.Fail()
			return i, r.Err()
		}
		code, m := uint32(b[at]), store.ModSeq(0)
		if at++; code&codeGone == 0 {
			d, at = number(b, at)
			if d >= uint64(len(c.sets)) {
				r.Fail()
				return i, r.Err()
			}
			code |= uint32(d) << 8
			d, at = number(b, at)
			prev += store.ModSeq(d>>1 ^ -(d & 1))
			m = prev
		}
		for end := j + k; j < end; j++ {
			c.codes[j], c.modSeqs[j] = code, m
		}
	}
	if at != len(b) {
		r.Fail()
	}
	return i, r.Err()
}

// chunkFirst reads the key of a chunk's column.
func chunkFirst(key []byte) (first store.UID, col byte, ok bool) {
	if len(key) != lenChunk {
		return 0, 0, false
	}
	return store.UID(binary.BigEndian.Uint32(key[lenRow-4:])), key[lenChunk-1], true
}
