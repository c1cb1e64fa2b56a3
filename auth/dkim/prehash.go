package dkim

import (
	"crypto/sha256"

	"github.com/postrider/postrider/auth/internal/canon"
)

// Prehash hashes the body of a message that will be signed later: write the
// whole message to it while it is spooled, keep Sum beside the message, and
// hand it back as SignOptions.BodyHash. Then only the header has to be written
// to the Signer, and a queue signs at its leisure, for each recipient if need
// be, without reading the body again. It is not for concurrent use.
type Prehash struct {
	head canon.Block
	body *canon.Body
}

// NewPrehash returns a Prehash for a body canonicalization; "" = Relaxed.
func NewPrehash(body Canonicalization) *Prehash {
	return &Prehash{body: canon.NewBody(sha256.New(), body != Simple, -1)}
}

// Write takes the next piece of the message. It never fails.
func (h *Prehash) Write(p []byte) (int, error) {
	n := len(p)
	if !h.head.Done {
		p = h.head.Write(p)
	}
	if len(p) > 0 {
		h.body.Write(p)
	}
	return n, nil
}

// Sum ends the message and returns the SHA-256 of its canonical body. Calls
// after the first return the same.
func (h *Prehash) Sum() []byte {
	if h.body.Digest == nil {
		h.body.Sum()
	}
	return append([]byte(nil), h.body.Digest...)
}
