package diskstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// emails reads all emails of an account with their bodies.
func (c *checker) emails(ctx context.Context, acct uint64, name string) error {
	err := c.each(ctx, key1(kEmail, acct), func(key, value []byte) error {
		if len(key) != 17 {
			c.stray(key, "account %q: a key of an email: %x", name, key)
			return nil
		}
		no := u8(key[9:])
		e, size, err := decodeEmail(no, value)
		if err != nil {
			c.bad(key, err, "account %q, email %s", name, idOf('m', no))
			note(&c.found.emails, emailAt{acct, no})
			return nil
		}
		if ok, err := hasPrefix(c.r, key2(kRef, acct, no)); err != nil {
			return err
		} else if !ok {
			c.problem("account %q: no mailbox has email %s", name, idOf('m', no))
			note(&c.found.leaked, emailAt{acct, no})
		}
		if e.blob == 0 {
			err := c.s.unlock(ctx, name, e, size)
			if errors.Is(err, diskdb.ErrDamaged) {
				c.problem("account %q, email %s: %v", name, idOf('m', no), err)
				note(&c.found.emails, emailAt{acct, no})
				return nil
			}
			return err
		}
		if ok, err := c.has(key3(kBlobRef, e.blob, acct, no)); err != nil {
			return err
		} else if !ok {
			note(&c.held, e.blob)
			c.missing(key3(kBlobRef, e.blob, acct, no), nil, "account %q: email %s does not hold its body", name, idOf('m', no))
		}
		if err := c.body(ctx, name, e, size); err != nil {
			if !errors.Is(err, diskdb.ErrDamaged) {
				return err
			}
			c.problem("account %q: %v", name, err)
			note(&c.found.emails, emailAt{acct, no})
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = c.each(ctx, key1(kRef, acct), func(key, _ []byte) error {
		if len(key) != lenRef {
			c.stray(key, "account %q: a key of a reference: %x", name, key)
			return nil
		}
		no, box, uid := u8(key[9:]), u8(key[17:]), uidOf(key[25:])
		v, err := c.get(rowKey(acct, box, uid))
		if err != nil {
			return err
		}
		if m, err := decodeRow(uid, v); v == nil || err == nil && m.email != no {
			c.stray(key, "account %q: email %s is held by mailbox %s, UID %d, which is not there", name, idOf('m', no), boxID(box), uid)
			note(&c.found.leaked, emailAt{acct, no})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.each(ctx, key1(kSummary, acct), func(key, _ []byte) error {
		ok, err := c.has(append([]byte{kEmail}, key[1:]...))
		if err == nil && !ok {
			c.stray(key, "account %q: a summary without an email", name)
		}
		return err
	})
}

// body reads the body of an email to its end.
func (c *checker) body(ctx context.Context, account string, e *email, headSize int64) error {
	if err := c.s.unlock(ctx, account, e, headSize); err != nil {
		return fmt.Errorf("email %s: %w", idOf('m', e.no), err)
	}
	var l lent
	in, err := c.s.readBody(&l, e)
	if in {
		l.release()
	}
	if in || err != nil {
		return err
	}
	file, err := c.s.openFile(e)
	if errors.Is(err, store.ErrNotExist) {
		return fmt.Errorf("email %s: %w: it has no body", idOf('m', e.no), diskdb.ErrDamaged)
	}
	if err != nil {
		return err
	}
	defer file.f.Close()
	for i := range file.sums {
		if err := file.load(i); err != nil {
			return fmt.Errorf("email %s: %w", idOf('m', e.no), err)
		}
	}
	return nil
}

// blobs looks for bodies that nobody has.
func (c *checker) blobs(ctx context.Context) error {
	for _, kind := range []byte{kBlob, kFile} {
		err := c.each(ctx, []byte{kind}, func(key, _ []byte) error {
			if len(key) != 9 {
				c.stray(key, "a key of a body: %x", key)
				return nil
			}
			ok, err := hasPrefix(c.r, key1(kBlobRef, u8(key[1:])))
			if err == nil && !ok && !c.held[u8(key[1:])] {
				c.stray(key, "body %s: no email has it", idOf('b', u8(key[1:])))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return c.each(ctx, []byte{kBlobRef}, func(key, _ []byte) error {
		if len(key) != 1+8+8+8 {
			c.stray(key, "a key of a reference: %x", key)
			return nil
		}
		ok, err := c.has(append([]byte{kEmail}, key[9:]...))
		if err == nil && !ok {
			c.stray(key, "body %s: it is held by an email that is not there", idOf('b', u8(key[1:])))
		}
		return err
	})
}
