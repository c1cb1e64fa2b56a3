package diskstore

import (
	"time"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// mailbox is a mailbox without its messages, as it is kept and as it is in
// memory. One that is in account.boxes never changes: writers change copies.
type mailbox struct {
	no             uint64
	name           string
	use            []string
	validity       uint32
	next, recent   store.UID
	modSeq         store.ModSeq
	horizon        store.ModSeq
	counts         store.Counts
	unseen         store.UID // the first unseen message; 0 = none
	tail           store.UID // rows from here on are not in chunks
	tailRows       int       // messages in the tail
	tombs, tombRgs int       // tombstones above horizon, and their ranges

	// Not in the record; nil = not read yet.
	words *words
	dir   []chunkInfo
	read  bool // dir is read
}

func (b *mailbox) encode() []byte {
	w := diskdb.Record(64 + len(b.name))
	w.Text(b.name)
	w.Uint(uint64(len(b.use)))
	for _, u := range b.use {
		w.Text(u)
	}
	for _, v := range []uint64{
		uint64(b.validity), uint64(b.next), uint64(b.recent), uint64(b.modSeq), uint64(b.horizon),
		uint64(b.counts.Messages), uint64(b.counts.Unseen), uint64(b.counts.Deleted),
		uint64(b.counts.Size), uint64(b.counts.DeletedSize),
		uint64(b.tail), uint64(b.tailRows), uint64(b.tombs), uint64(b.tombRgs), uint64(b.unseen),
	} {
		w.Uint(v)
	}
	return w.Seal()
}

func decodeMailbox(no uint64, v []byte) (*mailbox, error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return nil, err
	}
	b := readMailbox1(no, &r)
	b.unseen = store.UID(r.Uint32())
	return b, r.End()
}

// readMailbox1 reads what a mailbox had in format 1.
func readMailbox1(no uint64, r *diskdb.Reader) *mailbox {
	b := &mailbox{no: no, name: r.Text()}
	for range r.Count() {
		b.use = append(b.use, r.Text())
	}
	b.validity = r.Uint32()
	b.next, b.recent = store.UID(r.Uint32()), store.UID(r.Uint32())
	b.modSeq, b.horizon = store.ModSeq(r.Uint()), store.ModSeq(r.Uint())
	b.counts = store.Counts{Messages: int(r.Size()), Unseen: int(r.Size()), Deleted: int(r.Size()), Size: r.Size(), DeletedSize: r.Size()}
	b.tail = store.UID(r.Uint32())
	b.tailRows, b.tombs, b.tombRgs = int(r.Size()), int(r.Size()), int(r.Size())
	return b
}

// accountRecord is what an account has beside its mailboxes.
type accountRecord struct {
	name     string
	modSeq   store.ModSeq // of what left no mailbox behind
	validity uint32       // the greatest that was given
	quota    int64
	deleted  int // mailboxes that are remembered as gone
	horizon  store.ModSeq
}

func (a *accountRecord) encode() []byte {
	w := diskdb.Record(32 + len(a.name))
	w.Text(a.name)
	w.Uint(uint64(a.modSeq))
	w.Uint(uint64(a.validity))
	w.Uint(uint64(a.quota))
	w.Uint(uint64(a.deleted))
	w.Uint(uint64(a.horizon))
	return w.Seal()
}

func decodeAccount(v []byte) (accountRecord, error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return accountRecord{}, err
	}
	a := accountRecord{name: r.Text(), modSeq: store.ModSeq(r.Uint()), validity: r.Uint32(), quota: r.Size(), deleted: int(r.Size()), horizon: store.ModSeq(r.Uint())}
	return a, r.End()
}

// nameRecord is behind an account's name: its number, 0 when it was deleted,
// and then the greatest UIDVALIDITY that it had.
type nameRecord struct {
	no       uint64
	validity uint32
}

func (n nameRecord) encode() []byte {
	w := diskdb.Record(16)
	w.Fixed(n.no)
	w.Uint(uint64(n.validity))
	return w.Seal()
}

func decodeName(v []byte) (nameRecord, error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return nameRecord{}, err
	}
	n := nameRecord{r.Fixed(), r.Uint32()}
	return n, r.End()
}

// row is one message of a mailbox.
type row struct {
	uid    store.UID
	gone   bool
	system store.SystemFlags
	words  []int // ascending indexes into the mailbox's keywords
	modSeq store.ModSeq
	size   int64
	email  uint64
	thread uint64
	date   time.Time
	saved  time.Time
}

const rowGone = 1 << 7

func (m *row) encode() []byte {
	w := diskdb.Record(48)
	o := byte(m.system) &^ rowGone
	if m.gone {
		o |= rowGone
	}
	w.Octet(o)
	putWords(w, m.words)
	w.Uint(uint64(m.modSeq))
	w.Uint(uint64(m.size))
	w.Fixed(m.email)
	w.Fixed(m.thread)
	putTime(w, m.date)
	w.Int(m.saved.Unix())
	return w.Seal()
}

