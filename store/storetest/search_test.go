package storetest

import (
	"context"

	"github.com/postrider/postrider/store"
)

// Candidates looks through all messages, and then does what the control says.
func (b *broken) Candidates(c context.Context, box store.MailboxID, terms []store.Term) (store.UIDSet, store.UID, error) {
	if b.search == nil {
		return nil, 0, nil
	}
	found, last := store.UIDSet{}, store.UID(0)
	for m, err := range b.Account.Messages(c, box, store.Query{}) {
		if err != nil {
			return nil, 0, err
		}
		blob, err := b.Account.Open(c, m)
		if err != nil {
			return nil, 0, err
		}
		raw, err := readBody(blob)
		if err != nil {
			return nil, 0, err
		}
		texts, err := textsOf([]byte(raw))
		if err != nil {
			return nil, 0, err
		}
		if last = m.UID; hasTerms(texts, terms) {
			found.Add(m.UID)
		}
	}
	found, last = b.search(found, last)
	return found, last, nil
}
