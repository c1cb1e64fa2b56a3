package textindex

import (
	"bytes"
	"slices"
	"testing"

	"github.com/postrider/postrider/store"
)

// FuzzRecords: what lies on the disk, whatever it is, gives an error or a value
// that is written as it was read, and costs no more than it is long.
func FuzzRecords(f *testing.F) {
	m := members{uids: []store.UID{3, 9, 1 << 31}, dead: newBits(3), whole: newBits(3)}
	m.dead.add(1)
	m.whole.add(2)
	st := state{uidValidity: 7, next: 12, modSeq: 99, segments: []segment{{1, 2, 1, 9}, {5, 3, 0, 11}}}
	f.Add(m.encode(), uint16(3))
	f.Add(st.encode(), uint16(3))
	w := blocks{docs: 40}
	w.add(5, []uint32{1, 7, 39})
	w.add(9, []uint32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	f.Add(slices.Clone(w.buf), uint16(40))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		if m, err := decodeMembers(b); err == nil {
			if again, err := decodeMembers(m.encode()); err != nil || !slices.Equal(again.uids, m.uids) || !slices.Equal(again.dead, m.dead) || !slices.Equal(again.whole, m.whole) {
				t.Errorf("%v, not %v: %v", again, m, err)
			}
		}
		if s, err := decodeState(b); err == nil {
			if again, err := decodeState(s.encode()); err != nil || !slices.Equal(again.segments, s.segments) || again.next != s.next || again.modSeq != s.modSeq {
				t.Errorf("%v, not %v: %v", again, s, err)
			}
		}
		docs := 1 + int(n)%1000
		var l posting
		set, scratch := newBits(docs), newBits(docs)
		for rest, err := l.next(b); err == nil; rest, err = l.next(rest) {
			l.each(docs, func(d int) {
				if d >= docs {
					t.Fatalf("%d of %d", d, docs)
				}
			})
			l.and(set, scratch, docs)
		}
	})
}

// TestPostings writes lists of all densities, and reads them.
func TestPostings(t *testing.T) {
	const docs = 300
	w := blocks{docs: docs}
	var want [][]uint32
	for step := 1; step < docs; step++ {
		var list []uint32
		for d := step / 2; d < docs; d += step {
			list = append(list, uint32(d))
		}
		want = append(want, list)
		w.add(uint32(step*1000), list)
		if len(w.buf) < blockSize {
			continue
		}
		var l posting
		l.tri = w.first
		rest := w.buf
		for len(rest) > 0 {
			var err error
			if rest, err = l.next(rest); err != nil {
				t.Fatal(err)
			}
			var got []uint32
			if err := l.each(docs, func(d int) { got = append(got, uint32(d)) }); err != nil {
				t.Fatal(err)
			}
			if w := want[l.tri/1000-1]; !slices.Equal(got, w) {
				t.Fatalf("trigram %d: %v, want %v", l.tri/1000, got, w)
			}
		}
		w.buf = w.buf[:0]
	}
}

func TestTrigrams(t *testing.T) {
	for _, c := range []struct {
		texts []string
		most  int
		want  int
	}{
		{nil, 9, 0}, {[]string{"ab", "c"}, 9, 0}, {[]string{"abc"}, 9, 1}, {[]string{"aaaaaa"}, 9, 1}, {[]string{"abcdef", "bcd"}, 9, 4},
		{[]string{string(bytes.Repeat([]byte("abcdefghij"), 100))}, 8, 8},
	} {
		var folded [][]byte
		for _, s := range c.texts {
			folded = append(folded, []byte(s))
		}
		got := trigrams(folded, c.most)
		if len(got) > c.most || len(got) < min(c.want, 2) || c.want < c.most && len(got) != c.want || !slices.IsSorted(got) {
			t.Errorf("%.20q: %x", c.texts, got)
		}
	}
}
