package imapclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/imapwire"
)

// AppendOptions are the flags and the internal date of a message to be
// appended; a zero Date is now.
type AppendOptions struct {
	Flags []imap.Flag
	Date  time.Time
}

// Append adds a message of size octets to a mailbox (RFC 9051 §6.3.12). It
// tells the UID if the server has UIDPLUS. When body ends before size, or
// fails, the connection is closed, so that nothing is stored.
func (c *Client) Append(ctx context.Context, mailbox string, body io.Reader, size int64, o AppendOptions) (imap.AppendData, error) {
	if !areWords(o.Flags...) {
		return imap.AppendData{}, ErrArgument
	}
	var data imap.AppendData
	var bodyErr error
	err := c.run(ctx, &command{
		name: "APPEND",
		args: func(e *imapwire.Encoder) {
			e.SP().Mailbox(mailbox).SP()
			if len(o.Flags) > 0 {
				e.Flags(o.Flags).SP()
			}
			if !o.Date.IsZero() {
				e.DateTime(o.Date).SP()
			}
			w := e.Literal(size, false)
			if e.Err() != nil {
				return
			}
			buf := make([]byte, 32<<10)
			for left := size; left > 0; {
				n, err := body.Read(buf[:min(int64(len(buf)), left)])
				c.arm()
				if _, werr := w.Write(buf[:n]); werr != nil {
					return
				}
				if left -= int64(n); err != nil && left > 0 {
					if err == io.EOF {
						err = io.ErrUnexpectedEOF
					}
					bodyErr = fmt.Errorf("imapclient: message to append: %w", err)
					c.fail(bodyErr)
					return
				}
			}
		},
		code: func(code imap.Code, arg string) {
			if code != imap.CodeAppendUID {
				return
			}
			validity, uids, _ := strings.Cut(arg, " ")
			if set, err := imap.ParseNumSet(uids); err == nil {
				data = imap.AppendData{UIDValidity: uint32(parseNumber(validity)), UIDs: set}
			}
		},
	})
	if bodyErr != nil {
		return imap.AppendData{}, bodyErr
	}
	return data, err
}

// Copy copies messages to another mailbox (RFC 9051 §6.4.7). It tells the
// UIDs if the server has UIDPLUS.
func (c *Client) Copy(ctx context.Context, set imap.MessageSet, mailbox string) (imap.CopyData, error) {
	return c.copyTo(ctx, "COPY", set, mailbox)
}

// Move moves messages to another mailbox (RFC 9051 §6.4.8).
func (c *Client) Move(ctx context.Context, set imap.MessageSet, mailbox string) (imap.CopyData, error) {
	return c.copyTo(ctx, "MOVE", set, mailbox)
}

func (c *Client) copyTo(ctx context.Context, name string, set imap.MessageSet, mailbox string) (imap.CopyData, error) {
	var data imap.CopyData
	err := c.run(ctx, &command{
		name: uidName(set, name),
		args: func(e *imapwire.Encoder) { e.SP().MessageSet(set).SP().Mailbox(mailbox) },
		code: func(code imap.Code, arg string) {
			f := strings.Fields(arg)
			if code != imap.CodeCopyUID || len(f) != 3 {
				return
			}
			source, err1 := imap.ParseNumSet(f[1])
			dest, err2 := imap.ParseNumSet(f[2])
			if err := errors.Join(err1, err2); err == nil {
				data = imap.CopyData{UIDValidity: uint32(parseNumber(f[0])), Source: source, Dest: dest}
			}
		},
	})
	return data, err
}

// Store changes flags (RFC 9051 §6.4.6) and returns what the server told of
// them; silent asks it to tell nothing.
func (c *Client) Store(ctx context.Context, set imap.MessageSet, mode imap.StoreMode, silent bool, flags ...imap.Flag) ([]*imap.FetchData, error) {
	if !areWords(flags...) {
		return nil, ErrArgument
	}
	var told []*imap.FetchData
	err := c.run(ctx, &command{
		name: uidName(set, "STORE"),
		args: func(e *imapwire.Encoder) {
			item := mode.String()
			if silent {
				item += ".SILENT"
			}
			e.SP().MessageSet(set).SP().Atom(item).SP().Flags(flags)
		},
		fetch: func(m *imap.FetchData) { told = append(told, m) },
	})
	return told, err
}

// Expunge removes the messages that are \Deleted, of uids only if that is not
// nil (UIDPLUS, RFC 9051 §6.4.9). It returns the sequence numbers as the
// server told them, each valid when those before it are gone.
func (c *Client) Expunge(ctx context.Context, uids imap.NumSet) ([]uint32, error) {
	cmd := &command{name: "EXPUNGE"}
	if uids != nil {
		cmd.name = "UID EXPUNGE"
		cmd.args = func(e *imapwire.Encoder) { e.SP().NumSet(uids) }
	}
	var seqs []uint32
	cmd.expunge = func(seq uint32) { seqs = append(seqs, seq) }
	err := c.run(ctx, cmd)
	return seqs, err
}
