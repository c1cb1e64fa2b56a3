package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/mime/maildir"
	"github.com/postrider/postrider/mime/mbox"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/transfer"
)

// read reads files into an account: an mbox into one mailbox, a Maildir with
// its folders (Maildir++) into as many.
func (j *job) read(ctx context.Context, s *screen) error {
	to, closeTo, err := j.to.open(ctx)
	if err != nil {
		return err
	}
	defer closeTo()
	acc, err := account(ctx, to, j.account)
	if err != nil {
		return err
	}
	if j.from.kind == "mbox" {
		f, err := os.Open(j.from.path)
		if err != nil {
			return err
		}
		defer f.Close()
		box, err := mailbox(ctx, acc, j.mailbox)
		if err != nil {
			return err
		}
		s.begin(j.mailbox)
		report, err := transfer.FromMbox(ctx, acc, box, mbox.NewReader(f), transfer.Options{Progress: s.progress})
		s.end(report)
		return err
	}
	top := maildir.Dir(j.from.path)
	folders, err := top.Folders()
	if err != nil {
		return err
	}
	for _, folder := range append([]string{""}, folders...) {
		name, dir := "INBOX", top
		if folder != "" {
			if name, err = imap.DecodeUTF7(folder); err != nil {
				return fmt.Errorf("folder %q: %w", folder, err)
			}
			name, dir = strings.ReplaceAll(name, ".", "/"), top.Folder(folder)
		}
		box, err := mailbox(ctx, acc, name)
		if err != nil {
			return err
		}
		s.begin(name)
		report, err := transfer.FromMaildir(ctx, acc, box, dir, transfer.Options{Progress: s.progress})
		s.end(report)
		if err != nil {
			return err
		}
	}
	return nil
}

// write writes an account out: one mailbox to an mbox, all of them to a
// Maildir with folders.
func (j *job) write(ctx context.Context, s *screen) error {
	from, closeFrom, err := j.from.open(ctx)
	if err != nil {
		return err
	}
	defer closeFrom()
	acc, err := from.Account(ctx, j.account)
	if err != nil {
		return err
	}
	boxes, _, err := acc.Mailboxes(ctx, store.MailboxQuery{})
	if err != nil {
		return err
	}
	if j.to.kind == "mbox" {
		for _, b := range boxes {
			if b.Name != j.mailbox {
				continue
			}
			// What is there already is not written over.
			f, err := os.OpenFile(j.to.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			s.begin(b.Name)
			report, err := transfer.ToMbox(ctx, mbox.NewWriter(f), acc, b.ID, transfer.Options{Progress: s.progress})
			s.end(report)
			return errors.Join(err, f.Sync(), f.Close())
		}
		return fmt.Errorf("mailbox %q: %w", j.mailbox, store.ErrNotExist)
	}
	top := maildir.Dir(j.to.path)
	if err := os.Mkdir(j.to.path, 0o700); err != nil {
		return err // written twice, all would be there twice
	}
	for _, b := range boxes {
		dir := top
		if b.ID != store.Inbox {
			dir = top.Folder(imap.EncodeUTF7(strings.ReplaceAll(b.Name, "/", ".")))
		}
		s.begin(b.Name)
		report, err := transfer.ToMaildir(ctx, dir, acc, b.ID, transfer.Options{Progress: s.progress})
		s.end(report)
		if err != nil {
			return err
		}
	}
	return nil
}

// mailbox returns one by its name, which is made if it is not there.
func mailbox(ctx context.Context, acc store.Account, name string) (store.MailboxID, error) {
	boxes, _, err := acc.Mailboxes(ctx, store.MailboxQuery{Names: []string{name}})
	if err != nil {
		return "", err
	}
	if len(boxes) > 0 {
		return boxes[0].ID, nil
	}
	m, err := acc.CreateMailbox(ctx, store.NewMailbox{Name: name})
	return m.ID, err
}
