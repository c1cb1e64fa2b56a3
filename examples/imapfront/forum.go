package main

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/store"
)

// reader is the one account.
const reader = "reader"

// domain is that of the forum's Message-IDs.
const domain = "forum.example"

// forum is a store.Store over the tables, and its one store.Account. What has
// to do with IMAP, from sequence numbers to SEARCH, is imapserver's: here are
// only the questions of what there is.
//
//	mailbox  room, by its id, which is never used again: so it is UIDVALIDITY too
//	UID      posts.id, which ascends and is never used again
//	message  is composed from the row, the same octets each time, since posts
//	         are not edited. Where they are, an edited one needs a new UID
//	ModSeq   grows with each post that comes or goes. There is no history: see
//	         Changes
type forum struct {
	store.ReadOnly // all that writes is refused
	db             *sql.DB

	mu   sync.Mutex
	sums map[store.MailboxID]summed // what a mailbox came to, kept while it is true
}

type summed struct {
	at     store.ModSeq
	counts store.Counts
}

var (
	_ store.Store   = (*forum)(nil)
	_ store.Account = (*forum)(nil)
)

func newForum(db *sql.DB) *forum { return &forum{db: db, sums: map[store.MailboxID]summed{}} }

// Account implements store.Store.
func (f *forum) Account(_ context.Context, id string) (store.Account, error) {
	if id != reader {
		return nil, store.ErrNotExist
	}
	return f, nil
}

// modSeq is the number of posts that ever were and of those that are gone. In
// SQLite there is one writer at a time, so it only grows; a database with many
// needs a counter that triggers keep.
func (f *forum) modSeq(ctx context.Context) (at store.ModSeq, next store.UID, err error) {
	var ever, now int64
	err = f.db.QueryRowContext(ctx, `SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'posts'), 0), (SELECT count(*) FROM posts)`).Scan(&ever, &now)
	return store.ModSeq(2*ever - now + 1), store.UID(ever + 1), err
}

// Mailboxes implements store.Account.
func (f *forum) Mailboxes(ctx context.Context, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
	through, next, err := f.modSeq(ctx) // before the rooms
	if err != nil {
		return nil, 0, err
	}
	if q.ChangedSince >= through {
		return nil, through, nil
	}
	boxes := []store.Mailbox{{ID: store.Inbox, Name: "INBOX", UIDValidity: 1}}
	rows, err := f.db.QueryContext(ctx, `SELECT id, title FROM rooms ORDER BY id`)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var id uint32
		var title string
		if err := rows.Scan(&id, &title); err != nil {
			return nil, 0, err
		}
		boxes = append(boxes, store.Mailbox{ID: roomID(id), Name: "Rooms/" + strings.ToValidUTF8(title, "?"), UIDValidity: id + 1})
	}
	if err := rows.Err(); err != nil {
		return nil, 0, err
	}
	rows.Close() // what follows may need the connection
	if q.IDs != nil || q.Names != nil {
		boxes = slices.DeleteFunc(boxes, func(m store.Mailbox) bool {
			return !slices.Contains(q.IDs, m.ID) && !slices.Contains(q.Names, m.Name)
		})
	}
	for i := range boxes {
		m := &boxes[i]
		m.UIDNext, m.ModSeq, m.Horizon = next, through, through
		m.Rights = "lr" // so imapserver says that it is READ-ONLY
		if q.Counts {
			if m.Counts, err = f.counts(ctx, m.ID, through); err != nil {
				return nil, 0, err
			}
		}
	}
	return boxes, through, nil
}

// counts adds up what a mailbox has. Sizes are not in the table.
func (f *forum) counts(ctx context.Context, box store.MailboxID, at store.ModSeq) (store.Counts, error) {
	f.mu.Lock()
	known := f.sums[box]
	f.mu.Unlock()
	if known.at == at {
		return known.counts, nil
	}
	var c store.Counts
	for m, err := range f.Messages(ctx, box, store.Query{}) {
		if err != nil {
			return c, err
		}
		c.Messages++
		c.Size += m.Size
	}
	if now, _, err := f.modSeq(ctx); err != nil || now != at {
		return c, err // something came meanwhile: not to be kept
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sums[box] = summed{at, c}
	return c, nil
}

func roomID(id uint32) store.MailboxID { return store.MailboxID("room-" + strconv.Itoa(int(id))) }

// room finds a mailbox; 0 = Inbox, which has all rooms.
func (f *forum) room(ctx context.Context, box store.MailboxID) (id uint32, err error) {
	if box == store.Inbox {
		return 0, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(string(box), "room-"), 10, 31)
	if err != nil || roomID(uint32(n)) != box {
		return 0, store.ErrNotExist
	}
	err = f.db.QueryRowContext(ctx, `SELECT id FROM rooms WHERE id = ?`, n).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, store.ErrNotExist
	}
	return id, err
}

// page is how many rows are read at one time: nothing is held between pages.
const page = 200

