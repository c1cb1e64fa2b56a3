package imapserver

import (
	"strconv"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

func (s *session) searchSeq() (result, error) { return s.search(false) }
func (s *session) searchUID() (result, error) { return s.search(true) }

// search is SEARCH (RFC 9051 §6.4.4, RFC 4731, RFC 5182).
func (s *session) search(uid bool) (result, error) {
	var o imap.SearchOptions
	var c imap.SearchCriteria
	p := searchParser{s: s, keys: atMost(s.srv.MaxKeys, 1000, 1<<30)}
	b := s.box
	if err := p.parse(&o, &c); err != nil {
		if o.ReturnSave && !isBad(err) {
			b.saved = nil // of NO, not of BAD (RFC 9051 §6.4.4.1)
		}
		return result{}, err
	}
	if err := s.refresh(); err != nil {
		if o.ReturnSave {
			b.saved = nil
		}
		return result{}, err
	}
	hits, err := s.find(b.compile(&c))
	if err != nil {
		if o.ReturnSave {
			b.saved = nil
		}
		return result{}, err
	}
	if !o.Return && !s.rev2 {
		s.writeSearch(hits, uid)
		return result{}, nil
	}
	if !o.ReturnMin && !o.ReturnMax && !o.ReturnCount && !o.ReturnSave {
		o.ReturnAll = true
	}
	if o.ReturnSave {
		b.saved = saved(hits, &o)
	}
	if o.ReturnMin || o.ReturnMax || o.ReturnCount || o.ReturnAll {
		s.writeESearch(hits, uid, &o)
	}
	return result{}, nil
}

// saved is what "$" becomes: with MIN and MAX alone only those (RFC 5182 §2.4).
func saved(hits store.UIDSet, o *imap.SearchOptions) store.UIDSet {
	if hits.Empty() || o.ReturnAll || o.ReturnCount || !o.ReturnMin && !o.ReturnMax {
		return hits
	}
	out := store.UIDSet{}
	if o.ReturnMin {
		out.Add(hits.First())
	}
	if o.ReturnMax {
		out.Add(hits.Last())
	}
	return out
}

// writeSearch writes the SEARCH response of IMAP4rev1.
func (s *session) writeSearch(hits store.UIDSet, uid bool) {
	s.enc.Atom("* SEARCH")
	for i, row := range s.box.snap.Rows(hits) {
		b := append(s.enc.AppendBuffer(16), ' ')
		if uid {
			b = strconv.AppendUint(b, uint64(row.UID), 10)
		} else {
			b = strconv.AppendUint(b, uint64(i+1), 10)
		}
		s.enc.Raw(b)
	}
	s.enc.Atom("\r\n")
}

// writeESearch writes the ESEARCH response (RFC 9051 §7.3.4).
func (s *session) writeESearch(hits store.UIDSet, uid bool, o *imap.SearchOptions) {
	nums := wireSet(hits)
	if !uid {
		nums = imap.NumSet{}
		for i := range s.box.snap.Rows(hits) {
			nums.Add(uint32(i + 1))
		}
	}
	s.enc.Atom("* ESEARCH (TAG ").Quoted(s.tag).Atom(")")
	if uid {
		s.enc.Atom(" UID")
	}
	if len(nums) > 0 {
		if o.ReturnMin {
			s.enc.Atom(" MIN ").Number(uint64(nums[0].First))
		}
		if o.ReturnMax {
			s.enc.Atom(" MAX ").Number(uint64(nums[len(nums)-1].Last))
		}
	}
	if o.ReturnCount {
		s.enc.Atom(" COUNT ").Number(uint64(nums.Len()))
	}
	if o.ReturnAll && len(nums) > 0 {
		s.enc.Atom(" ALL ").NumSet(nums)
	}
	s.enc.Atom("\r\n")
}

// find returns the messages that match: first by what the Snapshot has, then,
// where that does not decide, by what an index knows, and by what the store
// has.
func (s *session) find(q *query) (store.UIDSet, error) {
	hits := store.UIDSet{}
	open := s.sift(q, nil, &hits)
	if open.Count() >= minAsk && s.ask(q) {
		open = s.sift(q, open, &hits)
	}
	if open.Empty() {
		return hits, nil
	}
	more := store.UIDSet{}
	for m, err := range s.acc.Messages(s.ctx, s.box.id, store.Query{UIDs: open, Fields: q.fields()}) {
		if err != nil {
			return nil, err
		}
		c := candidate{
			row:    store.Row{UID: m.UID, ModSeq: m.ModSeq, Flags: m.Flags, Size: m.Size},
			recent: s.isRecent(m.UID),
			msg:    &message{s: s, Message: m},
		}
		v := q.eval(&c)
		c.msg.close()
		if c.err != nil {
			return nil, c.err
		}
		if v == holds {
			more.Add(m.UID)
		}
	}
	return hits.Union(more), nil
}

// sift judges messages, nil = all, by what is at hand. It adds those that match
// to hits, and returns those that have to be looked into.
func (s *session) sift(q *query, uids store.UIDSet, hits *store.UIDSet) (open store.UIDSet) {
	b := s.box
	found := store.UIDSet{}
	same := b.snap == b.newest
	for _, row := range b.snap.Rows(uids) {
		if !same {
			if j, ok := b.newest.Index(row.UID); ok {
				row = b.newest.Row(j)
			}
		}
		switch q.eval(&candidate{row: row, recent: s.isRecent(row.UID)}) {
		case holds:
			found.Add(row.UID)
		case unclear:
			open.Add(row.UID)
		}
	}
	*hits = hits.Union(found)
	return open
}
