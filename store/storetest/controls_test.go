package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

// Each law has controls here: stores that break it, on which it must fail. A
// law that cannot fail proves nothing.

// broken is an account with some methods replaced.
type broken struct {
	store.Account
	mailboxes func(inner store.Account, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error)
	messages  func(inner store.Account, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error]
	changes   func(inner store.Account, box store.MailboxID, since store.ModSeq) (store.Changes, error)
	open      func(inner store.Account, m store.Message) (store.Blob, error)
	append_   func(inner store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error)
	setFlags  func(inner store.Account, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error)
	copy_     func(inner store.Account, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error)
	expunge   func(inner store.Account, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error)
	create    func(inner store.Account, m store.NewMailbox) (store.Mailbox, error)
	update    func(inner store.Account, u []store.MailboxUpdate) error
	deletes   func(inner store.Account, id store.MailboxID) error
	watch     func(inner store.Account, f func()) func()
	importBox func(inner store.Importer, m store.Mailbox) (store.Mailbox, error)
	import_   func(inner store.Importer, box store.MailboxID, uids []store.UID, d []store.Draft) (store.Appended, error)
	search    func(found store.UIDSet, through store.UID) (store.UIDSet, store.UID)
}

var ctx = context.Background()

func (b *broken) Mailboxes(c context.Context, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
	if b.mailboxes != nil {
		return b.mailboxes(b.Account, q)
	}
	return b.Account.Mailboxes(c, q)
}

func (b *broken) CreateMailbox(c context.Context, m store.NewMailbox) (store.Mailbox, error) {
	if b.create != nil {
		return b.create(b.Account, m)
	}
	return b.Account.CreateMailbox(c, m)
}

func (b *broken) UpdateMailboxes(c context.Context, u ...store.MailboxUpdate) error {
	if b.update != nil {
		return b.update(b.Account, u)
	}
	return b.Account.UpdateMailboxes(c, u...)
}

func (b *broken) DeleteMailbox(c context.Context, id store.MailboxID) error {
	if b.deletes != nil {
		return b.deletes(b.Account, id)
	}
	return b.Account.DeleteMailbox(c, id)
}

func (b *broken) Messages(c context.Context, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
	if b.messages != nil {
		return b.messages(b.Account, box, q)
	}
	return b.Account.Messages(c, box, q)
}

func (b *broken) Changes(c context.Context, box store.MailboxID, since store.ModSeq) (store.Changes, error) {
	if b.changes != nil {
		return b.changes(b.Account, box, since)
	}
	return b.Account.Changes(c, box, since)
}

func (b *broken) Open(c context.Context, m store.Message) (store.Blob, error) {
	if b.open != nil {
		return b.open(b.Account, m)
	}
	return b.Account.Open(c, m)
}

func (b *broken) Append(c context.Context, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
	if b.append_ != nil {
		return b.append_(b.Account, box, d, o)
	}
	return b.Account.Append(c, box, d, o)
}

func (b *broken) SetFlags(c context.Context, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
	if b.setFlags != nil {
		return b.setFlags(b.Account, box, uids, op)
	}
	return b.Account.SetFlags(c, box, uids, op)
}

func (b *broken) Copy(c context.Context, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
	if b.copy_ != nil {
		return b.copy_(b.Account, from, uids, to, o)
	}
	return b.Account.Copy(c, from, uids, to, o)
}

func (b *broken) Expunge(c context.Context, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error) {
	if b.expunge != nil {
		return b.expunge(b.Account, box, uids, o)
	}
	return b.Account.Expunge(c, box, uids, o)
}

func (b *broken) Watch(f func()) func() {
	if b.watch != nil {
		return b.watch(b.Account, f)
	}
	return store.Watch(b.Account, 0, f)
}

func (b *broken) ImportMailbox(c context.Context, m store.Mailbox) (store.Mailbox, error) {
	inner := b.Account.(store.Importer)
	if b.importBox != nil {
		return b.importBox(inner, m)
	}
	return inner.ImportMailbox(c, m)
}

func (b *broken) Import(c context.Context, box store.MailboxID, uids []store.UID, d []store.Draft) (store.Appended, error) {
	inner := b.Account.(store.Importer)
	if b.import_ != nil {
		return b.import_(inner, box, uids, d)
	}
	return inner.Import(c, box, uids, d)
}

