package imapserver

import (
	"errors"
	"time"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/store"
)

// verdict is three-valued: a Snapshot does not know everything.
type verdict int8

const (
	fails verdict = iota
	unclear
	holds
)

// query is a compiled conjunction of search keys.
type query struct {
	sets               []store.UIDSet
	flags, notFlags    store.Flags
	recent, notRecent  bool
	larger, smaller    int64
	since, before      time.Time
	sentSince, sentBef time.Time
	header             []headerNeedle
	scan               *scanner     // BODY and TEXT; nil = neither
	terms              []store.Term // of header and scan, for an index
	maybe              store.UIDSet // what the index gave for them; nil = not asked
	not                []*query
	or                 [][2]*query
}

type headerNeedle struct {
	name string
	needle
}

// candidate is a message that may match; msg is nil as long as only the
// Snapshot is looked at.
type candidate struct {
	row    store.Row
	recent bool
	msg    *message
	err    error
}

// compile turns criteria into a query on the mailbox as the client knows it.
func (b *mailbox) compile(c *imap.SearchCriteria) *query {
	q := &query{
		larger: c.Larger, smaller: c.Smaller,
		since: c.Since, before: c.Before, sentSince: c.SentSince, sentBef: c.SentBefore,
	}
	for _, nums := range c.Seqs {
		q.sets = append(q.sets, b.sequence(nums))
	}
	for _, nums := range c.UIDs {
		q.sets = append(q.sets, b.known(nums))
	}
	if c.Saved {
		q.sets = append(q.sets, b.saved)
	}
	q.flags, q.recent = searchFlags(c.Flags)
	q.notFlags, q.notRecent = searchFlags(c.NotFlags)
	for _, h := range c.Header {
		q.header = append(q.header, headerNeedle{h.Name, newNeedle(h.Value)})
		q.terms = appendTerm(q.terms, h.Name, h.Value)
	}
	for _, texts := range [][]string{c.Body, c.Text} {
		for _, t := range texts {
			q.terms = appendTerm(q.terms, "", t)
		}
	}
	if len(c.Body)+len(c.Text) > 0 {
		q.scan = newScanner(needles(c.Body), needles(c.Text))
	}
	for i := range c.Not {
		q.not = append(q.not, b.compile(&c.Not[i]))
	}
	for i := range c.Or {
		q.or = append(q.or, [2]*query{b.compile(&c.Or[i][0]), b.compile(&c.Or[i][1])})
	}
	return q
}

func appendTerm(terms []store.Term, field, text string) []store.Term {
	if text == "" {
		return terms
	}
	return append(terms, store.Term{Field: field, Text: text})
}

func needles(texts []string) []needle {
	out := make([]needle, len(texts))
	for i, t := range texts {
		out[i] = newNeedle(t)
	}
	return out
}

// sequence turns sequence numbers into UIDs; those that do not exist match
// nothing.
func (b *mailbox) sequence(nums imap.NumSet) store.UIDSet {
	out := store.UIDSet{}
	n := b.snap.Len()
	for _, r := range nums.Resolve(uint32(n)) {
		if int64(r.First) <= int64(n) {
			out.AddRange(b.snap.UID(int(r.First)-1), b.snap.UID(min(int(r.Last), n)-1))
		}
	}
	return out
}

func searchFlags(flags []imap.Flag) (f store.Flags, recent bool) {
	var words []string
	for _, x := range flags {
		if x.Equal(imap.FlagRecent) {
			recent = true
			continue
		}
		system := false
		for i := range systemFlags {
			if systemFlags[i].name.Equal(x) {
				f.System |= systemFlags[i].bit
				system = true
			}
		}
		if !system {
			words = append(words, string(x))
		}
	}
	return store.NewFlags(f.System, words...), recent
}

