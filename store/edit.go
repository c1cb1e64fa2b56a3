package store

import (
	"encoding/binary"
	"maps"
	"slices"
	"sort"
)

// How the next Snapshot is made from the last: chunks that nothing touched
// are shared, so that Diff can skip them and a changed flag is cheap. Only the
// newest Snapshot of a View is ever edited, by one goroutine at a time; that
// is what lets edit fill the spare capacity of its last chunk in place.

func newSnapshot(uidValidity uint32) *Snapshot {
	t := newFlagTable()
	return &Snapshot{starts: []int{0}, table: t, keywords: t.sets, uidNext: 1, uidValidity: uidValidity}
}

// edit returns s without expunged and with rows, which ascend. A row that s
// has in a newer state stays as it is.
func (s *Snapshot) edit(expunged UIDSet, rows []Row) *Snapshot {
	out := *s
	out.chunks = make([]*chunk, 0, len(s.chunks)+len(rows)/chunkRows+1)
	if s.table.crowded(s.Len() + len(rows)) {
		// Sets of keywords long out of use: begin a new table.
		out.table = newFlagTable()
		s = s.recode(out.table)
	}
	for k, c := range s.chunks {
		last := c.uids[c.len()-1]
		n := sort.Search(len(rows), func(i int) bool { return rows[i].UID > last })
		i := expunged.search(c.uids[0])
		if n == 0 && (i == len(expunged) || expunged[i].First > last) {
			out.chunks = append(out.chunks, c)
			continue
		}
		m := c.merge(expunged, rows[:n], out.table)
		rows = rows[n:]
		switch {
		case m.len() == 0:
		case m == c:
			out.chunks = append(out.chunks, c)
		case m.len() <= chunkRows/4 && k > 0 && len(out.chunks) > 0 && out.chunks[len(out.chunks)-1].len() <= chunkRows/2:
			// Two that emptied become one, so that expunging one by one
			// does not leave a chunk for each message.
			prev := &out.chunks[len(out.chunks)-1]
			*prev = join(*prev, m)
		default:
			out.chunks = append(out.chunks, m.split()...)
		}
	}
	for len(rows) > 0 {
		n := min(len(rows), chunkRows)
		if k := len(out.chunks); k > 0 && out.chunks[k-1].len() < chunkRows {
			n = min(n, chunkRows-out.chunks[k-1].len())
			out.chunks[k-1] = out.chunks[k-1].grow(rows[:n], out.table)
		} else {
			out.chunks = append(out.chunks, new(chunk).grow(rows[:n], out.table))
		}
		rows = rows[n:]
	}
	out.count()
	return &out
}

// count sets what follows from the chunks.
func (s *Snapshot) count() {
	s.starts = make([]int, len(s.chunks)+1)
	for i, c := range s.chunks {
		s.starts[i+1] = s.starts[i] + c.len()
	}
	if n := len(s.chunks); n > 0 {
		c := s.chunks[n-1]
		s.uidNext = max(s.uidNext, c.uids[c.len()-1]+1)
	}
	s.keywords = s.table.sets
}

// recode returns s with flags in the terms of table t.
func (s *Snapshot) recode(t *flagTable) *Snapshot {
	out := *s
	out.table = t
	out.chunks = make([]*chunk, len(s.chunks))
	for i, c := range s.chunks {
		m := *c
		m.flags = make([]uint32, len(c.flags))
		for j, f := range c.flags {
			m.flags[j] = t.code(s.flagsOf(f))
		}
		out.chunks[i] = &m
	}
	out.count()
	return &out
}

// setFlags returns s with op applied to r.Changed.
func (s *Snapshot) setFlags(op FlagOp, r FlagResult) *Snapshot {
	if s.table.crowded(s.Len()) {
		s = s.recode(newFlagTable())
	}
	out := *s
	out.chunks = slices.Clone(s.chunks)
	changed := r.Changed
	// Most messages have the same few flags: each is worked out once.
	memo := map[uint32]uint32{}
	for k, c := range s.chunks {
		for len(changed) > 0 && changed[0].Last < c.uids[0] {
			changed = changed[1:]
		}
		if len(changed) == 0 {
			break
		}
		if changed[0].First > c.uids[c.len()-1] {
			continue
		}
		m := *c // uids and sizes are shared
		m.modSeqs, m.flags = slices.Clone(c.modSeqs), slices.Clone(c.flags)
		was, is := uint32(0), s.table.code(op.Apply(Flags{}))
		in := changed
		for j, uid := range c.uids {
			for len(in) > 0 && in[0].Last < uid {
				in = in[1:]
			}
			if len(in) == 0 {
				break
			}
			if uid < in[0].First || m.modSeqs[j] >= r.ModSeq {
				continue
			}
			if f := m.flags[j]; f != was {
				to, ok := memo[f]
				if !ok {
					to = s.table.code(op.Apply(Flags{SystemFlags(f), s.table.sets[f>>8]}))
					memo[f] = to
				}
				was, is = f, to
			}
			m.flags[j], m.modSeqs[j] = is, r.ModSeq
		}
		out.chunks[k] = &m
	}
	out.keywords = s.table.sets
	return &out
}

