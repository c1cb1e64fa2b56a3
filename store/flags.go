package store

import "slices"

// SystemFlags is a set of IMAP's system flags (RFC 9051 §2.3.2).
type SystemFlags uint8

// The system flags. \Recent is not one of them: see RecentClaimer.
const (
	Seen SystemFlags = 1 << iota
	Answered
	Flagged
	Deleted
	DraftFlag
)

// Has reports whether all flags of g are in f.
func (f SystemFlags) Has(g SystemFlags) bool { return f&g == g }

// Flags are the flags and keywords of a message. Keywords are sorted, unique
// without regard to ASCII case, shared and read-only: change them with With
// and Without, or make new ones with [NewFlags].
type Flags struct {
	System   SystemFlags
	Keywords []string
}

// NewFlags returns flags with keywords in any order; of two that differ in
// ASCII case only the first stays.
func NewFlags(system SystemFlags, keywords ...string) Flags {
	f := Flags{System: system}
	if len(keywords) == 0 {
		return f
	}
	f.Keywords = keywords
	if f.Valid() {
		f.Keywords = slices.Clone(keywords)
		return f
	}
	k := slices.Clone(keywords)
	slices.SortStableFunc(k, CompareKeywords)
	f.Keywords = slices.CompactFunc(k, func(a, b string) bool { return CompareKeywords(a, b) == 0 })
	return f
}

// Valid reports whether the keywords are sorted by CompareKeywords and unique.
func (f Flags) Valid() bool {
	for i := 1; i < len(f.Keywords); i++ {
		if CompareKeywords(f.Keywords[i-1], f.Keywords[i]) >= 0 {
			return false
		}
	}
	return true
}

// Has reports whether f has keyword k, without regard to ASCII case.
func (f Flags) Has(k string) bool {
	_, ok := slices.BinarySearchFunc(f.Keywords, k, CompareKeywords)
	return ok
}

// Any reports whether f has a flag or keyword of g.
func (f Flags) Any(g Flags) bool {
	return f.System&g.System != 0 || slices.ContainsFunc(g.Keywords, f.Has)
}

// Equal reports whether f and g are the same without regard to ASCII case.
func (f Flags) Equal(g Flags) bool {
	if f.System != g.System || len(f.Keywords) != len(g.Keywords) {
		return false
	}
	if len(f.Keywords) > 0 && &f.Keywords[0] == &g.Keywords[0] {
		return true
	}
	return slices.EqualFunc(f.Keywords, g.Keywords, func(a, b string) bool { return CompareKeywords(a, b) == 0 })
}

// With returns f and g together. Where both have a keyword, f's spelling
// stays. It allocates only when g brings a new keyword.
func (f Flags) With(g Flags) Flags {
	out := Flags{f.System | g.System, f.Keywords}
	if !slices.ContainsFunc(g.Keywords, func(k string) bool { return !f.Has(k) }) {
		return out
	}
	if len(f.Keywords) == 0 {
		out.Keywords = g.Keywords
		return out
	}
	return NewFlags(out.System, append(slices.Clip(f.Keywords), g.Keywords...)...)
}

// Without returns f less g.
func (f Flags) Without(g Flags) Flags {
	out := Flags{f.System &^ g.System, f.Keywords}
	if !slices.ContainsFunc(f.Keywords, g.Has) {
		return out
	}
	out.Keywords = slices.DeleteFunc(slices.Clone(f.Keywords), g.Has)
	if len(out.Keywords) == 0 {
		out.Keywords = nil
	}
	return out
}

// Apply returns f after op. The conditions of op are not looked at.
func (op FlagOp) Apply(f Flags) Flags {
	switch op.Mode {
	case AddFlags:
		return f.With(op.Flags)
	case RemoveFlags:
		return f.Without(op.Flags)
	}
	// Keywords that stay keep their spelling.
	if f.Equal(op.Flags) {
		return f
	}
	return op.Flags
}

// CompareKeywords orders keywords without regard to ASCII case, as Flags
// sorts them.
func CompareKeywords(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := lower(a[i]), lower(b[i])
		if x != y {
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// foldKeyword returns k in ASCII lower case, a key for maps.
func foldKeyword(k string) string {
	for i := 0; i < len(k); i++ {
		if lower(k[i]) != k[i] {
			b := []byte(k)
			for i := range b {
				b[i] = lower(b[i])
			}
			return string(b)
		}
	}
	return k
}
