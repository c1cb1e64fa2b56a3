package storetest

import (
	"bytes"
	"context"
	"errors"
	"iter"

	"github.com/postrider/postrider/store"
)

// StrictOptions say how strict Strict is.
type StrictOptions struct {
	// Fail is called with the name of each method, before it does anything;
	// its error is returned instead. nil = nothing fails.
	Fail func(method string) error
	// Between is called between two messages that Messages yields, when no
	// page is open: a place to let others write. nil = nothing happens.
	Between func()
}

// Strict wraps an account so that whoever uses it relies on nothing but the
// contract: Messages reads pages of one message, and overwrites Summary and
// ends Body after each turn; a closed Blob cannot be read; Fail and Between can
// do worse. It is a Watcher; when acc is all of Subscriber, RecentClaimer,
// Quoter and SummaryWriter it is those too.
func Strict(acc store.Account, o StrictOptions) store.Account {
	s := &strict{acc, o}
	if e, ok := acc.(extras); ok {
		return &strictExtras{s, e}
	}
	return s
}

// StrictStore wraps a store so that each account is a Strict one. What s is
// besides a Store is lost.
func StrictStore(s store.Store, o StrictOptions) store.Store { return strictStore{s, o} }

type strictStore struct {
	s store.Store
	o StrictOptions
}

func (s strictStore) Account(ctx context.Context, id string) (store.Account, error) {
	if err := s.o.fail("Account"); err != nil {
		return nil, err
	}
	a, err := s.s.Account(ctx, id)
	if err != nil {
		return nil, err
	}
	return Strict(a, s.o), nil
}

func (o StrictOptions) fail(method string) error {
	if o.Fail == nil {
		return nil
	}
	return o.Fail(method)
}

type extras interface {
	store.Subscriber
	store.RecentClaimer
	store.Quoter
	store.SummaryWriter
}

type strictExtras struct {
	*strict
	extras
}

type strict struct {
	acc store.Account
	o   StrictOptions
}

// Watch implements store.Watcher.
func (s *strict) Watch(f func()) (stop func()) { return store.Watch(s.acc, 0, f) }

func (s *strict) Mailboxes(ctx context.Context, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
	if err := s.o.fail("Mailboxes"); err != nil {
		return nil, 0, err
	}
	boxes, through, err := s.acc.Mailboxes(ctx, q)
	if !q.Counts {
		for i := range boxes {
			boxes[i].Counts = store.Counts{Messages: -1, Unseen: -1, Deleted: -1, Size: -1, DeletedSize: -1}
		}
	}
	return boxes, through, err
}

func (s *strict) CreateMailbox(ctx context.Context, m store.NewMailbox) (store.Mailbox, error) {
	if err := s.o.fail("CreateMailbox"); err != nil {
		return store.Mailbox{}, err
	}
	return s.acc.CreateMailbox(ctx, m)
}

func (s *strict) UpdateMailboxes(ctx context.Context, u ...store.MailboxUpdate) error {
	if err := s.o.fail("UpdateMailboxes"); err != nil {
		return err
	}
	return s.acc.UpdateMailboxes(ctx, u...)
}

func (s *strict) DeleteMailbox(ctx context.Context, id store.MailboxID) error {
	if err := s.o.fail("DeleteMailbox"); err != nil {
		return err
	}
	return s.acc.DeleteMailbox(ctx, id)
}

// errOver is what a Body gives when its turn is over.
var errOver = errors.New("storetest: the Body is used after its loop turn, or the Blob after Close")

func (s *strict) Messages(ctx context.Context, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
	return func(yield func(store.Message, error) bool) {
		if err := s.o.fail("Messages"); err != nil {
			yield(store.Message{}, err)
			return
		}
		rest := q.UIDs
		if rest == nil {
			rest = store.AllUIDs()
		}
		for !rest.Empty() {
			m, ok, err := s.first(ctx, box, q, rest)
			if err != nil {
				yield(store.Message{}, err)
				return
			}
			if !ok {
				return
			}
			// The page of one is over; only now does the consumer see it.
			if s.o.Between != nil {
				s.o.Between()
			}
			m.Summary = bytes.Clone(m.Summary)
			var body *mortal
			if m.Body != nil {
				body = &mortal{Body: m.Body}
				m.Body = body
			}
			if q.Fields&store.WithIDs == 0 {
				m.ThreadID = ""
			}
			goOn := yield(m, nil)
			for i := range m.Summary {
				m.Summary[i] = 0xff
			}
			if body != nil {
				body.over = true
			}
			if !goOn {
				return
			}
			rest = rest.Subtract(store.UIDSet{{First: 1, Last: m.UID}})
			if err := s.o.fail("Messages"); err != nil {
				yield(store.Message{}, err)
				return
			}
		}
	}
}

// first reads the first message of those that are left.
func (s *strict) first(ctx context.Context, box store.MailboxID, q store.Query, rest store.UIDSet) (store.Message, bool, error) {
	q.UIDs = rest
	for m, err := range s.acc.Messages(ctx, box, q) {
		return m, err == nil, err
	}
	return store.Message{}, false, nil
}

func (s *strict) Changes(ctx context.Context, box store.MailboxID, since store.ModSeq) (store.Changes, error) {
	if err := s.o.fail("Changes"); err != nil {
		return store.Changes{}, err
	}
	return s.acc.Changes(ctx, box, since)
}

func (s *strict) Open(ctx context.Context, m store.Message) (store.Blob, error) {
	if err := s.o.fail("Open"); err != nil {
		return nil, err
	}
	b, err := s.acc.Open(ctx, store.Message{ID: m.ID}) // by the ID, and nothing else
	if err != nil {
		return nil, err
	}
	return &mortalBlob{mortal{Body: b}, b}, nil
}

func (s *strict) Append(ctx context.Context, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
	if err := s.o.fail("Append"); err != nil {
		return store.Appended{}, err
	}
	own := make([]store.Draft, len(d))
	for i := range d {
		own[i] = d[i]
		if b, ok := d[i].Body.(*mortalBlob); ok && !b.over {
			own[i].Body = b.blob // so that it can be linked
		}
	}
	return s.acc.Append(ctx, box, own, o)
}

func (s *strict) SetFlags(ctx context.Context, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
	if err := s.o.fail("SetFlags"); err != nil {
		return store.FlagResult{}, err
	}
	return s.acc.SetFlags(ctx, box, uids, op)
}

func (s *strict) Copy(ctx context.Context, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
	if err := s.o.fail("Copy"); err != nil {
		return store.Copied{}, err
	}
	return s.acc.Copy(ctx, from, uids, to, o)
}

func (s *strict) Expunge(ctx context.Context, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error) {
	if err := s.o.fail("Expunge"); err != nil {
		return store.Expunged{}, err
	}
	return s.acc.Expunge(ctx, box, uids, o)
}

// mortal is a Body that ends.
type mortal struct {
	store.Body
	over bool
}

func (m *mortal) ReadAt(p []byte, off int64) (int, error) {
	if m.over {
		return 0, errOver
	}
	return m.Body.ReadAt(p, off)
}

type mortalBlob struct {
	mortal
	blob store.Blob
}

func (m *mortalBlob) Close() error {
	m.over = true
	return m.blob.Close()
}
