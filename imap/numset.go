package imap

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Star stands for "*", the largest number in use (RFC 9051 §9, seq-number).
const Star uint32 = 0

// NumRange is First to Last, both included. Either may be Star, and in what
// came from the wire they may stand in any order.
type NumRange struct{ First, Last uint32 }

// NumSet is a set of sequence numbers or UIDs as the wire has it: ranges in
// any order. [NumSet.Resolve] makes it ascending and disjoint.
type NumSet []NumRange

// ErrNumSet is what ParseNumSet returns for bad syntax.
var ErrNumSet = errors.New("imap: malformed number set")

// NumSetOf returns the set of the given numbers.
func NumSetOf(nums ...uint32) NumSet {
	var s NumSet
	for _, n := range nums {
		s.Add(n)
	}
	return s
}

// ParseNumSet parses a sequence-set such as "1:3,7,9:*" (RFC 9051 §9). "$" is
// not a set: see [MessageSet].
func ParseNumSet(text string) (NumSet, error) {
	s := make(NumSet, 0, 1+strings.Count(text, ","))
	for len(text) > 0 || len(s) == 0 {
		item, rest, more := strings.Cut(text, ",")
		a, b, isRange := strings.Cut(item, ":")
		first, ok := parseNum(a)
		if !ok {
			return nil, ErrNumSet
		}
		last := first
		if isRange {
			if last, ok = parseNum(b); !ok {
				return nil, ErrNumSet
			}
		}
		s = append(s, NumRange{first, last})
		if text = rest; more && text == "" {
			return nil, ErrNumSet
		}
	}
	return s, nil
}

func parseNum(t string) (uint32, bool) {
	if t == "*" {
		return Star, true
	}
	if t == "" || t[0] < '1' || t[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(t, 10, 32)
	return uint32(n), err == nil
}

// Add adds n at the end, joined to the last range where n follows it: adding
// in ascending order gives an ascending, disjoint set.
func (s *NumSet) Add(n uint32) { s.AddRange(n, n) }

// AddRange adds first to last at the end.
func (s *NumSet) AddRange(first, last uint32) {
	if k := len(*s) - 1; k >= 0 {
		if l := &(*s)[k]; l.Last != Star && l.First <= l.Last && l.Last != math.MaxUint32 && l.Last+1 == first {
			l.Last = last
			return
		}
	}
	*s = append(*s, NumRange{first, last})
}

// Contains tells whether n is in the set when "*" is max.
func (s NumSet) Contains(n, max uint32) bool {
	for _, r := range s {
		a, b := r.bounds(max)
		if a <= n && n <= b {
			return true
		}
	}
	return false
}

// bounds puts max for Star and the ends in order.
func (r NumRange) bounds(max uint32) (a, b uint32) {
	a, b = r.First, r.Last
	if a == Star {
		a = max
	}
	if b == Star {
		b = max
	}
	if a > b {
		a, b = b, a
	}
	return a, b
}

// Resolve returns the set with largest for "*", ascending and disjoint. With
// largest 0 (an empty mailbox) "*" is left out.
func (s NumSet) Resolve(largest uint32) NumSet {
	out := make(NumSet, 0, len(s))
	for _, r := range s {
		a, b := r.bounds(largest)
		if b == 0 {
			continue
		}
		out = append(out, NumRange{max(a, 1), b})
	}
	slices.SortFunc(out, func(x, y NumRange) int { return cmp.Compare(x.First, y.First) })
	k := 0
	for i, r := range out {
		if i > 0 && (out[k].Last == math.MaxUint32 || r.First <= out[k].Last+1) {
			out[k].Last = max(out[k].Last, r.Last)
			continue
		}
		if i > 0 {
			k++
		}
		out[k] = r
	}
	if len(out) > 0 {
		out = out[:k+1]
	}
	return out
}

// Len returns how many numbers a resolved set has.
func (s NumSet) Len() int {
	n := 0
	for _, r := range s {
		n += int(r.Last-r.First) + 1
	}
	return n
}

// Nums lists the numbers of a resolved set, at most limit of them.
func (s NumSet) Nums(limit int) []uint32 {
	var out []uint32
	for _, r := range s {
		for n := uint64(r.First); n <= uint64(r.Last) && len(out) < limit; n++ {
			out = append(out, uint32(n))
		}
	}
	return out
}

// AppendText appends the wire form; an empty set gives nothing.
func (s NumSet) AppendText(b []byte) ([]byte, error) {
	for i, r := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendNum(b, r.First)
		if r.Last != r.First {
			b = append(b, ':')
			b = appendNum(b, r.Last)
		}
	}
	return b, nil
}

func appendNum(b []byte, n uint32) []byte {
	if n == Star {
		return append(b, '*')
	}
	return strconv.AppendUint(b, uint64(n), 10)
}

// String returns the wire form.
func (s NumSet) String() string {
	b, _ := s.AppendText(nil)
	return string(b)
}

// MessageSet is what a command acts on: sequence numbers, UIDs, or the saved
// search result "$" (RFC 5182) in either.
type MessageSet struct {
	Nums  NumSet
	UID   bool // Nums are UIDs: the UID form of the command is meant
	Saved bool // "$"; Nums is empty
}

// Seqs returns a MessageSet of sequence numbers.
func Seqs(s NumSet) MessageSet { return MessageSet{Nums: s} }

// UIDs returns a MessageSet of UIDs.
func UIDs(s NumSet) MessageSet { return MessageSet{Nums: s, UID: true} }

// String returns the wire form, without the UID of the command.
func (m MessageSet) String() string {
	if m.Saved {
		return "$"
	}
	return m.Nums.String()
}