// merge returns c without expunged and with rows, or c itself when that
// changes nothing. The result may be longer than chunkRows.
func (c *chunk) merge(expunged UIDSet, rows []Row, t *flagTable) *chunk {
	m := &chunk{
		uids:    make([]UID, 0, c.len()),
		modSeqs: make([]ModSeq, 0, c.len()),
		flags:   make([]uint32, 0, c.len()),
		sizes:   make([]uint32, 0, c.len()),
	}
	same := true
	for j, uid := range c.uids {
		for len(rows) > 0 && rows[0].UID < uid {
			if !expunged.Contains(rows[0].UID) {
				m.push(rows[0], t)
				same = false
			}
			rows = rows[1:]
		}
		for len(expunged) > 0 && expunged[0].Last < uid {
			expunged = expunged[1:]
		}
		newer := len(rows) > 0 && rows[0].UID == uid
		switch {
		case len(expunged) > 0 && expunged[0].First <= uid:
			same = false
		case newer && rows[0].ModSeq > c.modSeqs[j]:
			m.push(rows[0], t)
			same = false
		default:
			m.take(c, j)
		}
		if newer {
			rows = rows[1:]
		}
	}
	if same {
		return c
	}
	return m
}

func (c *chunk) push(r Row, t *flagTable) {
	c.uids = append(c.uids, r.UID)
	c.modSeqs = append(c.modSeqs, r.ModSeq)
	c.flags = append(c.flags, t.code(r.Flags))
	if r.Size >= 0 && r.Size < bigSize {
		c.sizes = append(c.sizes, uint32(r.Size))
		return
	}
	c.sizes = append(c.sizes, bigSize)
	c.setBig(r.UID, r.Size)
}

// setBig notes a size that the column cannot hold. The map is copied: an
// older chunk may share it.
func (c *chunk) setBig(uid UID, size int64) {
	big := make(map[UID]int64, len(c.big)+1)
	maps.Copy(big, c.big)
	big[uid] = size
	c.big = big
}

func (c *chunk) take(from *chunk, j int) {
	c.uids = append(c.uids, from.uids[j])
	c.modSeqs = append(c.modSeqs, from.modSeqs[j])
	c.flags = append(c.flags, from.flags[j])
	c.sizes = append(c.sizes, from.sizes[j])
	if from.sizes[j] == bigSize {
		c.setBig(from.uids[j], from.size(j))
	}
}

// grow returns c with rows at its end. It may use c's spare capacity.
func (c *chunk) grow(rows []Row, t *flagTable) *chunk {
	m := *c
	if n := m.len() + len(rows); n > min(cap(m.uids), cap(m.modSeqs), cap(m.flags), cap(m.sizes)) {
		// No more than a chunk will ever hold; append would round it up.
		n = max(n, min(2*n, chunkRows))
		if len(rows) > chunkRows/2 {
			n = m.len() + len(rows)
		}
		m.uids = append(make([]UID, 0, n), m.uids...)
		m.modSeqs = append(make([]ModSeq, 0, n), m.modSeqs...)
		m.flags = append(make([]uint32, 0, n), m.flags...)
		m.sizes = append(make([]uint32, 0, n), m.sizes...)
	}
	for _, r := range rows {
		m.push(r, t)
	}
	return &m
}

func join(a, b *chunk) *chunk {
	m := &chunk{
		uids:    slices.Concat(a.uids, b.uids),
		modSeqs: slices.Concat(a.modSeqs, b.modSeqs),
		flags:   slices.Concat(a.flags, b.flags),
		sizes:   slices.Concat(a.sizes, b.sizes),
		big:     a.big,
	}
	if len(b.big) > 0 {
		m.big = map[UID]int64{}
		maps.Copy(m.big, a.big)
		maps.Copy(m.big, b.big)
	}
	return m
}

func (c *chunk) split() []*chunk {
	if c.len() <= chunkRows {
		return []*chunk{c}
	}
	var out []*chunk
	for i := 0; i < c.len(); i += chunkRows {
		n := min(i+chunkRows, c.len())
		// Capacity cut off: the pieces must not grow into one another.
		out = append(out, &chunk{c.uids[i:n:n], c.modSeqs[i:n:n], c.flags[i:n:n], c.sizes[i:n:n], c.big})
	}
	return out
}

// flagTable numbers the sets of keywords that are in use. Set 0 is empty.
// Numbers are never used again, so that older Snapshots stay readable.
type flagTable struct {
	sets     [][]string
	numbers  map[string]uint32
	spelling map[string]string
	last     []string // the set coded last, which is often the next one too
	lastCode uint32
}

func newFlagTable() *flagTable {
	return &flagTable{sets: [][]string{nil}, numbers: map[string]uint32{}, spelling: map[string]string{}}
}

// crowded reports whether most sets must be out of use, n messages being there.
func (t *flagTable) crowded(n int) bool {
	return len(t.sets) > 4096+2*n || len(t.sets) >= 1<<24-chunkRows
}

// code returns the column value of f.
func (t *flagTable) code(f Flags) uint32 {
	if len(f.Keywords) == 0 {
		return uint32(f.System)
	}
	if len(t.last) == len(f.Keywords) && &t.last[0] == &f.Keywords[0] {
		return uint32(f.System) | t.lastCode
	}
	var buf [128]byte
	key := buf[:0]
	for _, k := range f.Keywords {
		key = binary.AppendUvarint(key, uint64(len(k)))
		for i := 0; i < len(k); i++ {
			key = append(key, lower(k[i]))
		}
	}
	n, ok := t.numbers[string(key)]
	if !ok {
		set := make([]string, len(f.Keywords))
		for i, k := range f.Keywords {
			fold := foldKeyword(k)
			if _, known := t.spelling[fold]; !known {
				t.spelling[fold] = k
			}
			set[i] = t.spelling[fold]
		}
		n = uint32(len(t.sets))
		t.sets = append(t.sets, set)
		t.numbers[string(key)] = n
	}
	t.last, t.lastCode = f.Keywords, n<<8
	return uint32(f.System) | t.lastCode
}
