package store

import (
	"slices"
	"testing"
)

func TestFlags(t *testing.T) {
	f := NewFlags(Seen, "b", "A", "a", "B", "c")
	if !slices.Equal(f.Keywords, []string{"A", "b", "c"}) || !f.Valid() {
		t.Fatalf("NewFlags: %q", f.Keywords)
	}
	if !f.Has("a") || !f.Has("C") || f.Has("d") || f.Has("") {
		t.Error("Has")
	}
	if g := f.With(NewFlags(Flagged, "B", "d", "C")); !slices.Equal(g.Keywords, []string{"A", "b", "c", "d"}) || g.System != Seen|Flagged {
		t.Errorf("With: %v", g)
	}
	if g := f.Without(NewFlags(Seen, "B", "x")); !slices.Equal(g.Keywords, []string{"A", "c"}) || g.System != 0 {
		t.Errorf("Without: %v", g)
	}
	if !slices.Equal(f.Keywords, []string{"A", "b", "c"}) {
		t.Errorf("With or Without changed its receiver: %q", f.Keywords)
	}
	if g := f.Without(f); g.Keywords != nil || !g.Equal(Flags{}) {
		t.Errorf("Without itself: %v", g)
	}
	if !f.Any(NewFlags(0, "C")) || !f.Any(NewFlags(Seen|Deleted)) || f.Any(NewFlags(Deleted, "z")) || f.Any(Flags{}) {
		t.Error("Any")
	}
	if (Flags{Keywords: []string{"b", "a"}}).Valid() || (Flags{Keywords: []string{"a", "A"}}).Valid() {
		t.Error("Valid")
	}
	for _, c := range []struct {
		op   FlagOp
		want Flags
	}{
		{FlagOp{Mode: AddFlags, Flags: NewFlags(Deleted, "A")}, NewFlags(Seen|Deleted, "A", "b", "c")},
		{FlagOp{Mode: RemoveFlags, Flags: NewFlags(Seen, "a")}, NewFlags(0, "b", "c")},
		{FlagOp{Mode: ReplaceFlags, Flags: NewFlags(Answered, "z")}, NewFlags(Answered, "z")},
		{FlagOp{Mode: ReplaceFlags}, Flags{}},
	} {
		if got := c.op.Apply(f); !got.Equal(c.want) {
			t.Errorf("%+v: %v, want %v", c.op, got, c.want)
		}
	}
	g := NewFlags(Flagged, "A", "b")
	if n := testing.AllocsPerRun(100, func() { f.With(g); f.Without(NewFlags(Seen)); f.Has("b") }); n > 0 {
		t.Errorf("%v allocations where nothing new comes in", n)
	}
}