func decodeRow(uid store.UID, v []byte) (row, error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return row{}, err
	}
	o := r.Octet()
	m := row{uid: uid, gone: o&rowGone != 0, system: store.SystemFlags(o &^ rowGone)}
	m.words = getWords(&r)
	m.modSeq, m.size = store.ModSeq(r.Uint()), r.Size()
	m.email, m.thread = r.Fixed(), r.Fixed()
	m.date = getTime(&r)
	m.saved = time.Unix(r.Int(), 0).UTC()
	return m, r.End()
}

func putWords(w *diskdb.Writer, words []int) {
	w.Uint(uint64(len(words)))
	for _, i := range words {
		w.Uint(uint64(i))
	}
}

func getWords(r *diskdb.Reader) []int {
	n := r.Count()
	if n == 0 {
		return nil
	}
	words := make([]int, n)
	for i := range words {
		words[i] = int(r.Uint32())
		if i > 0 && words[i] <= words[i-1] {
			r.Fail()
		}
	}
	return words
}

// putTime keeps an instant and, for IMAP's INTERNALDATE, its zone in minutes.
func putTime(w *diskdb.Writer, t time.Time) {
	_, zone := t.Zone()
	w.Int(t.Unix())
	w.Uint(uint64(t.Nanosecond()))
	w.Int(int64(zone / 60))
}

func getTime(r *diskdb.Reader) time.Time {
	sec, nsec, zone := r.Int(), r.Uint32(), r.Int()
	if nsec > 999_999_999 || zone < -24*60 || zone > 24*60 {
		r.Fail()
		return time.Time{}
	}
	t := time.Unix(sec, int64(nsec))
	if zone == 0 {
		return t.UTC()
	}
	return t.In(time.FixedZone("", int(zone)*60))
}

// email is one content of an account.
type email struct {
	no       uint64
	thread   uint64
	blob     uint64 // 0 = the body is empty
	bodySize int64
	head     []byte
	ids      [][hashBytes]byte // of its Message-IDs: threads that it leads to
	key      []byte            // of the email, wrapped; nil = not sealed
	// sealedKey is the body's key under the email's.
	sealedKey []byte

	// When it is unlocked: the email's key and the body's.
	dataKey, bodyKey []byte
}

func (e *email) size() int64 { return int64(len(e.head)) + e.bodySize }

func (e *email) encode(head []byte) []byte {
	w := diskdb.Record(64 + len(head) + hashBytes*len(e.ids))
	w.Fixed(e.thread)
	w.Fixed(e.blob)
	w.Uint(uint64(e.bodySize))
	w.Uint(uint64(len(e.head)))
	w.Bytes(head)
	w.Uint(uint64(len(e.ids)))
	for i := range e.ids {
		w.B = append(w.B, e.ids[i][:]...)
	}
	w.Bytes(e.key)
	w.Bytes(e.sealedKey)
	return w.Seal()
}

// decodeEmail reads an email; head is as it is stored, and belongs to v.
func decodeEmail(no uint64, v []byte) (e *email, headSize int64, err error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return nil, 0, err
	}
	e = &email{no: no, thread: r.Fixed(), blob: r.Fixed(), bodySize: r.Size()}
	headSize = r.Size()
	e.head = r.Bytes()
	if n := r.Count(); n > 0 {
		e.ids = make([][hashBytes]byte, n)
		for i := range e.ids {
			copy(e.ids[i][:], r.Take(hashBytes))
		}
	}
	if e.key = r.Bytes(); len(e.key) == 0 {
		e.key = nil
	}
	e.sealedKey = r.Bytes()
	if headSize > 1<<40 {
		r.Fail()
	}
	return e, headSize, r.End()
}

// encodeTomb writes what one write expunged, and when that is due to be given
// back.
func encodeTomb(due uint64, uids store.UIDSet) []byte {
	w := diskdb.Record(16 + 4*len(uids))
	w.Fixed(due)
	w.Uint(uint64(len(uids)))
	last := store.UID(0)
	for _, g := range uids {
		w.Uint(uint64(g.First - last))
		w.Uint(uint64(g.Last - g.First))
		last = g.Last
	}
	return w.Seal()
}

func decodeTomb(v []byte) (due uint64, s store.UIDSet, err error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return 0, nil, err
	}
	due = r.Fixed()
	s = make(store.UIDSet, r.Count())
	last := uint64(0)
	for i := range s {
		first := last + r.Uint()
		last = first + r.Uint()
		if first > last || last > uint64(store.MaxUID) {
			r.Fail()
			break
		}
		s[i] = store.UIDRange{First: store.UID(first), Last: store.UID(last)}
	}
	if err := r.End(); err != nil {
		return 0, nil, err
	}
	if !s.Valid() {
		return 0, nil, diskdb.ErrDamaged
	}
	return due, s, nil
}

// thread is what a Message-ID leads to.
type thread struct {
	no   uint64
	refs uint64
}

func (t thread) encode() []byte {
	w := diskdb.Record(12)
	w.Fixed(t.no)
	w.Uint(t.refs)
	return w.Seal()
}

func decodeThread(v []byte) (thread, error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return thread{}, err
	}
	t := thread{r.Fixed(), r.Uint()}
	return t, r.End()
}