// brokenStore gives out broken accounts.
type brokenStore struct {
	*memstore.Store
	b       broken
	deliver func(inner *memstore.Store, d store.Draft, t []store.Target) []error
	sweep   func() int64 // what is kept beside messages
	damaged sync.Map     // IDs of messages
	opened  sync.Map     // and of those that were opened: true once they are swept
	// blind: what is damaged is not noticed.
	blind bool
}

// kept sweeps and counts.
func (s *brokenStore) kept() (n int64, err error) {
	if s.sweep != nil {
		n = s.sweep()
	}
	a, err := s.Store.Account(ctx, "storetest")
	if err != nil {
		return 0, err
	}
	var opened []any
	s.opened.Range(func(id, _ any) bool { opened = append(opened, id); return true })
	live := map[any]bool{}
	boxes, _, err := a.Mailboxes(ctx, store.MailboxQuery{Counts: true})
	for _, b := range boxes {
		n += int64(b.Counts.Messages)
		for m := range a.Messages(ctx, b.ID, store.Query{}) {
			live[m.ID] = true
		}
	}
	for _, id := range opened {
		s.opened.Store(id, !live[id])
	}
	return n, err
}

// open finds a damaged body.
func (s *brokenStore) open(a store.Account, m store.Message) (store.Blob, error) {
	if swept, _ := s.opened.LoadOrStore(m.ID, false); swept.(bool) {
		return nil, store.ErrNotExist
	}
	b, err := a.Open(ctx, m)
	if err != nil {
		return nil, err
	}
	if _, ok := s.damaged.Load(m.ID); ok {
		if s.blind {
			return cut{b}, nil
		}
		return nil, fmt.Errorf("message %s: %w", m.ID, store.ErrDamaged)
	}
	return b, nil
}

// cut is a Blob that ends early.
type cut struct{ store.Blob }

func (c cut) Size() int64 { return c.Blob.Size() / 2 }

