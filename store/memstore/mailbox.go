package memstore

import (
	"encoding/binary"
	"sort"
	"strings"
	"time"

	"github.com/postrider/postrider/store"
)

// mailbox is guarded by its account's mutex.
type mailbox struct {
	id         store.MailboxID
	name       string
	specialUse []string
	validity   uint32
	next       store.UID
	recent     store.UID // first that nobody claimed
	modSeq     store.ModSeq
	counts     store.Counts
	unseen     store.UID // the first unseen message; 0 = none
	lost       bool      // it is not unseen any more: see settle

	rows []*row // ascending UID
	// oldest and newest end a list of the rows by ModSeq, so that what
	// changed lately is found without a walk over all.
	oldest, newest *row

	tombs      []tomb // ascending ModSeq
	tombRanges int
	horizon    store.ModSeq

	sets     map[string]*keywordSet
	keywords map[string]*keyword
}

// row is one message in a mailbox.
type row struct {
	uid          store.UID
	system       store.SystemFlags
	set          *keywordSet // nil = no keywords
	modSeq       store.ModSeq
	older, newer *row
	content      *content
	date, saved  time.Time
}

// tomb is what one commit removed.
type tomb struct {
	modSeq store.ModSeq
	uids   store.UIDSet
}

// keywordSet is shared by the rows that have exactly these keywords.
type keywordSet struct {
	key   string
	words []string
	rows  int
}

// keyword is a keyword in use, with the spelling it came with first.
type keyword struct {
	spelling string
	sets     int
}

func (r *row) flags() store.Flags {
	f := store.Flags{System: r.system}
	if r.set != nil {
		f.Keywords = r.set.words
	}
	return f
}

// index returns where uid is or would be.
func (b *mailbox) index(uid store.UID) int {
	n := len(b.rows)
	// Without gaps before it a message stands at uid-1.
	if i := int(uid) - 1; i < n && b.rows[i].uid == uid {
		return i
	}
	return sort.Search(n, func(i int) bool { return b.rows[i].uid >= uid })
}

func (b *mailbox) find(uid store.UID) *row {
	i := b.index(uid)
	if i < len(b.rows) && b.rows[i].uid == uid {
		return b.rows[i]
	}
	return nil
}

// each calls f for the rows with these UIDs, in order.
func (b *mailbox) each(uids store.UIDSet, f func(r *row)) {
	for _, g := range uids {
		i := b.index(g.First)
		if i == len(b.rows) {
			return
		}
		for ; i < len(b.rows) && b.rows[i].uid <= g.Last; i++ {
			f(b.rows[i])
		}
	}
}

// touch gives r a ModSeq and makes it the newest.
func (b *mailbox) touch(r *row, m store.ModSeq) {
	r.modSeq = m
	if b.newest == r {
		return
	}
	b.unlink(r)
	r.older = b.newest
	if b.newest != nil {
		b.newest.newer = r
	} else {
		b.oldest = r
	}
	b.newest = r
}

func (b *mailbox) unlink(r *row) {
	if r.older != nil {
		r.older.newer = r.newer
	} else if b.oldest == r {
		b.oldest = r.newer
	}
	if r.newer != nil {
		r.newer.older = r.older
	} else if b.newest == r {
		b.newest = r.older
	}
	r.older, r.newer = nil, nil
}

// count adds (n = 1) or takes away (n = -1) r in the counters.
func (b *mailbox) count(r *row, n int) {
	size := int64(n) * r.content.Size()
	b.counts.Messages += n
	b.counts.Size += size
	if !r.system.Has(store.Seen) {
		b.counts.Unseen += n
		switch {
		case n > 0 && (b.unseen == 0 || r.uid <= b.unseen):
			b.unseen, b.lost = r.uid, false
		case n < 0 && r.uid == b.unseen:
			b.lost = true
		}
	}
	if r.system.Has(store.Deleted) {
		b.counts.Deleted += n
		b.counts.DeletedSize += size
	}
}

