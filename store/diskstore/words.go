package diskstore

import (
	"slices"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// words are the keywords that a mailbox knows, in their first spelling. Rows
// and chunks have their indexes. A table never changes: writers make a new
// one. "" is a place that is free.
type words struct {
	list  []string
	index map[string]int // by ASCII lower case
	used  int
}

func makeWords(list []string) *words {
	t := &words{list: list, index: make(map[string]int, len(list))}
	for i, w := range list {
		if w != "" {
			t.index[lower(w)] = i
			t.used++
		}
	}
	return t
}

// lower returns s in ASCII lower case.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for i := range b {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

func (t *words) encode() []byte {
	w := diskdb.Record(16 * len(t.list))
	w.Uint(uint64(len(t.list)))
	for _, s := range t.list {
		w.Text(s)
	}
	return w.Seal()
}

func decodeWords(v []byte) (*words, error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return nil, err
	}
	list := make([]string, r.Count())
	for i := range list {
		list[i] = r.Text()
	}
	return makeWords(list), r.End()
}

// missing returns those of kw that t does not have.
func (t *words) missing(kw []string) []string {
	var out []string
	for _, k := range kw {
		if _, ok := t.index[lower(k)]; !ok {
			out = append(out, k)
		}
	}
	return out
}

// with returns a table that has kw, too.
func (t *words) with(kw []string) *words {
	kw = t.missing(kw)
	if len(kw) == 0 {
		return t
	}
	list := slices.Clone(t.list)
	seen := make(map[string]bool)
	for _, k := range kw {
		if f := lower(k); seen[f] {
			continue
		} else {
			seen[f] = true
		}
		if i := slices.Index(list, ""); i >= 0 {
			list[i] = k
		} else {
			list = append(list, k)
		}
	}
	return makeWords(list)
}

// without returns a table with only the indexes in use.
func (t *words) without(used map[int]bool) *words {
	list := slices.Clone(t.list)
	for i := range list {
		if !used[i] {
			list[i] = ""
		}
	}
	for len(list) > 0 && list[len(list)-1] == "" {
		list = list[:len(list)-1]
	}
	return makeWords(list)
}

// indexes returns those of kw, all of which t has, ascending.
func (t *words) indexes(kw []string) []int {
	if len(kw) == 0 {
		return nil
	}
	out := make([]int, len(kw))
	for i, k := range kw {
		out[i] = t.index[lower(k)]
	}
	slices.Sort(out)
	return out
}

// keywords returns the words with these indexes, sorted as Flags wants them.
// An index that t does not have is left out: only damage makes one.
func (t *words) keywords(indexes []int) []string {
	if len(indexes) == 0 {
		return nil
	}
	out := make([]string, 0, len(indexes))
	for _, i := range indexes {
		if i < len(t.list) && t.list[i] != "" {
			out = append(out, t.list[i])
		}
	}
	slices.SortFunc(out, store.CompareKeywords)
	return out
}

func (t *words) flags(system store.SystemFlags, indexes []int) store.Flags {
	return store.Flags{System: system, Keywords: t.keywords(indexes)}
}