// ended is a Messages that has no bodies of damaged messages, or ends there.
func (s *brokenStore) listed(a store.Account, box store.MailboxID, q store.Query, ends bool) iter.Seq2[store.Message, error] {
	return func(yield func(store.Message, error) bool) {
		for m, err := range a.Messages(ctx, box, q) {
			if _, bad := s.damaged.Load(m.ID); bad {
				if m.Body = nil; ends && q.Fields&store.WithBody != 0 {
					yield(store.Message{}, store.ErrDamaged)
					return
				}
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

func (s *brokenStore) Account(c context.Context, id string) (store.Account, error) {
	a, err := s.Store.Account(c, id)
	if err != nil {
		return nil, err
	}
	b := s.b
	b.Account = a
	if b.open == nil {
		b.open = s.open
	}
	if b.messages == nil {
		b.messages = func(a store.Account, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
			return s.listed(a, box, q, false)
		}
	}
	return &b, nil
}

func (s *brokenStore) Deliver(c context.Context, d store.Draft, t []store.Target) []error {
	if s.deliver != nil {
		return s.deliver(s.Store, d, t)
	}
	return s.Store.Deliver(c, d, t)
}

// swept is a Blob that a sweep ends.
type swept struct {
	store.Blob
	sweeps *atomic.Int64
	began  int64
}

func (s swept) ReadAt(b []byte, off int64) (int, error) {
	if s.sweeps.Load() > s.began {
		return 0, store.ErrNotExist
	}
	return s.Blob.ReadAt(b, off)
}

func yield() {
	for range 200 {
		runtime.Gosched()
	}
}

// controls are the ways to break each law.
func controls() map[string]map[string]func() *brokenStore {
	of := func(b broken) func() *brokenStore {
		return func() *brokenStore { return &brokenStore{Store: &memstore.Store{History: 20}, b: b} }
	}
	boundLast := func(a store.Account, box store.MailboxID, since store.ModSeq) (store.Changes, error) {
		c, err := a.Changes(ctx, box, since)
		if err != nil {
			return c, err
		}
		// Others get some commits in between, if any are at work.
		for until := c.ModSeq + 8; c.ModSeq < until; until-- {
			boxes, _, _ := a.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{box}})
			c.ModSeq = boxes[0].ModSeq
			yield()
		}
		return c, nil
	}
	var taken sync.Map
	return map[string]map[string]func() *brokenStore{
		"Read": {
			"an empty set means all": of(broken{messages: func(a store.Account, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
				if q.UIDs.Empty() {
					q.UIDs = nil
				}
				return a.Messages(ctx, box, q)
			}}),
			"ChangedSince is ignored": of(broken{messages: func(a store.Account, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
				q.ChangedSince = 0
				return a.Messages(ctx, box, q)
			}}),
		},
		"Write": {
			"Changed tells all that were named": of(broken{setFlags: func(a store.Account, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
				r, err := a.SetFlags(ctx, box, uids, op)
				r.Changed = uids
				return r, err
			}}),
			"a copy loses its flags": of(broken{copy_: func(a store.Account, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
				r, err := a.Copy(ctx, from, uids, to, o)
				a.SetFlags(ctx, to, r.Dest, store.FlagOp{Mode: store.ReplaceFlags})
				return r, err
			}}),
		},
		"Mailboxes": {
			"updates one by one": of(broken{update: func(a store.Account, u []store.MailboxUpdate) error {
				for _, x := range u {
					if err := a.UpdateMailboxes(ctx, x); err != nil {
						return err
					}
				}
				return nil
			}}),
			"Inbox can be deleted": of(broken{deletes: func(a store.Account, id store.MailboxID) error {
				if id == store.Inbox {
					return nil
				}
				return a.DeleteMailbox(ctx, id)
			}}),
		},
		"Search": {
			"one is left out": of(broken{search: func(found store.UIDSet, through store.UID) (store.UIDSet, store.UID) {
				return found.Subtract(store.UIDs(found.Last())), through
			}}),
			"what is new is left out": of(broken{search: func(found store.UIDSet, through store.UID) (store.UIDSet, store.UID) {
				return found.Intersect(store.UIDSet{{First: 1, Last: 10}}), through
			}}),
		},
		"L1": {"the cursor runs ahead": of(broken{changes: func(a store.Account, box store.MailboxID, since store.ModSeq) (store.Changes, error) {
			c, err := a.Changes(ctx, box, since)
			c.ModSeq += 8
			return c, err
		}})},
		"L2": {"bound last": func() *brokenStore {
			return &brokenStore{Store: memstore.New(), b: broken{changes: boundLast}}
		}},
		"L3": {
			"a mailbox's ModSeq lags": of(broken{mailboxes: func(a store.Account, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
				boxes, through, err := a.Mailboxes(ctx, q)
				for i := range boxes {
					boxes[i].ModSeq--
				}
				return boxes, through, err
			}}),
			"no-ops raise it": of(broken{setFlags: func(a store.Account, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
				r, err := a.SetFlags(ctx, box, uids, op)
				if err == nil && r.Changed.Empty() {
					use := []string{}
					a.UpdateMailboxes(ctx, store.MailboxUpdate{ID: box, SpecialUse: &use})
				}
				return r, err
			}}),
		},
		"L4": {"picked first, expunged later": of(broken{expunge: func(a store.Account, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error) {
			if o.OnlyDeleted {
				picked := store.UIDSet{}
				for m, err := range a.Messages(ctx, box, store.Query{UIDs: uids}) {
					if err == nil && m.Flags.System.Has(store.Deleted) {
						picked.Add(m.UID)
					}
				}
				uids = picked
				yield()
			}
			return a.Expunge(ctx, box, uids, store.ExpungeOptions{})
		}})},
		"L5": {"tested first, set later": of(broken{setFlags: func(a store.Account, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
			pass, modified := store.UIDSet{}, store.UIDSet{}
			for m, err := range a.Messages(ctx, box, store.Query{UIDs: uids}) {
				if err != nil {
					return store.FlagResult{}, err
				}
				if op.UnchangedSince > 0 && m.ModSeq > op.UnchangedSince || op.IfAbsent && m.Flags.Any(op.Flags) {
					modified.Add(m.UID)
				} else {
					pass.Add(m.UID)
				}
			}
			yield()
			op.UnchangedSince, op.IfAbsent = 0, false
			r, err := a.SetFlags(ctx, box, pass, op)
			r.Modified = modified
			return r, err
		}})},
		"L6": {
			"appends one by one": of(broken{append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
				var all store.Appended
				for i := range d {
					r, err := a.Append(ctx, box, d[i:i+1], o)
					if err != nil {
						return all, err
					}
					yield()
					if i == 0 {
						all = r
					} else {
						all.Messages = append(all.Messages, r.Messages...)
						all.ModSeq = r.ModSeq
					}
				}
				return all, nil
			}}),
			"a move is a copy and an expunge": of(broken{copy_: func(a store.Account, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
				r, err := a.Copy(ctx, from, uids, to, store.CopyOptions{})
				if err == nil && o.Move {
					yield() // the crack that the law looks into
					a.Expunge(ctx, from, r.Source, store.ExpungeOptions{})
				}
				return r, err
			}}),
			"a replacement is an append and an expunge": of(broken{append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
				if o.Replace.UID == 0 {
					return a.Append(ctx, box, d, o)
				}
				r, err := a.Append(ctx, box, d, store.AppendOptions{})
				if err == nil {
					yield() // the crack that the law looks into
					a.Expunge(ctx, o.Replace.Box, store.UIDs(o.Replace.UID), store.ExpungeOptions{})
				}
				return r, err
			}}),
		},
		"L7": {
			"bound last": of(broken{changes: boundLast}),
			"Prev ignored": of(broken{setFlags: func(a store.Account, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
				r, err := a.SetFlags(ctx, box, uids, op)
				if r.ModSeq > r.Prev {
					r.Prev = 0 // as if nothing of others came between
				}
				return r, err
			}}),
		},
		"Model": {
			"Prev is guessed": of(broken{expunge: func(a store.Account, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error) {
				r, err := a.Expunge(ctx, box, uids, o)
				if r.ModSeq > 0 {
					r.Prev = r.ModSeq - 1
				}
				return r, err
			}}),
			"a move is a copy and an expunge": of(broken{copy_: func(a store.Account, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
				r, err := a.Copy(ctx, from, uids, to, store.CopyOptions{})
				if err == nil && o.Move {
					yield()
					e, err := a.Expunge(ctx, from, r.Source, store.ExpungeOptions{})
					r.From = e.Commit
					return r, err
				}
				return r, err
			}}),
			"conditions are tested before": of(broken{setFlags: func(a store.Account, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
				pass, modified := store.UIDSet{}, store.UIDSet{}
				for m, err := range a.Messages(ctx, box, store.Query{UIDs: uids}) {
					if err != nil {
						return store.FlagResult{}, err
					}
					if op.UnchangedSince > 0 && m.ModSeq > op.UnchangedSince || op.IfAbsent && m.Flags.Any(op.Flags) {
						modified.Add(m.UID)
					} else {
						pass.Add(m.UID)
					}
				}
				yield()
				op.UnchangedSince, op.IfAbsent = 0, false
				r, err := a.SetFlags(ctx, box, pass, op)
				r.Modified = modified
				return r, err
			}}),
			"a copy keeps its ModSeq": of(broken{messages: func(a store.Account, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
				return func(yield func(store.Message, error) bool) {
					for m, err := range a.Messages(ctx, box, q) {
						if m.UID%7 == 0 {
							m.ModSeq--
						}
						if !yield(m, err) {
							return
						}
					}
				}
			}}),
		},
		"L8": {"counts drift": of(broken{mailboxes: func(a store.Account, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
			boxes, through, err := a.Mailboxes(ctx, q)
			for i := range boxes {
				boxes[i].Counts.Unseen++
			}
			return boxes, through, err
		}})},
		"FirstUnseen": {
			"it stays where it was": func() *brokenStore {
				was := map[store.MailboxID]store.UID{}
				return &brokenStore{Store: memstore.New(), b: broken{mailboxes: func(a store.Account, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
					boxes, through, err := a.Mailboxes(ctx, q)
					for i := range boxes {
						if b := &boxes[i]; was[b.ID] == 0 {
							was[b.ID] = b.FirstUnseen
						} else {
							b.FirstUnseen = was[b.ID]
						}
					}
					return boxes, through, err
				}}}
			},
			"the next UID is taken for it": of(broken{setFlags: func(a store.Account, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
				return a.SetFlags(ctx, box, uids, op)
			}, mailboxes: func(a store.Account, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
				boxes, through, err := a.Mailboxes(ctx, q)
				for i := range boxes {
					if b := &boxes[i]; b.FirstUnseen == 0 && b.UIDNext > 1 {
						b.FirstUnseen = b.UIDNext
					}
				}
				return boxes, through, err
			}}),
		},
		"L9": {"a row comes twice": of(broken{messages: func(a store.Account, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
			return func(yield func(store.Message, error) bool) {
				for m, err := range a.Messages(ctx, box, q) {
					if !yield(m, err) || m.UID == 100 && !yield(m, err) {
						return
					}
				}
			}
		}}), "a lock is held while it yields": func() *brokenStore {
			var mu sync.RWMutex
			return &brokenStore{Store: memstore.New(), b: broken{
				messages: func(a store.Account, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
					return func(yield func(store.Message, error) bool) {
						mu.RLock()
						defer mu.RUnlock()
						for m, err := range a.Messages(ctx, box, q) {
							if !yield(m, err) {
								return
							}
						}
					}
				},
				append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
					mu.Lock()
					defer mu.Unlock()
					return a.Append(ctx, box, d, o)
				},
			}}
		}},
		"L10": {"no grace": func() *brokenStore { return &brokenStore{Store: &memstore.Store{Grace: -1}} }},
		"L11": {"the ID is made of mailbox and UID": of(broken{messages: func(a store.Account, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
			return func(yield func(store.Message, error) bool) {
				for m, err := range a.Messages(ctx, box, q) {
					m.ID += string(box)
					if !yield(m, err) {
						return
					}
				}
			}
		}})},
		"L12": {"one UIDVALIDITY for all": of(broken{mailboxes: func(a store.Account, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
			boxes, through, err := a.Mailboxes(ctx, q)
			for i := range boxes {
				boxes[i].UIDValidity = 4_000_000_000
			}
			return boxes, through, err
		}})},
		"L13": {
			"Size without Head": of(broken{messages: func(a store.Account, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
				return func(yield func(store.Message, error) bool) {
					for m, err := range a.Messages(ctx, box, q) {
						if m.Size >= 46 {
							m.Size -= 46
						}
						if !yield(m, err) {
							return
						}
					}
				}
			}}),
			"Head is dropped": of(broken{append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
				d[0].Head = nil
				return a.Append(ctx, box, d, o)
			}}),
		},
		"Bodies": {
			"what can be read is appended": of(broken{append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
				d = slices.Clone(d)
				for i := range d {
					if s, ok := d[i].Body.(*source); ok {
						b, _ := io.ReadAll(io.NewSectionReader(s, 0, s.size))
						d[i].Body = bytes.NewReader(b)
					}
				}
				return a.Append(ctx, box, d, o)
			}}),
			"a longer body is taken whole": of(broken{append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
				d = slices.Clone(d)
				for i := range d {
					if s, ok := d[i].Body.(*source); ok && int64(len(s.data)) > s.size {
						d[i].Body = bytes.NewReader([]byte(s.data))
					}
				}
				return a.Append(ctx, box, d, o)
			}}),
			"the good ones are appended": of(broken{append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
				r, err := a.Append(ctx, box, d, o)
				if err != nil && len(d) > 1 {
					a.Append(ctx, box, d[:1], o)
				}
				return r, err
			}}),
			"UIDs are burned": of(broken{append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
				r, err := a.Append(ctx, box, d, o)
				if err != nil {
					if r, err := a.Append(ctx, box, []store.Draft{text("x")}, store.AppendOptions{}); err == nil {
						a.Expunge(ctx, box, store.UIDs(r.Messages[0].UID), store.ExpungeOptions{})
					}
				}
				return r, err
			}}),
			"the reason is lost": of(broken{append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
				r, err := a.Append(ctx, box, d, o)
				if err != nil {
					err = errors.New("append failed")
				}
				return r, err
			}}),
			"a lock is held while a body is read": func() *brokenStore {
				var mu sync.Mutex
				return &brokenStore{Store: memstore.New(), b: broken{
					append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
						mu.Lock()
						defer mu.Unlock()
						return a.Append(ctx, box, d, o)
					},
				}}
			},
			"the UID is given before the body is read": of(broken{append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
				boxes, _, _ := a.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{box}})
				r, err := a.Append(ctx, box, d, o)
				for i := range r.Messages {
					r.Messages[i].UID = boxes[0].UIDNext + store.UID(i)
				}
				return r, err
			}}),
			"a failed delivery counts as one": func() *brokenStore {
				var done sync.Map
				return &brokenStore{Store: memstore.New(), deliver: func(s *memstore.Store, d store.Draft, t []store.Target) []error {
					errs := make([]error, len(t))
					for i := range t {
						if _, again := done.LoadOrStore(t[i].Once, true); !again {
							errs[i] = s.Deliver(ctx, d, t[i:i+1])[0]
						}
					}
					return errs
				}}
			},
		},
		"L14": {
			"what failed is kept": func() *brokenStore {
				leaked := int64(0)
				return &brokenStore{Store: memstore.New(), sweep: func() int64 { return leaked }, b: broken{
					append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
						r, err := a.Append(ctx, box, d, o)
						if err != nil {
							leaked++
						}
						return r, err
					},
				}}
			},
			"what is expunged is kept": func() *brokenStore {
				leaked := int64(0)
				return &brokenStore{Store: memstore.New(), sweep: func() int64 { return leaked }, b: broken{
					expunge: func(a store.Account, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error) {
						r, err := a.Expunge(ctx, box, uids, o)
						leaked += r.UIDs.Count()
						return r, err
					},
				}}
			},
			"what is open is taken": func() *brokenStore {
				var sweeps atomic.Int64
				return &brokenStore{Store: memstore.New(), sweep: func() int64 { sweeps.Add(1); return 0 }, b: broken{
					open: func(a store.Account, m store.Message) (store.Blob, error) {
						b, err := a.Open(ctx, m)
						return swept{b, &sweeps, sweeps.Load()}, err
					},
				}}
			},
			"what was staged is taken": func() *brokenStore {
				return &brokenStore{Store: memstore.New(), b: broken{
					append_: func(a store.Account, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
						r, err := a.Append(ctx, box, d, o)
						if _, ok := d[0].Body.(store.Staged); ok && err == nil {
							taken.Store(r.Messages[0].ID, true)
						}
						return r, err
					},
					open: func(a store.Account, m store.Message) (store.Blob, error) {
						if _, ok := taken.Load(m.ID); ok {
							return nil, store.ErrNotExist
						}
						return a.Open(ctx, m)
					},
				}}
			},
		},
		"Damage": {
			"it is not noticed": func() *brokenStore { return &brokenStore{Store: memstore.New(), blind: true} },
			"the rest of a list is lost": func() *brokenStore {
				s := &brokenStore{Store: memstore.New()}
				s.b.messages = func(a store.Account, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
					return s.listed(a, box, q, true)
				}
				return s
			},
			"any other error": func() *brokenStore {
				s := &brokenStore{Store: memstore.New()}
				s.b.open = func(a store.Account, m store.Message) (store.Blob, error) {
					b, err := s.open(a, m)
					if err != nil {
						err = store.ErrNotExist
					}
					return b, err
				}
				return s
			},
		},
		"L15": {
			"keywords in lower case": of(broken{setFlags: func(a store.Account, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
				op.Flags = store.NewFlags(op.Flags.System, strings.Fields(strings.ToLower(strings.Join(op.Flags.Keywords, " ")))...)
				return a.SetFlags(ctx, box, uids, op)
			}}),
			"few keywords": func() *brokenStore { return &brokenStore{Store: &memstore.Store{Keywords: 26}} },
		},
		"L16": {"what is forgotten is passed over": of(broken{changes: func(a store.Account, box store.MailboxID, since store.ModSeq) (store.Changes, error) {
			c, err := a.Changes(ctx, box, since)
			if errors.Is(err, store.ErrForgotten) {
				boxes, _, _ := a.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{box}})
				return a.Changes(ctx, box, boxes[0].Horizon)
			}
			return c, err
		}})},
		"L17": {
			"silence": of(broken{watch: func(a store.Account, f func()) func() { return func() {} }}),
			"no end": of(broken{watch: func(a store.Account, f func()) func() {
				a.(store.Watcher).Watch(f)
				return func() {}
			}}),
		},
		"L18": {"half of it": func() *brokenStore {
			// The context reaches the broken account through the closure only,
			// so each call is taken for one that was cancelled half-way.
			return &brokenStore{Store: memstore.New(), b: broken{expunge: func(a store.Account, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error) {
				a.Expunge(ctx, box, store.UIDs(1, 2), o)
				return store.Expunged{}, context.Canceled
			}}}
		}},
		"L19": {
			"Once is ignored": func() *brokenStore {
				return &brokenStore{Store: memstore.New(), deliver: func(s *memstore.Store, d store.Draft, t []store.Target) []error {
					t = append([]store.Target(nil), t...)
					for i := range t {
						t[i].Once = ""
					}
					return s.Deliver(ctx, d, t)
				}}
			},
			"one failure fails all": func() *brokenStore {
				return &brokenStore{Store: memstore.New(), deliver: func(s *memstore.Store, d store.Draft, t []store.Target) []error {
					errs := s.Deliver(ctx, d, t)
					all := errors.Join(errs...)
					for i := range errs {
						errs[i] = all
					}
					return errs
				}}
			},
			"the Draft's Summary behind a Head": func() *brokenStore {
				return &brokenStore{Store: memstore.New(), deliver: func(s *memstore.Store, d store.Draft, t []store.Target) []error {
					t = append([]store.Target(nil), t...)
					for i := range t {
						t[i].Summary = bytes.Clone(d.Summary)
					}
					return s.Deliver(ctx, d, t)
				}}
			},
		},
		"Import": {
			"ModSeqs begin anew": of(broken{importBox: func(a store.Importer, m store.Mailbox) (store.Mailbox, error) {
				m.ModSeq = 0
				return a.ImportMailbox(ctx, m)
			}}),
			"UIDNEXT is not raised": of(broken{importBox: func(a store.Importer, m store.Mailbox) (store.Mailbox, error) {
				m.UIDNext = 0
				return a.ImportMailbox(ctx, m)
			}}),
			"UIDs passed over are forgotten": of(broken{changes: func(a store.Account, box store.MailboxID, since store.ModSeq) (store.Changes, error) {
				c, err := a.Changes(ctx, box, since)
				c.Expunged = store.UIDSet{}
				return c, err
			}}),
			"UIDs are given anew": of(broken{import_: func(a store.Importer, box store.MailboxID, uids []store.UID, d []store.Draft) (store.Appended, error) {
				return a.(store.Account).Append(ctx, box, d, store.AppendOptions{})
			}}),
			"UIDs that are taken are skipped": of(broken{import_: func(a store.Importer, box store.MailboxID, uids []store.UID, d []store.Draft) (store.Appended, error) {
				r, err := a.Import(ctx, box, uids, d)
				for i := 0; i < len(uids) && errors.Is(err, store.ErrExist); i++ {
					a.Import(ctx, box, uids[i:i+1], d[i:i+1])
				}
				return r, err
			}}),
		},
	}
}