// settle looks for the first unseen message after a write that took it away.
func (b *mailbox) settle() {
	if !b.lost {
		return
	}
	i := len(b.rows)
	if b.counts.Unseen > 0 {
		i = b.index(b.unseen)
	}
	for b.unseen, b.lost = 0, false; i < len(b.rows); i++ {
		if !b.rows[i].system.Has(store.Seen) {
			b.unseen = b.rows[i].uid
			return
		}
	}
}

// add puts r, whose UID is the next, at the end.
func (b *mailbox) add(r *row, m store.ModSeq) {
	r.uid = b.next
	b.next++
	b.rows = append(b.rows, r)
	b.count(r, 1)
	b.touch(r, m)
}

// remove takes the rows with these UIDs, all of which are there, out.
func (b *mailbox) remove(uids store.UIDSet, m store.ModSeq, history int) {
	if uids.Empty() {
		return
	}
	first := b.index(uids.First())
	kept, rest := b.rows[:first], uids
	for i := first; i < len(b.rows); i++ {
		r := b.rows[i]
		for len(rest) > 0 && rest[0].Last < r.uid {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			kept = append(kept, b.rows[i:]...)
			break
		}
		if r.uid < rest[0].First {
			kept = append(kept, r)
			continue
		}
		b.count(r, -1)
		b.unlink(r)
		b.release(r.set)
	}
	clear(b.rows[len(kept):])
	b.rows = kept
	b.settle()
	b.bury(uids, m, history)
}

// bury remembers that these UIDs are no more, and forgets the oldest beyond
// history ranges.
func (b *mailbox) bury(uids store.UIDSet, m store.ModSeq, history int) {
	if uids.Empty() {
		return
	}
	b.tombs = append(b.tombs, tomb{m, uids})
	b.tombRanges += len(uids)
	for b.tombRanges > history {
		b.tombRanges -= len(b.tombs[0].uids)
		b.horizon = b.tombs[0].modSeq
		b.tombs[0] = tomb{}
		b.tombs = b.tombs[1:]
	}
}

// foldKey returns the key of a set of keywords: each with its length, in ASCII
// lower case.
func foldKey(words ...string) string {
	var buf [128]byte
	key := buf[:0]
	for _, w := range words {
		key = binary.AppendUvarint(key, uint64(len(w)))
		for i := 0; i < len(w); i++ {
			c := w[i]
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			key = append(key, c)
		}
	}
	return string(key)
}

// missing adds the keys of those words to known that are no keyword of the
// mailbox yet.
func (b *mailbox) missing(words []string, known map[string]struct{}) {
	for _, w := range words {
		k := foldKey(w)
		if b.keywords[k] == nil {
			known[k] = struct{}{}
		}
	}
}

// acquire returns the set with these keywords for n more rows.
func (b *mailbox) acquire(words []string, n int) *keywordSet {
	if len(words) == 0 {
		return nil
	}
	key := foldKey(words...)
	s := b.sets[key]
	if s == nil {
		s = &keywordSet{key: key, words: make([]string, len(words))}
		for i, w := range words {
			k := foldKey(w)
			kw := b.keywords[k]
			if kw == nil {
				kw = &keyword{spelling: strings.Clone(w)}
				b.keywords[k] = kw
			}
			kw.sets++
			s.words[i] = kw.spelling
		}
		b.sets[key] = s
	}
	s.rows += n
	return s
}

// release gives one row's share of s back.
func (b *mailbox) release(s *keywordSet) {
	if s == nil {
		return
	}
	if s.rows--; s.rows > 0 {
		return
	}
	delete(b.sets, s.key)
	for _, w := range s.words {
		k := foldKey(w)
		if kw := b.keywords[k]; kw != nil {
			if kw.sets--; kw.sets == 0 {
				delete(b.keywords, k)
			}
		}
	}
}
