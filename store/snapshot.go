package store

import (
	"iter"
	"math"
	"slices"
	"sort"
)

// Snapshot is one state of a mailbox. It never changes and may be used from
// many goroutines. Indexes go from 0 to Len-1 in ascending UID, so i+1 is
// IMAP's message sequence number; an index out of range panics.
type Snapshot struct {
	chunks      []*chunk
	starts      []int // starts[c] is the index of chunk c's first row; one more at the end
	table       *flagTable
	keywords    [][]string // of table, as long as it was then
	modSeq      ModSeq
	uidNext     UID
	uidValidity uint32
}

// Row is one message of a Snapshot.
type Row struct {
	UID    UID
	ModSeq ModSeq
	Flags  Flags
	Size   int64 // octets
}

// chunkRows is how many messages share one copy-on-write chunk: a changed
// flag copies 20 KB.
const chunkRows = 1024

// chunk holds columns of equal length. Those within len never change; the
// View may fill the capacity beyond it.
type chunk struct {
	uids    []UID
	modSeqs []ModSeq
	flags   []uint32 // system flags in the low 8 bits, index of the keyword set above
	sizes   []uint32 // bigSize: look into big
	big     map[UID]int64
}

const bigSize = math.MaxUint32

func (c *chunk) len() int { return len(c.uids) }

func (c *chunk) size(i int) int64 {
	if n := c.sizes[i]; n != bigSize {
		return int64(n)
	}
	return c.big[c.uids[i]]
}

// Len returns the number of messages.
func (s *Snapshot) Len() int { return s.starts[len(s.starts)-1] }

// find returns the chunk of index i and its place there.
func (s *Snapshot) find(i int) (*chunk, int) {
	// Chunks are full unless something was expunged, so the guess mostly hits.
	g := i / chunkRows
	if g < len(s.chunks) && s.starts[g] <= i && i < s.starts[g+1] {
		return s.chunks[g], i - s.starts[g]
	}
	g = sort.Search(len(s.chunks), func(c int) bool { return s.starts[c+1] > i })
	return s.chunks[g], i - s.starts[g]
}

func (s *Snapshot) flagsOf(v uint32) Flags {
	return Flags{SystemFlags(v), s.keywords[v>>8]}
}

// UID returns the UID of message i.
func (s *Snapshot) UID(i int) UID {
	c, j := s.find(i)
	return c.uids[j]
}

// Flags returns the flags of message i.
func (s *Snapshot) Flags(i int) Flags {
	c, j := s.find(i)
	return s.flagsOf(c.flags[j])
}

// MessageModSeq returns the ModSeq of message i.
func (s *Snapshot) MessageModSeq(i int) ModSeq {
	c, j := s.find(i)
	return c.modSeqs[j]
}

// Size returns the size of message i in octets.
func (s *Snapshot) Size(i int) int64 {
	c, j := s.find(i)
	return c.size(j)
}

// Row returns all that is known of message i, with one look-up.
func (s *Snapshot) Row(i int) Row {
	c, j := s.find(i)
	return s.row(c, j)
}

func (s *Snapshot) row(c *chunk, j int) Row {
	return Row{c.uids[j], c.modSeqs[j], s.flagsOf(c.flags[j]), c.size(j)}
}

// Index returns the index of uid, or where it would stand and false.
func (s *Snapshot) Index(uid UID) (int, bool) {
	c := sort.Search(len(s.chunks), func(c int) bool { return s.chunks[c].uids[s.chunks[c].len()-1] >= uid })
	if c == len(s.chunks) {
		return s.Len(), false
	}
	j, ok := slices.BinarySearch(s.chunks[c].uids, uid)
	return s.starts[c] + j, ok
}

// Rows yields the messages with these UIDs, nil = all, in ascending order
// with their indexes. It is the fastest way to walk a mailbox.
func (s *Snapshot) Rows(uids UIDSet) iter.Seq2[int, Row] {
	return func(yield func(int, Row) bool) {
		if uids == nil {
			uids = UIDSet{{1, MaxUID}}
		}
		for _, r := range uids {
			i, _ := s.Index(r.First)
			if i == s.Len() {
				return
			}
			if !s.walk(i, r.Last, yield) {
				return
			}
		}
	}
}

