package pop3server

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/store"
)

// Maildrop is what a session needs of the user's mail; every store.Account is
// one. All three methods are called with store.Inbox and keep the contract
// that store.Account gives them.
//
// A session lists the maildrop once, at login, and shows that state to its
// end (RFC 1939 §8): mail that comes in later is seen by the next session,
// mail that another session removed cannot be retrieved any more. Nothing is
// locked for that. Whoever wants one session at a time returns a
// *pop3.Error with pop3.InUse from Server.Maildrop.
//
// Optional methods: Mailboxes, as store.Account has it, gives the UIDVALIDITY
// that unique-ids begin with (without it, UIDs must never be used again), and
// Close is called once at the end of the session.
type Maildrop interface {
	// Messages lists; at login with no Fields, later one or several UIDs
	// with store.WithBody.
	Messages(ctx context.Context, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error]
	// Open opens a message whose Body did not come with it.
	Open(ctx context.Context, m store.Message) (store.Blob, error)
	// Expunge removes what was marked, at QUIT, whatever its flags.
	Expunge(ctx context.Context, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error)
}

func (s *Server) maildrop(ctx context.Context, id login.Identity) (Maildrop, error) {
	switch {
	case s.Maildrop != nil:
		return s.Maildrop(ctx, id)
	case s.Store != nil:
		return s.Store.Account(ctx, id.User)
	}
	return nil, errors.New("Server without Store and Maildrop")
}

// validator is the part of store.Account that knows UIDVALIDITY.
type validator interface {
	Mailboxes(ctx context.Context, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error)
}

// drop is a session's state of its maildrop.
type drop struct {
	Maildrop
	validity uint32
	list     []message
	size     int64 // of the messages that are not deleted
	count    int   // of the messages that are not deleted
	deleted  int

	// Messages are fetched one by one until the client asks for two in order.
	// Then next yields all from there on, which the store reads in pages, and
	// the one to come is list[at]; at is -1 when none is.
	next func() (store.Message, error, bool)
	stop func()
	at   int
	last int // the one fetched before
}

type message struct {
	size    int64 // octets
	uid     store.UID
	deleted bool
}

// openDrop lists the maildrop. Of more than limit messages it takes the
// newest.
func openDrop(ctx context.Context, m Maildrop, limit int) (*drop, error) {
	d := &drop{Maildrop: m, last: -2}
	if v, ok := m.(validator); ok {
		boxes, _, err := v.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{store.Inbox}})
		if err != nil {
			return nil, err
		}
		if len(boxes) != 1 {
			return nil, store.ErrNotExist
		}
		d.validity = boxes[0].UIDValidity
	}
	for msg, err := range m.Messages(ctx, store.Inbox, store.Query{}) {
		if err != nil {
			return nil, err
		}
		if limit > 0 && len(d.list) >= 2*limit {
			d.list = append(d.list[:0], d.list[len(d.list)-limit:]...)
		}
		d.list = append(d.list, message{uid: msg.UID, size: msg.Size})
	}
	if limit > 0 && len(d.list) > limit {
		d.list = d.list[len(d.list)-limit:]
	}
	d.reset()
	return d, nil
}

// reset takes all marks back.
func (d *drop) reset() {
	d.size, d.count, d.deleted = 0, len(d.list), 0
	for i := range d.list {
		d.list[i].deleted = false
		d.size += d.list[i].size
	}
}

// mark marks list[i] as deleted.
func (d *drop) mark(i int) {
	d.list[i].deleted = true
	d.size -= d.list[i].size
	d.count--
	d.deleted++
}

// fetch returns list[i] with its body, if that is at hand. Both are valid
// until the next fetch.
func (d *drop) fetch(ctx context.Context, i int) (store.Message, error) {
	if d.next == nil || d.at != i {
		d.rewind()
		to := d.list[i].uid
		d.at = -1
		if i == d.last+1 {
			to = d.list[len(d.list)-1].uid
			d.at = i
		}
		d.next, d.stop = iter.Pull2(d.Messages(ctx, store.Inbox, store.Query{
			UIDs:   store.UIDSet{{First: d.list[i].uid, Last: to}},
			Fields: store.WithBody,
		}))
	}
	d.last = i
	if d.at >= 0 {
		d.at++
	}
	m, err, ok := d.next()
	switch {
	case err != nil:
		d.rewind()
		return store.Message{}, err
	case !ok || m.UID != d.list[i].uid:
		d.rewind()
		return store.Message{}, store.ErrNotExist
	}
	return m, nil
}

func (d *drop) rewind() {
	if d.stop != nil {
		d.stop()
		d.next, d.stop = nil, nil
	}
}

// expunge removes what is marked.
func (d *drop) expunge(ctx context.Context) error {
	d.rewind()
	if d.deleted == 0 {
		return nil
	}
	var uids store.UIDSet
	for _, m := range d.list {
		if !m.deleted {
			continue
		}
		if n := len(uids); n > 0 && uids[n-1].Last+1 == m.uid {
			uids[n-1].Last = m.uid
		} else {
			uids = append(uids, store.UIDRange{First: m.uid, Last: m.uid})
		}
	}
	_, err := d.Expunge(ctx, store.Inbox, uids, store.ExpungeOptions{})
	return err
}

func (d *drop) close() error {
	d.rewind()
	if c, ok := d.Maildrop.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

var errShort = errors.New("message body is shorter than its size")