// Messages implements store.Account.
func (f *forum) Messages(ctx context.Context, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
	return func(yield func(store.Message, error) bool) {
		room, err := f.room(ctx, box)
		if err != nil {
			yield(store.Message{}, err)
			return
		}
		uids := q.UIDs
		if uids == nil {
			uids = store.AllUIDs()
		}
		for _, r := range uids {
			for next := int64(max(r.First, store.UID(min(q.ChangedSince, store.ModSeq(store.MaxUID))+1))); next <= int64(r.Last); {
				posts, err := f.posts(ctx, `WHERE id >= ? AND id <= ? AND (? = 0 OR room_id = ?) ORDER BY id LIMIT ?`, next, r.Last, room, room, page)
				if err != nil {
					yield(store.Message{}, err)
					return
				}
				for _, p := range posts {
					m, err := p.message(q.Fields)
					if !yield(m, err) || err != nil {
						return
					}
				}
				if len(posts) < page {
					break
				}
				next = posts[page-1].id + 1
			}
		}
	}
}

// Changes implements store.Account. The tables do not tell what is gone, so
// whoever was here before lists anew: that is what Horizon == ModSeq means.
func (f *forum) Changes(ctx context.Context, box store.MailboxID, since store.ModSeq) (store.Changes, error) {
	if _, err := f.room(ctx, box); err != nil {
		return store.Changes{}, err
	}
	at, next, err := f.modSeq(ctx)
	if err == nil && since < at {
		err = store.ErrForgotten
	}
	return store.Changes{ModSeq: at, UIDNext: next}, err
}

// Open implements store.Account.
func (f *forum) Open(ctx context.Context, m store.Message) (store.Blob, error) {
	id, err := strconv.ParseUint(strings.TrimPrefix(m.ID, "post-"), 10, 32)
	if err != nil {
		return nil, store.ErrNotExist
	}
	posts, err := f.posts(ctx, `WHERE id = ?`, id)
	switch {
	case err != nil:
		return nil, err
	case len(posts) == 0:
		return nil, store.ErrNotExist
	}
	text, err := posts[0].compose()
	return blob{bytes.NewReader(text)}, err
}

// blob is a message in memory.
type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }

// post is a row.
type post struct {
	id, at, replyTo              int64
	author, email, subject, body string
}

// posts reads rows.
func (f *forum) posts(ctx context.Context, where string, args ...any) ([]post, error) {
	rows, err := f.db.QueryContext(ctx, `SELECT id, posted_at, coalesce(reply_to, 0), coalesce(author, ''), coalesce(email, ''), coalesce(subject, ''), coalesce(body, '') FROM posts `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var posts []post
	for rows.Next() {
		var p post
		if err := rows.Scan(&p.id, &p.at, &p.replyTo, &p.author, &p.email, &p.subject, &p.body); err != nil {
			return nil, err
		}
		posts = append(posts, p)
	}
	return posts, rows.Err()
}

// message is the post as the store's callers want it.
func (p *post) message(fields store.Fields) (store.Message, error) {
	text, err := p.compose()
	if err != nil {
		return store.Message{}, fmt.Errorf("post %d: %w", p.id, err)
	}
	m := store.Message{UID: store.UID(p.id), ModSeq: store.ModSeq(p.id), ID: "post-" + strconv.FormatInt(p.id, 10), Size: int64(len(text)),
		InternalDate: time.Unix(p.at, 0), SaveDate: time.Unix(p.at, 0), Flags: store.NewFlags(store.Seen)} // nothing here is news
	if fields&store.WithBody != 0 {
		m.Body = bytes.NewReader(text)
	}
	if fields&store.WithSummary != 0 {
		root, err := mime.Parse(bytes.NewReader(text), m.Size, mime.Limits{})
		if err != nil {
			return m, err
		}
		m.Summary = root.Summary()
	}
	return m, nil
}

// compose makes an e-mail of the post. With Date and Message-ID given, equal
// posts make equal octets.
func (p *post) compose() ([]byte, error) {
	messageID := func(id int64) string { return fmt.Sprintf("post-%d@%s", id, domain) }
	from, err := smtp.ParseAddress(p.email)
	if err != nil || from.IsZero() { // people write all sorts of things there
		from = smtp.Address{Local: "nobody", Domain: domain}
	}
	m := &mime.Message{From: []mime.Address{{Name: line(p.author), Address: from}}, Subject: cmp.Or(line(p.subject), "(no subject)"),
		Date: time.Unix(p.at, 0).UTC(), MessageID: messageID(p.id), Text: strings.ToValidUTF8(p.body, "?")}
	if p.replyTo != 0 {
		m.InReplyTo = []string{messageID(p.replyTo)}
		m.References = m.InReplyTo
	}
	var b bytes.Buffer
	_, err = m.WriteTo(&b)
	return b.Bytes(), err
}

// line makes one line of what somebody typed.
func line(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
}
