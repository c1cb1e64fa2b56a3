package diskstore

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// records is one record of each kind, and what makes it again of what was read.
func records() map[string]struct {
	record []byte
	again  func(v []byte) ([]byte, error)
} {
	s := &Store{}
	type codec = struct {
		record []byte
		again  func(v []byte) ([]byte, error)
	}
	m := row{uid: 7, gone: true, system: 3, words: []int{1, 4}, modSeq: 99, size: 1 << 33, email: 5, thread: 6,
		date: time.Unix(1e9, 5).In(time.FixedZone("", -5400)), saved: time.Unix(2e9, 0).UTC()}
	b := mailbox{no: 3, name: "Entwürfe", use: []string{`\Drafts`}, validity: 1 << 31, next: 9, recent: 8, modSeq: 1 << 40, horizon: 2,
		counts: store.Counts{Messages: 1, Unseen: 2, Deleted: 3, Size: 4, DeletedSize: 5}, tail: 6, tailRows: 7, tombs: 1, tombRgs: 2}
	e := email{no: 4, thread: 5, blob: 6, bodySize: 1 << 40, head: []byte("To: x\r\n"), ids: [][hashBytes]byte{hashOf("a"), hashOf("b")}}
	c := newChunk()
	for i := range 20 {
		c.add(&row{uid: store.UID(10 + i*i), system: store.SystemFlags(i / 5), words: [][]int{nil, {1}, {0, 2}}[i/7], modSeq: store.ModSeq(i / 3), size: int64(i), email: uint64(100 - i)})
	}
	c.codes[4], c.modSeqs[4] = codeGone, 0
	l := layout{}
	l.add(bytes.Repeat([]byte("x"), frameSize), frameSize)
	l.add([]byte("end"), 3)
	body, _ := encodeBody(coding{}, []byte("body"))
	account := accountRecord{name: "ann", modSeq: 4, validity: 5, quota: 6, deleted: 7, horizon: 8}
	return map[string]codec{
		"row": {m.encode(), func(v []byte) ([]byte, error) {
			m, err := decodeRow(7, v)
			return m.encode(), err
		}},
		"mailbox": {b.encode(), func(v []byte) ([]byte, error) {
			b, err := decodeMailbox(3, v)
			if err != nil {
				return nil, err
			}
			return b.encode(), nil
		}},
		"account": {account.encode(), func(v []byte) ([]byte, error) {
			a, err := decodeAccount(v)
			return a.encode(), err
		}},
		"name": {nameRecord{5, 6}.encode(), func(v []byte) ([]byte, error) {
			n, err := decodeName(v)
			return n.encode(), err
		}},
		"email": {e.encode(e.head), func(v []byte) ([]byte, error) {
			e, _, err := decodeEmail(4, v)
			if err != nil {
				return nil, err
			}
			return e.encode(e.head), nil
		}},
		"tombstone": {encodeTomb(3, store.UIDs(1, 2, 3, 9, 12, store.MaxUID)), func(v []byte) ([]byte, error) {
			due, uids, err := decodeTomb(v)
			return encodeTomb(due, uids), err
		}},
		"thread": {thread{5, 6}.encode(), func(v []byte) ([]byte, error) {
			t, err := decodeThread(v)
			return t.encode(), err
		}},
		"keywords": {makeWords([]string{"a", "", "B"}).encode(), func(v []byte) ([]byte, error) {
			t, err := decodeWords(v)
			if err != nil {
				return nil, err
			}
			return t.encode(), nil
		}},
		"chunk, flags": {c.encodeFlags(c.info()), func(v []byte) ([]byte, error) {
			c := newChunk()
			i, err := c.decodeFlags(10, v)
			if err != nil {
				return nil, err
			}
			return c.encodeFlags(i), nil
		}},
		"chunk, static": {c.encodeStatic(), func(v []byte) ([]byte, error) {
			c := newChunk()
			if err := c.decodeStatic(v); err != nil {
				return nil, err
			}
			return c.encodeStatic(), nil
		}},
		"file": {l.encode(), func(v []byte) ([]byte, error) {
			l, err := s.decodeLayout(v, nil)
			if err != nil {
				return nil, err
			}
			return l.encode(), nil
		}},
		"body": {body, func(v []byte) ([]byte, error) {
			b, err := s.decodeBody(nil, v, nil, 4)
			if err != nil {
				return nil, err
			}
			return encodeBody(coding{}, b)
		}},
		"first body": {firstBody(), func(v []byte) ([]byte, error) {
			_, err := s.decodeBody(nil, v, nil, 4)
			return firstBody(), err
		}},
		"summary": {encodeSummary(codeSealed, []byte("s")), func(v []byte) ([]byte, error) {
			how, s, err := decodeSummary(v)
			return encodeSummary(how, s), err
		}},
	}
}

