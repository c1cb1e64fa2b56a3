package store

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestUIDSet(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"1", "1"},
		{"3,1,2", "1:3"},
		{"5:3,9,10:10", "3:5,9:10"},
		{"1:4294967295", "1:4294967295"},
		{"4294967295,4294967294", "4294967294:4294967295"},
		{"1:10,5:7", "1:10"},
		{"4294967295,1:4294967295", "1:4294967295"},
	} {
		s, err := ParseUIDSet(c.in)
		if err != nil || s.String() != c.want || !s.Valid() {
			t.Errorf("ParseUIDSet(%q) = %q, %v; want %q", c.in, s, err, c.want)
		}
	}
	for _, bad := range []string{"0", "1:", ":1", "1,", ",", "*", "1:*", "01", "4294967296", "1:2:3", "-1", " 1", "+1", "1-2"} {
		if s, err := ParseUIDSet(bad); err == nil {
			t.Errorf("ParseUIDSet(%q) = %q, want an error", bad, s)
		}
	}
	s := UIDs(7, 1, 3, 2, 0)
	if s.String() != "1:3,7" || s.Count() != 4 || s.First() != 1 || s.Last() != 7 {
		t.Errorf("UIDs: %v", s)
	}
	if got := slices.Collect(s.All()); !slices.Equal(got, []UID{1, 2, 3, 7}) {
		t.Errorf("All: %v", got)
	}
	if n := AllUIDs().Count(); n != 1<<32-1 {
		t.Errorf("Count of all: %d", n)
	}
	for range (UIDSet{{MaxUID, MaxUID}}).All() { // must end
	}
	for what, empty := range map[string]UIDSet{
		"Intersect": s.Intersect(UIDs(9)), "Subtract": s.Subtract(s), "Union": UIDSet(nil).Union(nil),
		"Clone": UIDSet(nil).Clone(), "UIDs": UIDs(),
	} {
		if empty == nil || !empty.Empty() {
			t.Errorf("%s: %v, want an empty set that is not nil", what, empty)
		}
	}
}

// TestUIDSetModel compares the operations with those on a set of bits.
func TestUIDSetModel(t *testing.T) {
	const n = 64
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var sets [2]UIDSet
		var bits [2][n + 1]bool
		for k := range sets {
			sets[k] = UIDSet{}
			for range rnd.IntN(12) {
				first := 1 + rnd.IntN(n)
				last := min(n, first+rnd.IntN(6)-1)
				sets[k].AddRange(UID(first), UID(last))
				for i := first; i <= last; i++ {
					bits[k][i] = true
				}
			}
		}
		a, b := sets[0], sets[1]
		union, both, less := a.Union(b), a.Intersect(b), a.Subtract(b)
		for _, s := range []UIDSet{a, b, union, both, less} {
			if !s.Valid() {
				t.Fatalf("%v is no valid set", s)
			}
		}
		for i := 1; i <= n; i++ {
			x, y := bits[0][i], bits[1][i]
			u := UID(i)
			if a.Contains(u) != x || union.Contains(u) != (x || y) || both.Contains(u) != (x && y) || less.Contains(u) != (x && !y) {
				t.Fatalf("UID %d: a %v, b %v, union %v, both %v, less %v", i, a, b, union, both, less)
			}
		}
		if again, err := ParseUIDSet(a.String()); err != nil || !again.Equal(a) {
			t.Fatalf("%v came back as %v, %v", a, again, err)
		}
	}
}

func FuzzUIDSet(f *testing.F) {
	f.Add("1:3,7", "2,9:4294967295", uint32(5))
	f.Add("", "1:4294967295", uint32(1))
	f.Add("4294967295,1", "4294967294:4294967295", uint32(4294967295))
	f.Add("9,7,5,3,1", "10,8,6,4,2", uint32(0))
	f.Fuzz(func(t *testing.T, x, y string, u uint32) {
		a, err := ParseUIDSet(x)
		if err != nil {
			return
		}
		b, err := ParseUIDSet(y)
		if err != nil {
			return
		}
		union, both, less := a.Union(b), a.Intersect(b), a.Subtract(b)
		for _, s := range []UIDSet{a, b, union, both, less} {
			if !s.Valid() {
				t.Fatalf("%v is no valid set", s)
			}
			if again, err := ParseUIDSet(s.String()); err != nil || !again.Equal(s) {
				t.Fatalf("%v came back as %v, %v", s, again, err)
			}
		}
		if union.Count()+both.Count() != a.Count()+b.Count() || less.Count()+both.Count() != a.Count() {
			t.Fatalf("counts do not add up: %v %v", a, b)
		}
		if !less.Union(both).Equal(a) || !union.Subtract(b).Equal(less) {
			t.Fatalf("%v and %v: union %v, both %v, less %v", a, b, union, both, less)
		}
		if u > 0 {
			c := a.Clone()
			c.Add(UID(u))
			if !c.Valid() || !c.Contains(UID(u)) || !c.Equal(a.Union(UIDs(UID(u)))) {
				t.Fatalf("%v with %d added is %v", a, u, c)
			}
		}
	})
}

func BenchmarkUIDSetAddAscending(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		s := make(UIDSet, 0, 1)
		for u := UID(1); u <= 1000; u++ {
			s.Add(u)
		}
	}
}
