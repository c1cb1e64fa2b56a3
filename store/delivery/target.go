package delivery

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/postrider/postrider/store"
)

// To returns a Target that delivers to the mailboxes of s. Junk that would go
// to an Inbox goes to the account's mailbox for \Junk (RFC 6154), which is
// made when there is none.
func To(s store.Store) Target { return storeTarget{s} }

type storeTarget struct{ s store.Store }

var _ store.Stager = storeTarget{}

// Stage implements store.Stager, with the store's own place if it has one.
func (t storeTarget) Stage(ctx context.Context, size int64) (store.Staged, error) {
	return store.Stage(ctx, t.s, size)
}

// Check implements Checker: the accounts are there, and have room.
func (t storeTarget) Check(ctx context.Context, targets []store.Target, size int64) error {
	for _, x := range targets {
		acc, err := t.s.Account(ctx, x.Account)
		if err != nil {
			return err
		}
		quoter, ok := store.As[store.Quoter](acc)
		if !ok {
			continue
		}
		q, err := quoter.Quota(ctx)
		if err != nil {
			return err
		}
		if q.Limit > 0 && (q.Used >= q.Limit || size > q.Limit-q.Used) {
			return store.ErrQuota
		}
	}
	return nil
}

// Deliver implements Target.
func (t storeTarget) Deliver(ctx context.Context, in *Inbound) []error {
	errs := make([]error, len(in.Recipients))
	m := in.Message
	d := store.Draft{Head: in.Trace, Body: in.Body, InternalDate: in.Time}
	if ids := m.Header.MessageIDs("Message-ID"); len(ids) > 0 {
		d.MessageID = ids[0]
	}
	d.References = slices.Concat(m.Header.MessageIDs("References"), m.Header.MessageIDs("In-Reply-To"))

	var targets []store.Target
	var owner []int               // whose target it is
	seen := make(map[string]int)  // the same mailbox for the same address, given twice
	same := make(map[int]int)     // recipient → the one that it repeats
	summaries := map[int][]byte{} // by length of the head
	for i := range in.Recipients {
		head := in.ownHead(i)
		for _, x := range in.Recipients[i].Targets {
			key := in.Recipients[i].Address.String() + "\x00" + x.Account + "\x00" + string(x.Mailbox)
			if j, ok := seen[key]; ok {
				same[i] = j
				continue
			}
			seen[key] = i
			if in.Junk && (x.Mailbox == "" || x.Mailbox == store.Inbox) {
				box, err := t.junk(ctx, x.Account)
				if err != nil {
					errs[i] = worse(errs[i], err)
					continue
				}
				x.Mailbox = box
			}
			n := len(head) + len(in.Trace)
			if _, ok := summaries[n]; !ok || m.BodyOffset == 0 {
				summaries[n] = in.Summary(in.Head(i))
			}
			x.Head, x.Summary = head, summaries[n]
			if d.MessageID != "" {
				x.Once = in.digest + "\x00" + key
			}
			targets = append(targets, x)
			owner = append(owner, i)
		}
	}
	for k, err := range store.Deliver(ctx, t.s, d, targets) {
		errs[owner[k]] = worse(errs[owner[k]], err)
	}
	for i, j := range same {
		errs[i] = worse(errs[i], errs[j])
	}
	return errs
}

// worse returns what is said of two targets of one recipient: a temporary
// failure before a permanent one, so that the other is tried again.
func worse(a, b error) error {
	if a == nil || b != nil && !temporary(refusal(a)) && temporary(refusal(b)) {
		return b
	}
	return a
}

// junk returns the mailbox for junk of an account.
func (t storeTarget) junk(ctx context.Context, account string) (store.MailboxID, error) {
	const name, use = "Junk", `\Junk`
	acc, err := t.s.Account(ctx, account)
	if err != nil {
		return "", err
	}
	for range 2 {
		boxes, _, err := acc.Mailboxes(ctx, store.MailboxQuery{})
		if err != nil {
			return "", err
		}
		named := store.MailboxID("")
		for _, m := range boxes {
			if slices.ContainsFunc(m.SpecialUse, func(u string) bool { return strings.EqualFold(u, use) }) {
				return m.ID, nil
			}
			if m.Name == name {
				named = m.ID
			}
		}
		if named != "" {
			return named, nil
		}
		m, err := acc.CreateMailbox(ctx, store.NewMailbox{Name: name, SpecialUse: []string{use}})
		if err == nil {
			return m.ID, nil
		}
		if !errors.Is(err, store.ErrExist) {
			return "", err
		}
		// Another delivery was first: look again.
	}
	return "", store.ErrUnavailable
}