// fields is what has to be loaded to decide.
func (q *query) fields() store.Fields {
	var f store.Fields
	if !q.since.IsZero() || !q.before.IsZero() {
		f |= store.WithDates
	}
	if !q.sentSince.IsZero() || !q.sentBef.IsZero() || len(q.header) > 0 {
		f |= store.WithSummary
	}
	for i := range q.header {
		if !inSummary(q.header[i].name) {
			f |= store.WithBody
		}
	}
	if q.scan != nil {
		f |= store.WithSummary | store.WithBody
	}
	for _, n := range q.not {
		f |= n.fields()
	}
	for _, o := range q.or {
		f |= o[0].fields() | o[1].fields()
	}
	return f
}

// eval judges c, the cheap keys first. Errors go to c.err.
func (q *query) eval(c *candidate) verdict {
	if !q.cheap(c) {
		return fails
	}
	out := holds
	// The branches that the Snapshot decides spare opening the message.
	for _, n := range q.not {
		if v := holds - n.eval(c); v < out {
			if out = v; v == fails {
				return fails
			}
		}
	}
	for _, o := range q.or {
		v := o[0].eval(c)
		if v != holds {
			v = max(v, o[1].eval(c))
		}
		if v < out {
			if out = v; v == fails {
				return fails
			}
		}
	}
	if !q.needsMessage() {
		return out
	}
	if c.msg == nil {
		return unclear
	}
	if c.err != nil {
		return fails
	}
	ok, err := q.expensive(c.msg)
	if errors.Is(err, store.ErrNotExist) {
		return fails // expunged meanwhile
	}
	if err != nil {
		c.err = err
		return fails
	}
	if !ok {
		return fails
	}
	return out
}

// cheap judges by what a Snapshot has.
func (q *query) cheap(c *candidate) bool {
	for _, s := range q.sets {
		if !s.Contains(c.row.UID) {
			return false
		}
	}
	if q.maybe != nil && !q.maybe.Contains(c.row.UID) {
		return false
	}
	f := c.row.Flags
	if !f.System.Has(q.flags.System) || f.Any(q.notFlags) {
		return false
	}
	for _, k := range q.flags.Keywords {
		if !f.Has(k) {
			return false
		}
	}
	if q.recent && !c.recent || q.notRecent && c.recent {
		return false
	}
	return (q.larger == 0 || c.row.Size > q.larger) && (q.smaller == 0 || c.row.Size < q.smaller)
}

func (q *query) needsMessage() bool {
	return !q.since.IsZero() || !q.before.IsZero() || !q.sentSince.IsZero() || !q.sentBef.IsZero() ||
		len(q.header) > 0 || q.scan != nil
}

// expensive judges by the message itself.
func (q *query) expensive(m *message) (bool, error) {
	if !within(m.InternalDate, q.since, q.before) {
		return false, nil
	}
	if !q.sentSince.IsZero() || !q.sentBef.IsZero() {
		root, err := m.root()
		if err != nil {
			return false, err
		}
		date, err := root.Header.Date()
		if err != nil || !within(date, q.sentSince, q.sentBef) {
			return false, nil
		}
	}
	for i := range q.header {
		ok, err := m.hasHeader(&q.header[i])
		if !ok || err != nil {
			return false, err
		}
	}
	if q.scan == nil {
		return true, nil
	}
	return q.scan.in(m)
}

// within compares days; each time counts in its own zone (RFC 9051 §6.4.4).
func within(t, since, before time.Time) bool {
	if since.IsZero() && before.IsZero() {
		return true
	}
	y, mo, d := t.Date()
	day := time.Date(y, mo, d, 0, 0, 0, 0, time.UTC)
	return (since.IsZero() || !day.Before(since)) && (before.IsZero() || day.Before(before))
}

// hasHeader tells whether a field of that name contains the text.
func (m *message) hasHeader(h *headerNeedle) (bool, error) {
	root, err := m.root()
	if err != nil {
		return false, err
	}
	header := &root.Header
	if !m.parsed && !inSummary(h.name) {
		if header, err = m.header(root); err != nil {
			return false, err
		}
	}
	for f := range header.All(h.name) {
		if h.empty() || h.in(mime.DecodeText(f.Value)) {
			return true, nil
		}
	}
	return false, nil
}
