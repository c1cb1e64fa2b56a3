package imapserver

import (
	"cmp"
	"errors"
	"slices"
	"strconv"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

func (s *session) fetchSeq() (result, error) { return s.fetch(false) }
func (s *session) fetchUID() (result, error) { return s.fetch(true) }

// fetching is one FETCH while it is answered.
type fetching struct {
	s *session
	imap.FetchOptions
	uid    bool // UID FETCH: messages that went away are passed over
	fields store.Fields
	seen   bool // sets \Seen
	same   bool // the client's numbers are those of newest
	err    error
	names  [][]byte // of the sections, as the response has them

	// Of one message, reused.
	msg      message
	prepared []content
}

// fetch is FETCH (RFC 9051 §6.4.5).
func (s *session) fetch(uid bool) (result, error) {
	set := imap.MessageSet{UID: uid}
	f := fetching{s: s, uid: uid}
	if !s.dec.ExpectSP() || !s.dec.ExpectMessageSet(&set) || !s.dec.ExpectSP() {
		return result{}, s.dec.Err()
	}
	if err := s.parseFetch(&f.FetchOptions); err != nil {
		return result{}, err
	}
	f.UID = f.UID || uid
	b := s.box
	uids, err := b.messages(set)
	if err != nil {
		return result{}, err
	}
	if uids.Empty() {
		return result{}, nil
	}
	if f.Flags || len(f.Sections) > 0 {
		if err := s.refresh(); err != nil {
			return result{}, err
		}
	}
	f.same = b.snap == b.newest
	if f.Flags {
		if s.learnKeywords(uids) {
			s.writeFlagList()
		}
	}
	f.plan()
	if f.Flags && !f.seen {
		b.tell(uids)
	}
	if f.fields == 0 {
		return result{}, f.fromSnapshot(uids)
	}
	return result{}, f.fromStore(uids)
}

// plan finds what is needed of the store.
func (f *fetching) plan() {
	if f.InternalDate {
		f.fields |= store.WithDates
	}
	if f.Envelope || f.Body || f.BodyStructure || len(f.BinarySizes) > 0 {
		f.fields |= store.WithSummary
	}
	for i := range f.Sections {
		sec := &f.Sections[i]
		f.seen = f.seen || !sec.Peek
		name := *sec
		name.Peek = false
		if name.Partial != nil {
			name.Partial = &imap.Partial{Offset: name.Partial.Offset}
		}
		f.names = append(f.names, name.AppendItem(nil))
		if fromSummary(sec) {
			f.fields |= store.WithSummary
			continue
		}
		f.fields |= store.WithBody
		if len(sec.Part) > 0 || sec.Kind != imap.SectionAll {
			f.fields |= store.WithSummary
		}
	}
	if len(f.BinarySizes) > 0 {
		f.fields |= store.WithBody
	}
	f.seen = f.seen && !f.s.box.readOnly
}

// fromSnapshot answers what needs no store: UID, FLAGS and RFC822.SIZE.
func (f *fetching) fromSnapshot(uids store.UIDSet) error {
	b, enc := f.s.box, f.s.enc
	for i, row := range b.snap.Rows(uids) {
		if !f.same {
			// Of what others expunged the last that was known is told.
			if j, ok := b.newest.Index(row.UID); ok {
				row = b.newest.Row(j)
			}
		}
		buf := enc.AppendBuffer(flagsRoom(row.Flags) + 128)
		buf = append(buf, "* "...)
		buf = strconv.AppendUint(buf, uint64(i+1), 10)
		buf = append(buf, " FETCH ("...)
		buf = f.appendCheap(buf, row)
		buf = append(buf, ")\r\n"...)
		enc.Raw(buf)
	}
	return enc.Err()
}

// appendCheap appends the items that a Snapshot has.
func (f *fetching) appendCheap(b []byte, row store.Row) []byte {
	start := len(b)
	if f.UID {
		b = append(b, "UID "...)
		b = strconv.AppendUint(b, uint64(row.UID), 10)
		b = append(b, ' ')
	}
	if f.Flags {
		b = append(b, "FLAGS "...)
		b = appendFlags(b, row.Flags, f.s.isRecent(row.UID))
		b = append(b, ' ')
	}
	if f.Size {
		b = append(b, "RFC822.SIZE "...)
		b = strconv.AppendInt(b, row.Size, 10)
		b = append(b, ' ')
	}
	if len(b) > start {
		b = b[:len(b)-1]
	}
	return b
}

// seenBatch is how many messages get \Seen in one write. A connection that is
// cut leaves at most so many marked that were not read.
const seenBatch = 64

// fromStore answers what the store has to be asked for.
func (f *fetching) fromStore(uids store.UIDSet) error {
	b := f.s.box
	want, got := countIn(b.snap, uids), 0
	if !f.seen {
		n, err := f.messages(uids, nil)
		if err != nil {
			return err
		}
		got = n
	} else {
		batch := store.UIDSet{}
		n := 0
		flush := func() error {
			k, err := f.readBatch(batch)
			got += k
			batch, n = batch[:0], 0
			return err
		}
		for _, row := range b.snap.Rows(uids) {
			batch.Add(row.UID)
			if n++; n == seenBatch {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		if n > 0 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if f.err != nil {
		return f.err
	}
	if got < want && !f.uid {
		return errExpunged()
	}
	return nil
}

// readBatch sets \Seen and answers; FLAGS is told of those that it changed.
func (f *fetching) readBatch(uids store.UIDSet) (int, error) {
	changed, err := f.markSeen(uids)
	if err != nil {
		return 0, err
	}
	if f.Flags {
		f.s.box.tell(slices.Clone(uids))
	} else {
		f.s.box.tell(changed)
	}
	return f.messages(uids, changed)
}

// markSeen sets \Seen where it is not set, and returns where.
func (f *fetching) markSeen(uids store.UIDSet) (store.UIDSet, error) {
	s, b := f.s, f.s.box
	unseen := store.UIDSet{}
	for _, row := range b.newest.Rows(uids) {
		if !row.Flags.System.Has(store.Seen) {
			unseen.Add(row.UID)
		}
	}
	if unseen.Empty() {
		return nil, nil
	}
	op := store.FlagOp{Mode: store.AddFlags, Flags: store.Flags{System: store.Seen}}
	r, err := s.acc.SetFlags(s.ctx, b.id, unseen, op)
	if errors.Is(err, store.ErrPermission) {
		return nil, nil // reading is allowed all the same (RFC 4314 §4)
	}
	if err != nil {
		return nil, err
	}
	if !b.view.FoldFlags(op, r) {
		b.changed.Store(true)
	}
	if err := s.refresh(); err != nil {
		return nil, err
	}
	f.same = b.snap == b.newest
	return r.Changed, nil
}

// messages answers for uids, with FLAGS for those in flagged. It returns how
// many there were.
func (f *fetching) messages(uids, flagged store.UIDSet) (n int, err error) {
	s, b := f.s, f.s.box
	withFlags := f.Flags
	defer func() { f.Flags = withFlags }()
	for m, err := range s.acc.Messages(s.ctx, b.id, store.Query{UIDs: uids, Fields: f.fields}) {
		if err != nil {
			return n, err
		}
		i, ok := b.snap.Index(m.UID)
		if !ok {
			continue
		}
		n++
		f.Flags = withFlags || flagged.Contains(m.UID)
		if err := f.message(i, m); err != nil {
			return n, err
		}
	}
	return n, nil
}

// message answers for one message. Only errors that end the command are
// returned; others are kept for its end.
func (f *fetching) message(i int, m store.Message) error {
	s := f.s
	f.msg = message{s: s, Message: m, split: f.msg.split[:0]}
	msg := &f.msg
	defer msg.close()
	var err error
	if f.Envelope || f.Body || f.BodyStructure {
		_, err = msg.root()
	}
	f.prepared = f.prepared[:0]
	for k := range f.Sections {
		if err != nil {
			break
		}
		var c content
		c, err = msg.section(&f.Sections[k])
		f.prepared = append(f.prepared, c)
	}
	sizes := make([]int64, len(f.BinarySizes))
	for k, part := range f.BinarySizes {
		if err != nil {
			break
		}
		sizes[k], err = msg.binarySize(part)
	}
	if err != nil {
		if s.ctx.Err() != nil {
			return err
		}
		switch {
		case !errors.Is(err, store.ErrNotExist):
			f.err = cmp.Or(f.err, err)
		case !f.uid:
			f.err = cmp.Or(f.err, errExpunged())
		}
		return nil
	}
	return f.write(i, msg, sizes)
}

// flagsOf returns the newest flags that a Snapshot has of message i.
func (f *fetching) flagsOf(i int, uid store.UID) store.Flags {
	b := f.s.box
	if !f.same {
		if j, ok := b.newest.Index(uid); ok {
			return b.newest.Flags(j)
		}
	}
	return b.snap.Flags(i)
}

// write writes the FETCH response of one message that is prepared.
func (f *fetching) write(i int, msg *message, sizes []int64) error {
	enc := f.s.enc
	row := store.Row{UID: msg.UID, ModSeq: msg.ModSeq, Size: msg.Size}
	if f.Flags {
		row.Flags = f.flagsOf(i, msg.UID)
	}
	buf := enc.AppendBuffer(flagsRoom(row.Flags) + 256)
	buf = append(buf, "* "...)
	buf = strconv.AppendUint(buf, uint64(i+1), 10)
	buf = append(buf, " FETCH ("...)
	open := len(buf)
	buf = f.appendCheap(buf, row)
	first := len(buf) == open
	enc.Raw(buf)
	item := func(name string) {
		if !first {
			enc.SP()
		}
		first = false
		enc.Atom(name)
	}
	if f.InternalDate {
		item("INTERNALDATE ")
		enc.DateTime(msg.InternalDate)
	}
	if f.Envelope {
		item("ENVELOPE ")
		f.s.writeEnvelope(msg.part.Envelope)
	}
	if f.Body {
		item("BODY ")
		f.s.writeStructure(msg.part, false)
	}
	if f.BodyStructure {
		item("BODYSTRUCTURE ")
		f.s.writeStructure(msg.part, true)
	}
	for k := range f.Sections {
		item("")
		enc.Raw(f.names[k]).SP()
		if err := f.s.writeContent(&f.prepared[k]); err != nil {
			return err
		}
	}
	for k, part := range f.BinarySizes {
		item("BINARY.SIZE")
		sec := imap.Section{Part: part}
		enc.Raw(sec.AppendItem(nil)[len("BODY"):]).SP().Number(uint64(sizes[k]))
	}
	return enc.Atom(")").CRLF()
}
