package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/postrider/postrider/store"
)

// What laws do again and again.

func text(s string) store.Draft { return store.Draft{Body: bytes.NewReader([]byte(s))} }

// fill appends n messages to box and returns their UIDs.
func (p *probe) fill(acc store.Account, box store.MailboxID, n int) store.UIDSet {
	d := make([]store.Draft, n)
	for i := range d {
		d[i] = text(fmt.Sprintf("Subject: %d\r\n\r\nbody %d\r\n", i, i))
	}
	return p.append(acc, box, d...)
}

func (p *probe) append(acc store.Account, box store.MailboxID, d ...store.Draft) store.UIDSet {
	r, err := acc.Append(p.ctx, box, d, store.AppendOptions{})
	p.ok(err, "Append")
	if len(r.Messages) != len(d) {
		p.fatalf("Append of %d drafts returned %d messages", len(d), len(r.Messages))
	}
	uids := store.UIDSet{}
	for i, m := range r.Messages {
		if i > 0 && m.UID <= r.Messages[i-1].UID {
			p.fatalf("Append gave UID %d after %d: they must ascend in the order of the drafts", m.UID, r.Messages[i-1].UID)
		}
		uids.Add(m.UID)
	}
	return uids
}

func (p *probe) list(acc store.Account, box store.MailboxID, q store.Query) []store.Message {
	out, err := p.tryList(acc, box, q)
	p.ok(err, "Messages")
	return out
}

func (p *probe) tryList(acc store.Account, box store.MailboxID, q store.Query) ([]store.Message, error) {
	var out []store.Message
	for m, err := range acc.Messages(p.ctx, box, q) {
		if err != nil {
			return out, err
		}
		if n := len(out); n > 0 && out[n-1].UID >= m.UID {
			return out, fmt.Errorf("Messages yielded UID %d after %d: they must ascend", m.UID, out[n-1].UID)
		}
		m.Summary = bytes.Clone(m.Summary)
		out = append(out, m)
	}
	return out, nil
}

func (p *probe) uids(acc store.Account, box store.MailboxID) store.UIDSet {
	return uidsOf(p.list(acc, box, store.Query{}))
}

func uidsOf(ms []store.Message) store.UIDSet {
	s := store.UIDSet{}
	for _, m := range ms {
		s.Add(m.UID)
	}
	return s
}

// message returns one message, which must be there.
func (p *probe) message(acc store.Account, box store.MailboxID, uid store.UID, f store.Fields) store.Message {
	ms := p.list(acc, box, store.Query{UIDs: store.UIDs(uid), Fields: f})
	if len(ms) != 1 || ms[0].UID != uid {
		p.fatalf("Messages{UIDs: %d} in %s gave %v, want that one", uid, box, uidsOf(ms))
	}
	return ms[0]
}

func (p *probe) mailbox(acc store.Account, id store.MailboxID) store.Mailbox {
	m, err := p.tryMailbox(acc, id)
	p.ok(err, "Mailboxes")
	return m
}

func (p *probe) tryMailbox(acc store.Account, id store.MailboxID) (store.Mailbox, error) {
	boxes, _, err := acc.Mailboxes(p.ctx, store.MailboxQuery{IDs: []store.MailboxID{id}, Counts: true})
	if err != nil {
		return store.Mailbox{}, err
	}
	if len(boxes) != 1 || boxes[0].ID != id {
		return store.Mailbox{}, fmt.Errorf("Mailboxes{IDs: %s} gave %d mailboxes, want that one", id, len(boxes))
	}
	return boxes[0], nil
}

func (p *probe) newBox(acc store.Account, name string) store.MailboxID {
	m, err := acc.CreateMailbox(p.ctx, store.NewMailbox{Name: name})
	p.ok(err, "CreateMailbox "+name)
	return m.ID
}

func (p *probe) setFlags(acc store.Account, box store.MailboxID, uids store.UIDSet, mode store.FlagMode, f store.Flags) store.FlagResult {
	r, err := acc.SetFlags(p.ctx, box, uids, store.FlagOp{Mode: mode, Flags: f})
	p.ok(err, "SetFlags")
	return r
}

func (p *probe) expunge(acc store.Account, box store.MailboxID, uids store.UIDSet) store.Expunged {
	r, err := acc.Expunge(p.ctx, box, uids, store.ExpungeOptions{})
	p.ok(err, "Expunge")
	return r
}

// read reads all of a message.
func (p *probe) read(acc store.Account, m store.Message) string {
	b, err := acc.Open(p.ctx, m)
	p.ok(err, "Open")
	defer b.Close()
	out, err := readBody(b)
	p.ok(err, "reading a message")
	return out
}

func readBody(b store.Body) (string, error) {
	out, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()+1))
	if err == nil && int64(len(out)) != b.Size() {
		err = fmt.Errorf("Size says %d octets, %d could be read", b.Size(), len(out))
	}
	return string(out), err
}

// want reports an error that is not the expected one.
func (p *probe) want(err, target error, what string) {
	if !errors.Is(err, target) {
		p.errorf("%s: got error %v, want %v", what, err, target)
	}
}
