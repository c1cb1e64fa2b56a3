package store

import (
	"errors"
	"iter"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// UID identifies a message within a mailbox and its UIDVALIDITY; 0 is none.
type UID uint32

// MaxUID is the greatest UID.
const MaxUID UID = math.MaxUint32

// UIDRange is First to Last, both included.
type UIDRange struct{ First, Last UID }

// UIDSet is a set of UIDs as ascending, disjoint ranges that do not touch. A
// store must accept {1, MaxUID}. Methods treat a set as a value: only Add and
// AddRange change their receiver.
//
// In a [Query] nil means all messages; the empty sets that the operations
// here return are not nil, so an empty intersection selects nothing.
type UIDSet []UIDRange

// AllUIDs is the set of all UIDs.
func AllUIDs() UIDSet { return UIDSet{{1, MaxUID}} }

// UIDs returns the set of the given UIDs, in any order; 0 is left out.
func UIDs(uids ...UID) UIDSet {
	s := UIDSet{}
	if slices.IsSorted(uids) {
		for _, u := range uids {
			s.Add(u)
		}
		return s
	}
	sorted := slices.Clone(uids)
	slices.Sort(sorted)
	return UIDs(sorted...)
}

// Add adds one UID. Adding in ascending order costs constant time.
func (s *UIDSet) Add(u UID) { s.AddRange(u, u) }

// AddRange adds first to last; nothing when last < first. 0 is left out.
func (s *UIDSet) AddRange(first, last UID) {
	first = max(first, 1)
	if last < first {
		return
	}
	set := *s
	n := len(set)
	if n == 0 || set[n-1].Last < first && set[n-1].Last+1 < first {
		*s = append(set, UIDRange{first, last})
		return
	}
	// lo is the first range that touches or follows, hi the first beyond.
	lo := sort.Search(n, func(i int) bool { return set[i].Last >= first-1 })
	hi := lo
	for hi < n && (last == MaxUID || set[hi].First <= last+1) {
		first, last = min(first, set[hi].First), max(last, set[hi].Last)
		hi++
	}
	if hi > lo {
		set[lo] = UIDRange{first, last}
		*s = append(set[:lo+1], set[hi:]...)
		return
	}
	*s = slices.Insert(set, lo, UIDRange{first, last})
}

// search returns the index of the first range that ends at u or after it.
func (s UIDSet) search(u UID) int {
	return sort.Search(len(s), func(i int) bool { return s[i].Last >= u })
}

// Contains reports whether u is in s.
func (s UIDSet) Contains(u UID) bool {
	i := s.search(u)
	return i < len(s) && s[i].First <= u
}

// Empty reports whether there is no UID in s.
func (s UIDSet) Empty() bool { return len(s) == 0 }

// Count returns how many UIDs are in s.
func (s UIDSet) Count() int64 {
	var n int64
	for _, r := range s {
		n += int64(r.Last) - int64(r.First) + 1
	}
	return n
}

// First and Last return the least and the greatest UID, 0 when s is empty.
func (s UIDSet) First() UID {
	if len(s) == 0 {
		return 0
	}
	return s[0].First
}

// Last returns the greatest UID, 0 when s is empty.
func (s UIDSet) Last() UID {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].Last
}

// All yields the UIDs in ascending order. A set such as {1, MaxUID} yields
// four thousand million of them: walk the messages instead.
func (s UIDSet) All() iter.Seq[UID] {
	return func(yield func(UID) bool) {
		for _, r := range s {
			for u := r.First; ; u++ {
				if !yield(u) {
					return
				}
				if u == r.Last {
					break
				}
			}
		}
	}
}

// Valid reports whether s is what UIDSet promises: ascending, disjoint, not
// touching, without 0.
func (s UIDSet) Valid() bool {
	for i, r := range s {
		if r.First == 0 || r.Last < r.First || i > 0 && (s[i-1].Last == MaxUID || s[i-1].Last+1 >= r.First) {
			return false
		}
	}
	return true
}

// Equal reports whether s and t hold the same UIDs.
func (s UIDSet) Equal(t UIDSet) bool { return slices.Equal(s, t) }

// Clone returns a copy that shares nothing with s.
func (s UIDSet) Clone() UIDSet { return append(UIDSet{}, s...) }

// Union returns the UIDs of either set.
func (s UIDSet) Union(t UIDSet) UIDSet {
	out := make(UIDSet, 0, max(len(s), len(t)))
	for len(s) > 0 || len(t) > 0 {
		if len(t) == 0 || len(s) > 0 && s[0].First <= t[0].First {
			out.AddRange(s[0].First, s[0].Last)
			s = s[1:]
		} else {
			out.AddRange(t[0].First, t[0].Last)
			t = t[1:]
		}
	}
	return out
}

// Intersect returns the UIDs of both sets.
func (s UIDSet) Intersect(t UIDSet) UIDSet {
	out := UIDSet{}
	for len(s) > 0 && len(t) > 0 {
		first, last := max(s[0].First, t[0].First), min(s[0].Last, t[0].Last)
		if first <= last {
			out = append(out, UIDRange{first, last})
		}
		if s[0].Last < t[0].Last {
			s = s[1:]
		} else {
			t = t[1:]
		}
	}
	return out
}

// Subtract returns the UIDs of s that are not in t.
func (s UIDSet) Subtract(t UIDSet) UIDSet {
	out := UIDSet{}
	for _, r := range s {
		for len(t) > 0 && t[0].Last < r.First {
			t = t[1:]
		}
		done := false
		for i := 0; i < len(t) && t[i].First <= r.Last; i++ {
			if t[i].First > r.First {
				out = append(out, UIDRange{r.First, t[i].First - 1})
			}
			if t[i].Last >= r.Last {
				done = true
				break
			}
			r.First = t[i].Last + 1
		}
		if !done {
			out = append(out, r)
		}
	}
	return out
}

// String returns the set as IMAP writes one: "1:3,7"; "" when empty.
func (s UIDSet) String() string { return string(s.AppendText(nil)) }

// AppendText appends what String returns to b.
func (s UIDSet) AppendText(b []byte) []byte {
	for i, r := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(r.First), 10)
		if r.Last > r.First {
			b = append(b, ':')
			b = strconv.AppendUint(b, uint64(r.Last), 10)
		}
	}
	return b
}

var errUIDSet = errors.New("store: malformed UID set")

// ParseUIDSet reads what String writes, with the numbers in any order and
// either end of a range first. There is no "*".
func ParseUIDSet(text string) (UIDSet, error) {
	if text == "" {
		return UIDSet{}, nil
	}
	ranges := make([]UIDRange, 0, strings.Count(text, ",")+1)
	for part := range strings.SplitSeq(text, ",") {
		a, b, isRange := strings.Cut(part, ":")
		if !isRange {
			b = a
		}
		first, err1 := parseUID(a)
		last, err2 := parseUID(b)
		if err1 != nil || err2 != nil {
			return nil, errUIDSet
		}
		ranges = append(ranges, UIDRange{min(first, last), max(first, last)})
	}
	// Sorted first, so that a hostile order does not make Add insert in the
	// middle again and again.
	slices.SortFunc(ranges, func(a, b UIDRange) int {
		if a.First < b.First {
			return -1
		}
		if a.First > b.First {
			return 1
		}
		return 0
	})
	s := make(UIDSet, 0, len(ranges))
	for _, r := range ranges {
		s.AddRange(r.First, r.Last)
	}
	return s, nil
}

func parseUID(s string) (UID, error) {
	if s == "" || s[0] < '1' || s[0] > '9' {
		return 0, errUIDSet
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, errUIDSet
	}
	return UID(n), nil
}