func TestRecords(t *testing.T) {
	for name, c := range records() {
		again, err := c.again(c.record)
		if err != nil || !bytes.Equal(again, c.record) {
			t.Errorf("%s: %x became %x, %v", name, c.record, again, err)
		}
		// Every octet is looked after.
		for i := range c.record {
			bad := bytes.Clone(c.record)
			bad[i] ^= 0x40
			if _, err := c.again(bad); !errors.Is(err, diskdb.ErrDamaged) {
				t.Fatalf("%s: octet %d of %d is wrong, and: %v", name, i, len(bad), err)
			}
			if _, err := c.again(c.record[:i]); !errors.Is(err, diskdb.ErrDamaged) {
				t.Fatalf("%s: cut after %d octets, and: %v", name, i, err)
			}
		}
	}
	for _, n := range []uint64{1, 31, 1 << 40, 1<<64 - 1} {
		if m, ok := numberOf('m', idOf('m', n)); !ok || m != n {
			t.Errorf("%d became %d", n, m)
		}
	}
	for _, bad := range []string{"", "m", "maaaaaaaaaaaaaaa", "faaaaaaaaaaaba", "maaaaaaaaaaaab", "MAAAAAAAAAAABA", "maaaaaaaaaaa\xffa"} {
		if n, ok := numberOf('m', bad); ok {
			t.Errorf("%q is number %d", bad, n)
		}
	}
}

// FuzzRecord reads records whose checksums are right and whose content is
// anything: an error, or something that is written again as it was read.
func FuzzRecord(f *testing.F) {
	for _, c := range records() {
		f.Add(c.record[1 : len(c.record)-4])
	}
	all := records()
	f.Fuzz(func(t *testing.T, content []byte) {
		w := diskdb.Record(len(content))
		w.B = append(w.B, content...)
		v := w.Seal()
		for name, c := range all {
			once, err := c.again(v)
			if err != nil {
				if !errors.Is(err, diskdb.ErrDamaged) {
					t.Fatalf("%s: %v", name, err)
				}
				continue
			}
			twice, err := c.again(once)
			if err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("%s: %x became %x and then %x, %v", name, v, once, twice, err)
			}
		}
	})
}

// FuzzNames gives mailboxes, accounts, keywords and subscriptions any name:
// it is refused, or comes back as it was.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"INBOX", "a/b", "\x00", "ä", "\xff", "a\x00b", ""} {
		f.Add(s, s+"x")
	}
	s := openMem(f, vfs.NewMem(), Options{})
	f.Cleanup(func() { s.Close() })
	n := 0
	f.Fuzz(func(t *testing.T, one, two string) {
		n++
		id := string(rune('a'+n%26)) + one
		if err := s.CreateAccount(ctx, id); err != nil {
			if !errors.Is(err, store.ErrLimit) && !errors.Is(err, store.ErrExist) {
				t.Fatal(err)
			}
			return
		}
		acc, err := s.Account(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"INBOX"}
		for _, name := range []string{one, two} {
			if _, err := acc.CreateMailbox(ctx, store.NewMailbox{Name: name, SpecialUse: []string{name}}); err == nil {
				want = append(want, name)
			} else if !errors.Is(err, store.ErrLimit) && !errors.Is(err, store.ErrExist) {
				t.Fatal(err)
			}
			if err := acc.(store.Subscriber).Subscribe(ctx, name); err != nil && !errors.Is(err, store.ErrLimit) {
				t.Fatal(err)
			}
		}
		d := store.Draft{Body: bytes.NewReader([]byte("x")), Flags: store.NewFlags(0, one, two)}
		if _, err := acc.Append(ctx, store.Inbox, []store.Draft{d}, store.AppendOptions{}); err != nil && !errors.Is(err, store.ErrLimit) {
			t.Fatal(err)
		}
		// As another process would read it.
		a, err := s.load(acc.(*account).no, id)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, b := range a.inOrder() {
			have = append(have, b.name)
		}
		if !reflect.DeepEqual(have, want) {
			t.Fatalf("mailboxes %q, want %q", have, want)
		}
		for m, err := range acc.Messages(ctx, store.Inbox, store.Query{}) {
			if err != nil || !m.Flags.Equal(d.Flags) {
				t.Fatalf("keywords %q, want %q, %v", m.Flags.Keywords, d.Flags.Keywords, err)
			}
		}
		if err := s.DeleteAccount(ctx, id); err != nil {
			t.Fatal(err)
		}
	})
}

// firstBody is the record of a body as the first stores had it.
func firstBody() []byte {
	w := diskdb.Record(10)
	w.Octet(0)
	w.B = append(w.B, "body"...)
	return w.Seal()
}
