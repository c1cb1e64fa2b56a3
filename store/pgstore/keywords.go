package pgstore

import (
	"slices"

	"github.com/postrider/postrider/store"
)

// number returns the numbers of keywords in the mailbox, and gives new ones
// theirs. nil = no keywords. ErrLimit leaves b as it is in the database: the
// transaction ends.
func (w *write) number(b *box, words []string) ([]int16, error) {
	if len(words) == 0 {
		return nil, nil
	}
	out := make([]int16, 0, len(words))
	for _, k := range words {
		i := b.find(k)
		if i < 0 {
			var err error
			if i, err = w.newKeyword(b, k); err != nil {
				return nil, err
			}
		}
		out = append(out, int16(i+1))
		b.given = append(b.given, int16(i+1))
	}
	slices.Sort(out)
	return out, nil
}

func (b *box) find(word string) int {
	return slices.IndexFunc(b.keywords, func(k string) bool { return store.CompareKeywords(k, word) == 0 })
}

func (w *write) newKeyword(b *box, k string) (int, error) {
	if k == "" || !storable(k) {
		return 0, store.ErrLimit
	}
	i := slices.Index(b.keywords, "")
	if i < 0 && len(b.keywords) >= w.a.s.o.Keywords {
		if err := w.forget(b); err != nil {
			return 0, err
		}
		if i = slices.Index(b.keywords, ""); i < 0 {
			return 0, store.ErrLimit
		}
	}
	b.words = true
	if i >= 0 {
		b.keywords[i] = k
		return i, nil
	}
	b.keywords = append(b.keywords, k)
	return len(b.keywords) - 1, nil
}

// forget makes room for new keywords where the old ones are not in use any
// more. It looks at all messages, so it waits until the mailbox is full.
func (w *write) forget(b *box) error {
	rows, err := w.query(`SELECT DISTINCT unnest(keywords) FROM {s}.messages WHERE mailbox = $1 AND keywords IS NOT NULL`, b.num)
	if err != nil {
		return err
	}
	defer rows.Close()
	used := make([]bool, len(b.keywords)+1)
	for rows.Next() {
		var n int16
		if err := rows.Scan(&n); err != nil {
			return err
		}
		used[n] = true
	}
	for i := range b.keywords {
		// Those that this write has looked up are not in its rows yet.
		if !used[i+1] && !slices.Contains(b.given, int16(i+1)) {
			b.keywords[i] = ""
			b.words = true
		}
	}
	return rows.Err()
}
