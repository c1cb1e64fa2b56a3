package diskstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// Report is what Check found, or Repair mended.
type Report struct {
	Accounts, Mailboxes, Messages int
	// SetAside counts records that could not be read and lie apart.
	SetAside int
	// Problems describes what is wrong, at most 1,000 of it.
	Problems []string
}

const maxProblems = 1000

// Check reads all of the store, bodies too, and says what is damaged or does
// not fit together. It may be called while the store is used: it reads the
// state of one moment.
func (s *Store) Check(ctx context.Context) (Report, error) {
	if err := s.begin(ctx); err != nil {
		return Report{}, err
	}
	defer s.end()
	s.sweeper.turn.Lock() // files stay
	defer s.sweeper.turn.Unlock()
	at := s.db.NewSnapshot()
	defer at.Close()
	c := &checker{s: s, r: at}
	err := c.all(ctx)
	return c.Report, unavailable(err)
}

// checker reads one state of the database.
type checker struct {
	Report
	s *Store
	r pebble.Reader
	// found is what Repair works on.
	found findings
	due   map[dueAt]bool
	held  map[uint64]bool // blobs that are held by what is to be added
}

type dueAt struct{ acct, box, m uint64 }

// findings are what is to be mended.
type findings struct {
	bad      map[string]bool        // keys of records that cannot be read
	boxes    map[boxAt]bool         // mailboxes to be made anew
	accounts map[uint64]bool        // whose record or name is bad
	emails   map[emailAt]bool       // that cannot be read any more
	add      map[string][]byte      // keys that are missing
	drop     map[string]bool        // keys that lead nowhere
	leaked   map[emailAt]bool       // emails that no row has
	rows     map[boxAt]store.UIDSet // rows that nobody will give back
}

type (
	boxAt   struct{ acct, box uint64 }
	emailAt struct{ acct, email uint64 }
)

func (c *checker) problem(format string, args ...any) {
	if len(c.Problems) < maxProblems {
		c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
	}
}

// get reads a key; nil when there is none.
func (c *checker) get(key []byte) ([]byte, error) { return diskdb.Get(c.r, key) }

func (c *checker) has(key []byte) (bool, error) {
	v, closer, err := c.r.Get(key)
	_ = v
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, closer.Close()
}

// each calls f for the keys that begin with prefix.
func (c *checker) each(ctx context.Context, prefix []byte, f func(key, value []byte) error) error {
	it, err := c.r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := f(it.Key(), v); err != nil {
			return err
		}
	}
	return it.Error()
}

func (c *checker) bad(key []byte, err error, what string, args ...any) {
	c.problem("%s: %v", fmt.Sprintf(what, args...), err)
	if c.found.bad == nil {
		c.found.bad = make(map[string]bool)
	}
	c.found.bad[string(key)] = true
}

func note[K comparable](m *map[K]bool, k K) {
	if *m == nil {
		*m = make(map[K]bool)
	}
	(*m)[k] = true
}

func (c *checker) missing(key, value []byte, what string, args ...any) {
	c.problem(what, args...)
	if c.found.add == nil {
		c.found.add = make(map[string][]byte)
	}
	c.found.add[string(key)] = value
}

func (c *checker) stray(key []byte, what string, args ...any) {
	c.problem(what, args...)
	note(&c.found.drop, string(key))
}

