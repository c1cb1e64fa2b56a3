package memqueue

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/postrider/postrider/internal/spool"
	"github.com/postrider/postrider/queue"
)

type key struct{ tenant, key string }

type keyRecord struct {
	id      queue.ID
	expires time.Time
}

var errSubmission = errors.New("memqueue: a submission needs a message with an ID, a body and entries with IDs")

// Put implements queue.Storage. It is atomic for all who use the Storage, and
// an error means that nothing was stored.
func (s *Storage) Put(ctx context.Context, subs ...*queue.Submission) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	copies, err := s.copyBodies(subs)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	if err := s.put(subs, copies, false); err != nil {
		closeAll(copies)
		return err
	}
	return nil
}

func closeAll(copies []*copied) {
	for _, c := range copies {
		if c != nil {
			c.close()
		}
	}
}

// copied is a body that came from elsewhere.
type copied struct {
	io.ReaderAt
	size  int64
	close func() error
}

// copyBody reads what fits into memory in one step.
func (s *Storage) copyBody(b queue.Staged) (*copied, error) {
	size := b.Size()
	if limit := cmp.Or(s.BodyMemory, spool.DefaultMemory); size <= int64(limit) {
		text := make([]byte, size)
		if n, err := b.ReadAt(text, 0); int64(n) < size {
			return nil, fmt.Errorf("memqueue: reading a body: %w", err)
		}
		return &copied{bytes.NewReader(text), size, func() error { return nil }}, nil
	}
	c := &spool.Spool{Memory: s.BodyMemory, Dir: s.Dir}
	if _, err := io.Copy(c, io.NewSectionReader(b, 0, size)); err != nil {
		c.Close()
		return nil, err
	}
	if c.Size() != size {
		c.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return &copied{c, size, c.Close}, nil
}

// copyBodies checks the submissions and copies the bodies that are not ours.
// The result is aligned with subs, or nil when there is none.
func (s *Storage) copyBodies(subs []*queue.Submission) ([]*copied, error) {
	for _, sub := range subs {
		if sub.Message == nil || sub.Message.ID.IsZero() || sub.Body == nil || len(sub.Entries) == 0 {
			return nil, errSubmission
		}
		for _, e := range sub.Entries {
			if e.ID.IsZero() || len(e.Envelope.To) == 0 {
				return nil, errSubmission
			}
		}
	}
	var copies []*copied
	for i, sub := range subs {
		if b, ok := sub.Body.(*staged); ok && b.storage == s {
			continue
		}
		if copies == nil {
			copies = make([]*copied, len(subs))
		}
		c, err := s.copyBody(sub.Body)
		if err != nil {
			closeAll(copies)
			return nil, err
		}
		copies[i] = c
	}
	return copies, nil
}

// put stores subs; s.mu is held. Whether all of it fits is decided first, so
// that nothing has to be undone; force is for what belongs to an outcome.
func (s *Storage) put(subs []*queue.Submission, copies []*copied, force bool) error {
	var need int64
	s.forgetKeys(s.now())
	for i, sub := range subs {
		if s.messages[sub.Message.ID] == nil && !s.knowsKey(sub.Message) {
			if b, ok := sub.Body.(*staged); ok && b.storage == s && (b.over || sharedBody(subs[:i], sub)) {
				return errClosed
			}
			for _, e := range sub.Entries {
				if s.entries[e.ID] != nil {
					return errSubmission
				}
			}
		}
		need += s.cost(sub)
		if copies != nil && copies[i] != nil {
			need += copies[i].size
		}
	}
	if !force && need > s.max()-s.used {
		return queue.ErrFull
	}
	stored := false
	for i, sub := range subs {
		var c *copied
		if copies != nil {
			c = copies[i]
		}
		if s.putOne(sub, c) {
			stored = true
		}
	}
	if stored {
		s.wakeUp()
	}
	return nil
}

// sharedBody reports whether one of others brings sub's body for another
// message: a body is stored once.
func sharedBody(others []*queue.Submission, sub *queue.Submission) bool {
	for _, o := range others {
		if o.Body == sub.Body && o.Message.ID != sub.Message.ID {
			return true
		}
	}
	return false
}

func (s *Storage) cost(sub *queue.Submission) int64 {
	n := int64(messageCost + len(sub.Head) + entryCost*len(sub.Entries))
	if sub.Message.Key != "" {
		n += keyCost
	}
	if s.KeepEvents {
		n += int64(eventCost * len(sub.Events))
	}
	return n
}

func (s *Storage) knowsKey(m *queue.Message) bool {
	_, ok := s.keys[key{m.Tenant, m.Key}]
	return ok && m.Key != ""
}

func (s *Storage) putOne(sub *queue.Submission, c *copied) bool {
	now := s.now()
	known := s.messages[sub.Message.ID] != nil
	if k := (key{sub.Message.Tenant, sub.Message.Key}); !known && k.key != "" {
		if r, ok := s.keys[k]; ok {
			sub.Duplicate, known = true, true
			sub.Message.ID = r.id
		} else {
			s.keys[k] = keyRecord{sub.Message.ID, now.Add(keyLife)}
			s.keyOrder = append(s.keyOrder, k)
			s.used += keyCost
		}
	}
	ours, _ := sub.Body.(*staged)
	if ours != nil && ours.storage != s {
		ours = nil
	}
	if known {
		// What was staged for nothing is given back.
		if c != nil {
			c.close()
		} else if ours != nil && !ours.over {
			ours.over = true
			s.used -= ours.reserved
			ours.spool.Close()
		}
		return false
	}
	m := &message{Message: sub.Message, head: sub.Head, entries: len(sub.Entries)}
	m.cost = int64(messageCost + len(sub.Head))
	if c != nil {
		m.body, m.close = c, c.close
		m.Size = int64(len(m.head)) + c.size
		m.cost += c.size
		s.used += m.cost
	} else {
		ours.over = true
		m.body, m.close = &ours.spool, ours.spool.Close
		m.Size = int64(len(m.head)) + ours.spool.Size()
		s.used += m.cost
		m.cost += ours.reserved
	}
	s.messages[m.ID] = m
	for _, e := range sub.Entries {
		stored := *e
		stored.Message = sub.Message
		stored.Owner = ""
		n := &node{entry: &stored, m: m}
		s.entries[e.ID] = n
		s.used += entryCost
		if o := s.owners[e.Owner]; e.Owner != "" && !stored.Held && o.alive(now) {
			s.lease(n, o)
		}
		s.index(n)
	}
	s.log(sub.Events)
	return true
}

// forgetKeys drops the keys whose time is over.
func (s *Storage) forgetKeys(now time.Time) {
	for s.keyHead < len(s.keyOrder) {
		k := s.keyOrder[s.keyHead]
		if s.keys[k].expires.After(now) {
			break
		}
		delete(s.keys, k)
		s.used -= keyCost
		s.keyHead++
	}
	if s.keyHead > 1024 && s.keyHead > len(s.keyOrder)/2 {
		s.keyOrder = append([]key(nil), s.keyOrder[s.keyHead:]...)
		s.keyHead = 0
	}
}
