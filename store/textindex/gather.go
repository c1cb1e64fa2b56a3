package textindex

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/searchtext"
	"github.com/postrider/postrider/store"
)

const (
	// segmentDocs is how many messages go into a new segment at most: their
	// numbers have 8 bits in a pair.
	segmentDocs = 1 << 8
	// maxPairs bounds what is gathered in memory: 4 octets each.
	maxPairs = 2 << 20
	// maxTrigrams is how many different ones a message may have. One with
	// more has next to everything in it.
	maxTrigrams = 1 << 17
)

// gatherer collects the trigrams of messages for a segment. It is a
// searchtext.Visitor.
type gatherer struct {
	max     int64 // octets of text in a message
	scan    searchtext.Scanner
	folder  searchtext.Folder
	buf     []byte
	seen    []uint64 // by trigram
	touched []uint32 // those seen
	last    uint32   // the octets before
	have    int      // how many they are, at most 2
	left    int64
	over    bool

	members members
	pairs   []uint32 // trigram and number of the message
	spare   []uint32
}

func newGatherer(max int64) *gatherer {
	return &gatherer{max: max, seen: make([]uint64, 1<<24/64)}
}

func (g *gatherer) full() bool {
	return len(g.members.uids) == segmentDocs || len(g.pairs)+maxTrigrams > maxPairs
}

// add takes a message. The error is that of reading it.
func (g *gatherer) add(uid store.UID, summary []byte, body store.Body) error {
	root, err := mime.DecodeSummary(summary)
	if err != nil {
		if root, err = mime.Parse(body, body.Size(), mime.Limits{}); err != nil {
			return err
		}
	}
	g.left, g.over = g.max, false
	// The fields that a search finds in the Summary, as it has them.
	for f := range root.Header.Fields() {
		g.Begin(false)
		g.Write([]byte(mime.DecodeText(f.Value)))
	}
	err = g.scan.Scan(root, body, g)
	g.end()
	if err == nil {
		g.keep(uid, g.over)
	}
	for _, t := range g.touched {
		g.seen[t/64] = 0
	}
	g.touched = g.touched[:0]
	return err
}

// keep makes what was seen a member; whole = any text may be in it.
func (g *gatherer) keep(uid store.UID, whole bool) {
	n := len(g.members.uids)
	g.members.uids = append(g.members.uids, uid)
	if g.members.whole == nil {
		g.members.whole, g.members.dead = newBits(segmentDocs), newBits(segmentDocs)
	}
	if whole {
		g.members.whole.add(n)
		return
	}
	for _, t := range g.touched {
		g.pairs = append(g.pairs, t<<8|uint32(n))
	}
}

// Wants implements searchtext.Visitor.
func (g *gatherer) Wants(bool) bool { return !g.over }

// Begin implements searchtext.Visitor.
func (g *gatherer) Begin(bool) { g.end() }

func (g *gatherer) end() {
	g.take(g.folder.End(g.buf[:0]))
	g.have = 0
}

// Write implements searchtext.Visitor.
func (g *gatherer) Write(p []byte) {
	if g.left -= int64(len(p)); g.left < 0 && g.max >= 0 {
		g.over = true
	}
	if g.over {
		return
	}
	g.buf = g.folder.Append(g.buf[:0], p)
	g.take(g.buf)
}

func (g *gatherer) take(p []byte) {
	last, have := g.last, g.have
	for _, c := range p {
		last = (last<<8 | uint32(c)) & (1<<24 - 1)
		if have < 2 {
			have++
			continue
		}
		if w, b := &g.seen[last/64], uint64(1)<<(last%64); *w&b == 0 {
			*w |= b
			g.touched = append(g.touched, last)
		}
	}
	g.last, g.have = last, have
	if len(g.touched) > maxTrigrams {
		g.over = true
	}
}

// write makes a segment of what was gathered, and begins anew.
func (g *gatherer) write(batch *pebble.Batch, id uint64) (segment, error) {
	n := len(g.members.uids)
	s := segment{id: id, docs: n, last: g.members.uids[n-1]}
	g.sort()
	w := blocks{batch: batch, id: id, docs: n}
	var docs []uint32
	for i := 0; i < len(g.pairs); {
		tri := g.pairs[i] >> 8
		docs = docs[:0]
		for ; i < len(g.pairs) && g.pairs[i]>>8 == tri; i++ {
			docs = append(docs, g.pairs[i]&0xff)
		}
		w.add(tri, docs)
	}
	w.flush()
	if w.err == nil {
		w.err = batch.Set(membersKey(id), g.members.encode(), nil)
	}
	g.reset()
	return s, w.err
}

func (g *gatherer) reset() {
	g.members = members{uids: g.members.uids[:0]}
	g.pairs = g.pairs[:0]
}

// sort sorts the pairs by trigram; the messages are in order already.
func (g *gatherer) sort() {
	if cap(g.spare) < len(g.pairs) {
		g.spare = make([]uint32, cap(g.pairs))
	}
	a, b := g.pairs, g.spare[:len(g.pairs)]
	for _, shift := range []uint{8, 20} {
		var at [1 << 12]int
		for _, p := range a {
			at[p>>shift&0xfff]++
		}
		sum := 0
		for i, n := range at {
			at[i], sum = sum, sum+n
		}
		for _, p := range a {
			k := p >> shift & 0xfff
			b[at[k]] = p
			at[k]++
		}
		a, b = b, a
	}
	g.pairs = a // two passes: where it was
}