func (c *checker) all(ctx context.Context) error {
	if v, err := c.get([]byte{kNumber}); err != nil {
		return err
	} else if v != nil {
		if _, err := diskdb.Unseal(v); err != nil {
			c.bad([]byte{kNumber}, err, "the record of numbers")
		}
	}
	c.due = make(map[dueAt]bool)
	err := c.each(ctx, []byte{kDue}, func(key, _ []byte) error {
		if len(key) != lenDue {
			c.stray(key, "a key of what is due: %x", key)
			return nil
		}
		c.due[dueAt{u8(key[9:]), u8(key[17:]), u8(key[25:])}] = true
		return nil
	})
	if err != nil {
		return err
	}
	known := make(map[uint64]bool)
	err = c.each(ctx, []byte{kName}, func(key, value []byte) error {
		n, err := decodeName(value)
		if err != nil {
			c.bad(key, err, "account %q: its name", key[1:])
			return nil
		}
		if n.no == 0 {
			return nil
		}
		known[n.no] = true
		c.Accounts++
		return c.account(ctx, n.no, string(key[1:]))
	})
	if err != nil {
		return err
	}
	// Accounts whose name cannot be read.
	err = c.each(ctx, []byte{kAccount}, func(key, value []byte) error {
		if len(key) != 9 {
			c.stray(key, "a key of an account: %x", key)
			return nil
		}
		no := u8(key[1:])
		rec, err := decodeAccount(value)
		if known[no] || c.due[dueAt{acct: no}] {
			return nil
		}
		known[no] = true
		if err != nil {
			c.bad(key, err, "account %s", idOf('a', no))
			c.nameless(no)
			return nil
		}
		c.missing(nameKey(rec.name), nameRecord{no: no}.encode(), "account %q: nothing leads to it", rec.name)
		c.Accounts++
		return c.account(ctx, no, rec.name)
	})
	if err != nil {
		return err
	}
	err = c.each(ctx, []byte{kMailbox}, func(key, _ []byte) error {
		if len(key) != 17 {
			return nil // of an account that was looked at, or of none
		}
		if no := u8(key[1:]); !known[no] && !c.due[dueAt{acct: no}] {
			known[no] = true
			c.nameless(no)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.blobs(ctx); err != nil {
		return err
	}
	return c.each(ctx, []byte{kBad}, func(_, _ []byte) error { c.SetAside++; return nil })
}

// nameless is an account of which neither its name nor its record is left. It
// gets both anew; its mail is looked at under that name.
func (c *checker) nameless(no uint64) {
	name := "Recovered " + idOf('a', no)
	c.missing(nameKey(name), nameRecord{no: no}.encode(), "account %s: its name and its record are lost", idOf('a', no))
	note(&c.found.accounts, no)
}

func (c *checker) account(ctx context.Context, no uint64, name string) error {
	v, err := c.get(key1(kAccount, no))
	if err != nil {
		return err
	}
	rec, err := decodeAccount(v)
	if err != nil {
		c.bad(key1(kAccount, no), err, "account %q", name)
		note(&c.found.accounts, no)
	}
	if err == nil && rec.name != name {
		c.problem("account %q: its record is of %q", name, rec.name)
		note(&c.found.accounts, no)
	}
	inbox := false
	boxes := make(map[uint64]bool)
	err = c.each(ctx, key1(kMailbox, no), func(key, value []byte) error {
		if len(key) != 17 {
			c.stray(key, "account %q: a key of a mailbox: %x", name, key)
			return nil
		}
		box := u8(key[9:])
		inbox = inbox || box == inboxNo
		boxes[box] = true
		b, err := decodeMailbox(box, value)
		if err != nil {
			c.bad(key, err, "account %q, mailbox %s", name, boxID(box))
			note(&c.found.boxes, boxAt{no, box})
			return nil
		}
		c.Mailboxes++
		return c.mailbox(ctx, no, b, fmt.Sprintf("account %q, mailbox %q", name, b.name))
	})
	if err != nil {
		return err
	}
	if !inbox {
		c.problem("account %q: it has no Inbox", name)
		note(&c.found.boxes, boxAt{no, inboxNo})
	}
	if err := c.homeless(no, name, boxes); err != nil {
		return err
	}
	if err := c.emails(ctx, no, name); err != nil {
		return err
	}
	for kind, decode := range map[byte]func(v []byte) error{
		kThread:  func(v []byte) error { _, err := decodeThread(v); return err },
		kSummary: func(v []byte) error { _, _, err := decodeSummary(v); return err },
		kGone:    func(v []byte) error { _, err := diskdb.Unseal(v); return err },
	} {
		err := c.each(ctx, key1(kind, no), func(key, value []byte) error {
			if err := decode(value); err != nil {
				c.bad(key, err, "account %q: record %c", name, kind)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// homeless looks for rows of mailboxes that are not there.
func (c *checker) homeless(acct uint64, name string, boxes map[uint64]bool) error {
	prefix := key1(kRow, acct)
	it, err := c.r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; {
		if len(it.Key()) != lenRow {
			ok = it.Next()
			continue
		}
		box := u8(it.Key()[9:])
		if !boxes[box] && !c.due[dueAt{acct, box, 0}] {
			c.problem("account %q: there are messages of mailbox %s, which is not there", name, boxID(box))
			note(&c.found.boxes, boxAt{acct, box})
		}
		ok = it.SeekGE(boxKey(kRow, acct, box+1))
	}
	return it.Error()
}

// mailbox reads all messages of b and counts.
func (c *checker) mailbox(ctx context.Context, acct uint64, b *mailbox, where string) error {
	at := boxAt{acct, b.no}
	wrong := func(format string, args ...any) {
		c.problem("%s: %s", where, fmt.Sprintf(format, args...))
		note(&c.found.boxes, at)
	}
	t := makeWords(nil)
	v, err := c.get(boxKey(kWords, acct, b.no))
	if err != nil {
		return err
	}
	if v != nil {
		if t, err = decodeWords(v); err != nil {
			c.bad(boxKey(kWords, acct, b.no), err, "%s: its keywords", where)
			note(&c.found.boxes, at)
			t = makeWords(nil)
		}
	}
	// What is gone and will be given back.
	var dead []store.UIDSet
	tombs, ranges := 0, 0
	err = c.each(ctx, boxKey(kTomb, acct, b.no), func(key, value []byte) error {
		due, uids, err := decodeTomb(value)
		if err != nil || len(key) != lenTomb {
			c.bad(key, err, "%s: what was expunged", where)
			note(&c.found.boxes, at)
			return nil
		}
		m := store.ModSeq(u8(key[17:]))
		if m > b.horizon {
			tombs, ranges = tombs+1, ranges+len(uids)
		}
		if m > b.modSeq {
			wrong("something was expunged at %d, later than %d", m, b.modSeq)
		}
		if ok, err := c.has(dueKey(due, acct, b.no, m)); err != nil {
			return err
		} else if ok {
			dead = append(dead, uids)
		} else if m <= b.horizon {
			c.stray(key, "%s: what was expunged at %d is of no use any more", where, m)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if tombs != b.tombs || ranges != b.tombRgs {
		wrong("its history has %d steps and %d ranges, it says %d and %d", tombs, ranges, b.tombs, b.tombRgs)
	}

	var counts store.Counts
	sum := &boxTx{mailbox: &mailbox{}}
	seen := func(m *row) error {
		sum.count(m.system, m.size, 1)
		if sum.unseen == 0 && unseen(m.system) {
			sum.unseen = m.uid
		}
		if m.modSeq > b.modSeq || m.modSeq == 0 {
			wrong("UID %d has ModSeq %d, the mailbox %d", m.uid, m.modSeq, b.modSeq)
		}
		for _, w := range m.words {
			if w >= len(t.list) || t.list[w] == "" {
				wrong("UID %d has a keyword that is not known", m.uid)
			}
		}
		if ok, err := c.has(refKey(acct, m.email, b.no, m.uid)); err != nil {
			return err
		} else if !ok {
			c.missing(refKey(acct, m.email, b.no, m.uid), nil, "%s: UID %d does not hold its email", where, m.uid)
		}
		v, err := c.get(key2(kEmail, acct, m.email))
		if err != nil {
			return err
		}
		if v == nil {
			c.problem("%s: UID %d has no email", where, m.uid)
			note(&c.found.emails, emailAt{acct, m.email})
			note(&c.found.boxes, at)
			return nil
		}
		if e, size, err := decodeEmail(m.email, v); err == nil && size+e.bodySize != m.size {
			wrong("UID %d has %d octets, its email %d", m.uid, m.size, size+e.bodySize)
		}
		return nil
	}
	cur, err := newCursor(c.r, acct, b, true, true)
	if err != nil {
		return err
	}
	defer cur.close()
	var firsts []store.UID
	err = c.each(ctx, boxKey(kChunk, acct, b.no), func(key, _ []byte) error {
		first, col, ok := chunkFirst(key)
		if !ok || col != colFlags && col != colStatic {
			c.stray(key, "%s: a key of its index: %x", where, key)
		} else if len(firsts) == 0 || firsts[len(firsts)-1] != first {
			firsts = append(firsts, first)
		}
		return nil
	})
	if err != nil {
		return err
	}
	last := store.UID(0)
	for _, first := range firsts {
		ch, info, err := cur.chunk(first)
		if err != nil {
			if !errors.Is(err, diskdb.ErrDamaged) {
				return err
			}
			wrong("%v", err)
			continue
		}
		if first <= last || info.last >= b.tail {
			wrong("its index from UID %d does not fit", first)
		}
		if now := ch.info(); now != info {
			wrong("its index from UID %d says %+v, is %+v", first, info, now)
		}
		last = info.last
		for j := range ch.uids {
			if ch.codes[j]&codeGone != 0 {
				continue
			}
			m, err := cur.row(ch.uids[j])
			if err != nil {
				if !errors.Is(err, diskdb.ErrDamaged) {
					return err
				}
				wrong("%v", err)
				m = row{uid: ch.uids[j], size: ch.sizes[j], email: ch.emails[j]}
			}
			if m.gone || m.size != ch.sizes[j] || m.email != ch.emails[j] {
				wrong("UID %d: its row and the index do not agree", m.uid)
			}
			m.system, m.words, m.modSeq = store.SystemFlags(ch.codes[j]), ch.sets[ch.codes[j]>>8], ch.modSeqs[j]
			if err := seen(&m); err != nil {
				return err
			}
		}
		ch.free()
	}
	inChunks := sum.counts.Messages
	expunged := unite(dead)
	leaked := store.UIDSet{}
	live := store.UIDSet{}
	for _, first := range firsts { // those in chunks, to tell the dead rows
		if ch, _, err := cur.chunk(first); err == nil {
			for j, u := range ch.uids {
				if ch.codes[j]&codeGone == 0 {
					live.Add(u)
				}
			}
			ch.free()
		}
	}
	err = c.each(ctx, boxKey(kRow, acct, b.no), func(key, value []byte) error {
		if len(key) != lenRow {
			c.stray(key, "%s: a key of a row: %x", where, key)
			return nil
		}
		uid := uidOf(key[17:])
		m, err := decodeRow(uid, value)
		if err != nil {
			c.bad(key, err, "%s, UID %d", where, uid)
			note(&c.found.boxes, at)
			return nil
		}
		if uid >= b.next {
			wrong("UID %d is not below UIDNEXT %d", uid, b.next)
		}
		if uid >= b.tail && !m.gone {
			return seen(&m)
		}
		if !expunged.Contains(uid) && !live.Contains(uid) && !c.found.boxes[at] {
			leaked.Add(uid)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !leaked.Empty() && !c.found.boxes[at] {
		c.problem("%s: nothing will give back UIDs %s", where, leaked)
		if c.found.rows == nil {
			c.found.rows = make(map[boxAt]store.UIDSet)
		}
		c.found.rows[at] = leaked
	}
	counts = sum.counts
	c.Messages += counts.Messages
	if counts != b.counts || counts.Messages-inChunks != b.tailRows {
		wrong("it says %+v and %d in the tail, has %+v and %d", b.counts, b.tailRows, counts, counts.Messages-inChunks)
	}
	if sum.unseen != b.unseen {
		wrong("it says that UID %d is the first unseen one, it is %d", b.unseen, sum.unseen)
	}
	return nil
}
