package diskstore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/postrider/postrider/internal/diskdb"
)

// Keys encrypts what a store keeps: bodies, heads and Summaries, each message
// under a key of its own, which the account's key wraps.
//
// What is not sealed can be read by whoever has the disk: the names of
// accounts, mailboxes and subscriptions, flags and keywords, sizes, dates, and
// which messages and accounts share a body. Message-IDs and the names of
// deliveries are hashed without a key: who knows one can tell that it is there.
//
// Unwrap is called for each message that is read, so it should have the
// account's key at hand. Both may be called from many goroutines.
type Keys interface {
	// Wrap encrypts a key of 32 octets under the account's own.
	Wrap(ctx context.Context, account string, key []byte) (wrapped []byte, err error)
	// Unwrap is the inverse of Wrap.
	Unwrap(ctx context.Context, account string, wrapped []byte) (key []byte, err error)
}

const keyLen = 32

func newKey() []byte {
	k := make([]byte, keyLen)
	rand.Read(k)
	return k
}

func aead(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// sealBox encrypts something small: a nonce, and what it is for is part of it.
func sealBox(key []byte, what string, plain []byte) ([]byte, error) {
	c, err := aead(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, c.NonceSize(), c.NonceSize()+len(plain)+c.Overhead())
	rand.Read(nonce)
	return c.Seal(nonce, nonce, plain, []byte(what)), nil
}

func openBox(key []byte, what string, sealed []byte) ([]byte, error) {
	c, err := aead(key)
	if err != nil {
		return nil, err
	}
	n := c.NonceSize()
	if len(sealed) < n {
		return nil, diskdb.ErrDamaged
	}
	plain, err := c.Open(nil, sealed[:n], sealed[n:], []byte(what))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", diskdb.ErrDamaged, err)
	}
	return plain, nil
}

// frameNonce: a body's key seals each frame once.
func frameNonce(i int) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), uint64(i))
}

// packer compresses; it is made when it is needed first.
type packer struct {
	once    sync.Once
	encoder *zstd.Encoder
	decoder *zstd.Decoder
	small   *zstd.Decoder // of frames that do not say how long they get
	err     error
}

func (p *packer) init() error {
	p.once.Do(func() {
		if p.encoder, p.err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true)); p.err == nil {
			p.small, p.err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(64<<10))
		}
		if p.err == nil {
			p.decoder, p.err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(1<<30))
		}
	})
	return p.err
}

// What the first octet of a compressed frame says.
const (
	framePlain  = 0 // it does not get shorter
	framePacked = 1
)

// seal makes a frame of plain octets. It may return plain itself.
func (c coding) seal(plain []byte, i int) ([]byte, error) {
	out := plain
	if c.zstd {
		if err := c.pack.init(); err != nil {
			return nil, err
		}
		out = c.pack.encoder.EncodeAll(plain, append(make([]byte, 0, len(plain)/2+64), framePacked))
		if len(out) > len(plain) {
			out = append(append(out[:0], framePlain), plain...)
		}
	}
	if c.key == nil {
		return out, nil
	}
	gcm, err := aead(c.key)
	if err != nil {
		return nil, err
	}
	return gcm.Seal(nil, frameNonce(i), out, nil), nil
}

// open is the inverse of seal; plain is how long the result is. It may return
// stored itself.
func (c coding) open(buf, stored []byte, i, plain int) ([]byte, error) {
	if c.key != nil {
		gcm, err := aead(c.key)
		if err != nil {
			return nil, err
		}
		into := buf
		if c.zstd {
			into = nil
		}
		if stored, err = gcm.Open(into, frameNonce(i), stored, nil); err != nil {
			return nil, fmt.Errorf("%w: %w", diskdb.ErrDamaged, err)
		}
	}
	if c.zstd {
		if len(stored) == 0 {
			return nil, diskdb.ErrDamaged
		}
		how := stored[0]
		if stored = stored[1:]; how == framePacked {
			if err := c.pack.init(); err != nil {
				return nil, err
			}
			// What comes out is bounded before it is made. Frames of less than
			// 256 octets did not say their length in the first versions.
			var h zstd.Header
			if err := h.Decode(stored); err != nil || h.HasFCS && h.FrameContentSize != uint64(plain) || !h.HasFCS && plain >= 256 {
				return nil, diskdb.ErrDamaged
			}
			decoder := c.pack.decoder
			if !h.HasFCS {
				decoder = c.pack.small
			}
			var err error
			if stored, err = decoder.DecodeAll(stored, buf[:0]); err != nil {
				return nil, fmt.Errorf("%w: %w", diskdb.ErrDamaged, err)
			}
		} else if how == framePlain {
			stored = append(buf[:0], stored...)
		} else {
			return nil, diskdb.ErrDamaged
		}
	}
	if len(stored) != plain {
		return nil, diskdb.ErrDamaged
	}
	return stored, nil
}

// lock seals what a Draft brings for an account.
func (p *prepared) lock(ctx context.Context, k Keys, account string) error {
	p.storedHead, p.storedSummary = p.head, p.summary
	if k == nil || account == "" {
		return nil
	}
	p.dataKey = newKey()
	var err error
	if p.wrapped, err = k.Wrap(ctx, account, p.dataKey); err != nil {
		return fmt.Errorf("diskstore: wrapping a key: %w", unavailable(err))
	}
	if p.storedHead, err = sealBox(p.dataKey, "head", p.head); err != nil {
		return err
	}
	if len(p.summary) > 0 {
		if p.storedSummary, err = sealBox(p.dataKey, "summary", p.summary); err != nil {
			return err
		}
	}
	if p.bodyKey != nil {
		p.sealedKey, err = sealBox(p.dataKey, "body", p.bodyKey)
	}
	return err
}

// unlock makes e what it was before it was stored. Its head belongs to the
// record that it was read from, unless it is sealed.
func (s *Store) unlock(ctx context.Context, account string, e *email, headSize int64) error {
	if e.key != nil {
		if s.o.Keys == nil {
			return fmt.Errorf("email %s is sealed, and Options.Keys is not set", idOf('m', e.no))
		}
		key, err := s.o.Keys.Unwrap(ctx, account, e.key)
		if err != nil {
			return fmt.Errorf("unwrapping a key: %w", err)
		}
		e.dataKey = key
		if e.head, err = openBox(key, "head", e.head); err != nil {
			return err
		}
		if len(e.sealedKey) > 0 {
			if e.bodyKey, err = openBox(key, "body", e.sealedKey); err != nil {
				return err
			}
		}
	}
	if int64(len(e.head)) != headSize {
		return diskdb.ErrDamaged
	}
	return nil
}

// encodeSummary writes a Summary; how says whether it is sealed.
func encodeSummary(how byte, stored []byte) []byte {
	w := diskdb.Record(len(stored) + 1)
	w.Octet(how)
	w.B = append(w.B, stored...)
	return w.Seal()
}

// decodeSummary reads a Summary as it is stored; it belongs to v.
func decodeSummary(v []byte) (how byte, stored []byte, err error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return 0, nil, err
	}
	how = r.Octet()
	if how&^codeSealed != 0 {
		r.Fail()
	}
	return how, r.B, r.Err()
}

// openSummary returns a Summary as it was before it was stored.
func (a *account) openSummary(ctx context.Context, no uint64, v []byte) ([]byte, error) {
	how, stored, err := decodeSummary(v)
	if err != nil || how == 0 {
		return append([]byte(nil), stored...), err
	}
	e, err := a.readEmail(ctx, no)
	if err != nil {
		return nil, err
	}
	return openBox(e.dataKey, "summary", stored)
}
