package imapserver

import (
	"bytes"
	"io"
	"sync"
	"time"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/imapwire"
	"github.com/postrider/postrider/internal/spool"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/store"
)

const defaultMaxMessage = 64 << 20

// upload is one message of APPEND.
type upload struct {
	flags  store.Flags
	date   time.Time
	body   store.Staged
	parser mime.Parser
	nul    bool // there is a NUL in it
}

// append is APPEND (RFC 9051 §6.3.12), of several messages (RFC 3502), as
// literal8 (RFC 3516) and with UTF8 (RFC 6855). All messages go to the store
// in one step.
func (s *session) append() (result, error) {
	var name string
	if !s.dec.ExpectSP() || !s.expectMailbox(&name) {
		return result{}, s.dec.Err()
	}
	var ups []*upload
	defer func() {
		for _, u := range ups {
			if u.body != nil {
				u.body.Close()
			}
		}
	}()
	a := appending{s: s, name: name, left: atMost(s.srv.MaxMessage, defaultMaxMessage, 1<<62)}
	most := atMost(s.srv.MaxMessages, 100, 1<<30)
	var drafts []store.Draft
	for s.dec.SP() {
		if len(ups) == most {
			return result{}, no(imap.CodeLimit, "Too many messages at once")
		}
		u := &upload{}
		ups = append(ups, u)
		if err := a.receive(u); err != nil {
			return result{}, err
		}
		d, err := s.draft(u)
		if err != nil {
			return result{}, err
		}
		drafts = append(drafts, d)
	}
	if len(ups) == 0 && !s.dec.ExpectSP() || !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	r, err := s.acc.Append(s.ctx, a.to.ID, drafts, store.AppendOptions{})
	if err != nil {
		return result{}, tryCreate(err)
	}
	if b := s.box; b != nil && b.id == a.to.ID && !b.view.FoldAppended(store.AppendOptions{}, r) {
		b.changed.Store(true)
	}
	if !mayRead(a.to.Rights) {
		return result{}, nil
	}
	var uids imap.NumSet
	for _, m := range r.Messages {
		uids.Add(uint32(m.UID))
	}
	validity := imap.NumSetOf(r.UIDValidity)
	return result{code: imap.CodeAppendUID, arg: validity.String() + " " + uids.String()}, nil
}

// appending is one APPEND while its messages come.
type appending struct {
	s     *session
	name  string
	to    store.Mailbox
	found bool
	left  int64 // octets that may still come
}

// receive takes flags, date and literal of one message.
func (a *appending) receive(u *upload) error {
	s, d := a.s, a.s.dec
	if d.Next('(') {
		var err error
		if u.flags, err = s.expectFlags(false); err != nil {
			return err
		}
		if !d.ExpectSP() {
			return d.Err()
		}
	}
	if d.Next('"') {
		if !d.ExpectDateTime(&u.date) || !d.ExpectSP() {
			return d.Err()
		}
	}
	var word string
	utf8 := !d.Next('~') && d.Keyword(&word) // "~" alone would be an atom
	if utf8 {
		if !s.utf8 || word != "UTF8" {
			d.Fail("expected a literal")
		}
		if !d.ExpectSP() || !d.ExpectSpecial('(') {
			return d.Err()
		}
	}
	l, ok := d.Literal(a.accept)
	if !ok {
		d.Fail("expected a literal")
		return d.Err()
	}
	if err := a.read(u, l); err != nil {
		return err
	}
	if utf8 {
		d.ExpectSpecial(')')
	}
	return d.Err()
}

// accept decides about a literal before it is sent.
func (a *appending) accept(l *imapwire.Literal) error {
	if l.Size == 0 {
		return no("", "Nothing to append") // RFC 3502 §6.3.11: the client gave up
	}
	if l.Size > a.left {
		return no(imap.CodeTooBig, "Message too big")
	}
	a.left -= l.Size
	if a.found {
		return nil
	}
	var err error
	if a.to, err = a.s.findMailbox(a.name); err != nil {
		return &refusal{tryCreate(err)}
	}
	a.found = true
	return nil
}

// read spools a literal and parses it in passing.
func (a *appending) read(u *upload, l *imapwire.Literal) error {
	var err error
	if u.body, err = a.s.stage(l.Size); err != nil {
		return &refusal{err}
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, rerr := l.Read(*buf)
		if n > 0 {
			chunk := (*buf)[:n]
			if _, err := u.body.Write(chunk); err != nil {
				return &refusal{err}
			}
			u.parser.Write(chunk)
			u.nul = u.nul || bytes.IndexByte(chunk, 0) >= 0
		}
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			return rerr
		}
	}
	if u.nul && !l.Binary {
		return no(imap.CodeCannot, "NUL in a message needs a literal8")
	}
	return nil
}

// buffers are for copying.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// stage opens a place for one message.
func (s *session) stage(size int64) (store.Staged, error) {
	if s.srv.Account != nil || s.srv.Store == nil {
		return new(spool.Spool), nil // the account may be of any store
	}
	return store.Stage(s.ctx, s.srv.Store, size)
}

// draft makes what the store takes. What the parser kept is needed no more.
func (s *session) draft(u *upload) (store.Draft, error) {
	root := u.parser.Close()
	u.parser = mime.Parser{}
	if u.nul {
		// What has no NUL-free form could not be fetched as BODY[] later
		// (RFC 3516 §4.3 leaves the choice of when to encode to the server).
		var err error
		if root, err = s.encodeBinary(u, root); err != nil {
			return store.Draft{}, err
		}
	}
	d := store.Draft{
		Body:         u.body,
		Flags:        u.flags,
		InternalDate: u.date,
		Summary:      root.Summary(),
		References:   append(root.Header.MessageIDs("References"), root.Header.MessageIDs("In-Reply-To")...),
	}
	if ids := root.Header.MessageIDs("Message-ID"); len(ids) > 0 {
		d.MessageID = ids[0]
	}
	return d, nil
}
