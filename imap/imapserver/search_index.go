package imapserver

import "github.com/postrider/postrider/store"

const (
	// minAsk is how many messages are looked through without asking an index.
	minAsk = 8
	// maxAsks bounds how often one SEARCH asks an index.
	maxAsks = 32
)

// ask asks the account's index about the texts in q, if it has one, so that
// q's verdicts get clearer. It tells whether any may have.
func (s *session) ask(q *query) bool {
	x, ok := store.As[store.Searcher](s.acc)
	if !ok {
		return false
	}
	a := asker{s: s, x: x, left: maxAsks}
	a.ask(q)
	return a.left < maxAsks
}

// asker is one search in an index.
type asker struct {
	s    *session
	x    store.Searcher
	left int // how often it may still ask
}

func (a *asker) ask(q *query) {
	if len(q.terms) > 0 && a.left > 0 {
		a.left--
		q.maybe = a.candidates(q.terms)
	}
	for _, n := range q.not {
		a.ask(n)
	}
	for _, o := range q.or {
		a.ask(o[0])
		a.ask(o[1])
	}
}

// candidates returns the messages that may have all terms, nil = any. An index
// that fails costs time, and nothing else.
func (a *asker) candidates(terms []store.Term) store.UIDSet {
	uids, through, err := a.x.Candidates(a.s.ctx, a.s.box.id, terms)
	if err != nil {
		a.left = 0
		if a.s.ctx.Err() == nil {
			a.s.log.Warn("the search index failed: all messages are looked through", "user", a.s.id.User, "error", err)
		}
		return nil
	}
	if through < store.MaxUID {
		uids = uids.Union(store.UIDSet{{First: through + 1, Last: store.MaxUID}})
	}
	if uids == nil {
		uids = store.UIDSet{}
	}
	return uids
}