// walk yields rows from index i to last.
func (s *Snapshot) walk(i int, last UID, yield func(int, Row) bool) bool {
	g := sort.Search(len(s.chunks), func(c int) bool { return s.starts[c+1] > i })
	j := i - s.starts[g]
	for ; g < len(s.chunks); g++ {
		c := s.chunks[g]
		for ; j < c.len(); j++ {
			if c.uids[j] > last {
				return true
			}
			if !yield(s.starts[g]+j, s.row(c, j)) {
				return false
			}
		}
		j = 0
	}
	return true
}

// UIDs returns the UIDs of all messages.
func (s *Snapshot) UIDs() UIDSet {
	out := UIDSet{}
	for _, c := range s.chunks {
		for _, u := range c.uids {
			out.Add(u)
		}
	}
	return out
}

// ModSeq is the cursor: everything up to it is in the Snapshot.
func (s *Snapshot) ModSeq() ModSeq { return s.modSeq }

// UIDNext is greater than the UID of every message in the Snapshot.
func (s *Snapshot) UIDNext() UID { return s.uidNext }

// UIDValidity returns the mailbox's.
func (s *Snapshot) UIDValidity() uint32 { return s.uidValidity }

// Keywords lists the keywords in use, sorted. It walks the whole mailbox.
func (s *Snapshot) Keywords() []string {
	used := make([]bool, len(s.keywords))
	for _, c := range s.chunks {
		for _, f := range c.flags {
			used[f>>8] = true
		}
	}
	var f Flags
	for i, u := range used {
		if u {
			f = f.With(Flags{Keywords: s.keywords[i]})
		}
	}
	return f.Keywords
}

// Delta is what happened between two Snapshots of one mailbox.
type Delta struct {
	Expunged UIDSet // in the older one only: their indexes are those of the older
	Changed  UIDSet // in both, with another ModSeq or other flags
	Added    UIDSet // in the newer one only
}

// Empty reports whether nothing happened.
func (d Delta) Empty() bool { return len(d.Expunged)+len(d.Changed)+len(d.Added) == 0 }

// Diff returns what happened from s to newer. It costs next to nothing when
// they are the same, and otherwise time for the chunks that differ.
func (s *Snapshot) Diff(newer *Snapshot) Delta {
	d := Delta{UIDSet{}, UIDSet{}, UIDSet{}}
	if s == newer {
		return d
	}
	a, b := cursor{s: s}, cursor{s: newer}
	for !a.done() && !b.done() {
		ca, cb := a.chunk(), b.chunk()
		if ca == cb && a.j == b.j {
			a.skip()
			b.skip()
			continue
		}
		ua, ub := ca.uids[a.j], cb.uids[b.j]
		switch {
		case ua < ub:
			d.Expunged.Add(ua)
			a.next()
		case ua > ub:
			d.Added.Add(ub)
			b.next()
		default:
			if ca.modSeqs[a.j] != cb.modSeqs[b.j] || !sameFlags(s, newer, ca.flags[a.j], cb.flags[b.j]) {
				d.Changed.Add(ua)
			}
			a.next()
			b.next()
		}
	}
	for ; !a.done(); a.next() {
		d.Expunged.Add(a.chunk().uids[a.j])
	}
	for ; !b.done(); b.next() {
		d.Added.Add(b.chunk().uids[b.j])
	}
	return d
}

func sameFlags(a, b *Snapshot, x, y uint32) bool {
	if a.table == b.table {
		return x == y
	}
	return a.flagsOf(x).Equal(b.flagsOf(y))
}

// cursor walks a Snapshot by chunks.
type cursor struct {
	s    *Snapshot
	c, j int
}

func (c *cursor) done() bool    { return c.c == len(c.s.chunks) }
func (c *cursor) chunk() *chunk { return c.s.chunks[c.c] }
func (c *cursor) skip()         { c.c, c.j = c.c+1, 0 }

func (c *cursor) next() {
	if c.j++; c.j == c.chunk().len() {
		c.skip()
	}
}