func TestControls(t *testing.T) {
	all := controls()
	config := Config{
		SetQuota: func(s store.Store, account string, octets int64) error {
			return s.(*brokenStore).SetQuota(account, octets)
		},
		Sweep: func(s store.Store) (int64, error) { return s.(*brokenStore).kept() },
		Damage: func(s store.Store, _ string, m store.Message, _ bool) error {
			s.(*brokenStore).damaged.Store(m.ID, true)
			return nil
		},
	}
	for _, l := range Laws() {
		if l.Name == "Crashes" {
			continue // it needs a disk: diskstore has its controls
		}
		if len(all[l.Name]) == 0 {
			t.Errorf("law %s has no control", l.Name)
		}
		t.Run(l.Name, func(t *testing.T) {
			// Without a defect the wrapper is as good as the store in it.
			good := func() (one, two store.Store, err error) {
				s := &brokenStore{Store: memstore.New()}
				return s, s, nil
			}
			c := config
			c.Open = good
			if err := l.Check(t.Context(), c); err != nil {
				t.Errorf("a good store: %v", err)
			}
			for name, f := range all[l.Name] {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					open := func() (one, two store.Store, err error) {
						s := f()
						return s, s, nil
					}
					c := config
					c.Open, c.Watch, c.Timeout, c.Rounds = open, 200*time.Millisecond, 6*time.Second, 1200
					err := l.Check(t.Context(), c)
					if err == nil || errors.Is(err, ErrSkipped) {
						t.Errorf("the control was not caught: %v", err)
					}
				})
			}
		})
	}
}
