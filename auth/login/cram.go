package login

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
)

const cramMD5 = "CRAM-MD5"

// cram is CRAM-MD5 (RFC 2195), for old devices: it needs Record.Password.
type cram struct {
	ctx       context.Context // of Start
	p         *Passwords
	c         *Conn
	challenge string
	done      bool
	id        Identity
}

func (x *cram) Identity() Identity { return x.id }

func (x *cram) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case x.done:
		return nil, false, sasl.ErrUnexpectedClientResponse
	case x.challenge == "":
		if len(response) > 0 { // an initial response: the server speaks first
			x.done = true
			return nil, false, ErrMalformed
		}
		x.challenge = challengeID()
		return []byte(x.challenge), false, nil
	}
	x.done = true
	i := strings.LastIndexByte(string(response), ' ')
	if i < 1 || i > maxName || !utf8.Valid(response) {
		return nil, false, ErrMalformed
	}
	name := string(response[:i])
	sum, err := hex.DecodeString(string(response[i+1:]))
	if err != nil || len(sum) != md5.Size {
		return nil, false, ErrMalformed
	}
	user, nameErr := PrepareUser(name)
	if nameErr != nil {
		user = name
	}
	a, err := x.p.limits.enter(x.c, user)
	if err != nil {
		return nil, false, err
	}
	x.id, err = x.check(user, nameErr == nil, sum)
	a.leave(err)
	return nil, err == nil, err
}

func (x *cram) check(user string, valid bool, sum []byte) (Identity, error) {
	var rec Record
	if valid {
		var err error
		if rec, err = x.p.Lookup(x.ctx, user); err != nil && !errors.Is(err, ErrNoUser) {
			return Identity{}, fmt.Errorf("login: look-up: %w", err)
		} else if err != nil {
			rec = Record{}
		}
	}
	pw, err := preparePassword(rec.Password)
	if err != nil {
		pw = "-" // the same work as for a password that may be right
	}
	m := hmac.New(md5.New, []byte(pw))
	m.Write([]byte(x.challenge))
	if subtle.ConstantTimeCompare(m.Sum(nil), sum) != 1 || err != nil {
		return Identity{}, ErrCredentials
	}
	id := rec.identity(user)
	id.Mechanism = cramMD5
	return id, nil
}

// challengeID is a challenge in the form that RFC 2195 §2 asks for, which some
// clients check: random digits, a dot, the time, and a host. Our name is not
// known here, and nothing depends on it.
func challengeID() string {
	var b [16]byte
	rand.Read(b[:])
	return fmt.Sprintf("<%d%d.%d@localhost>", binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]), time.Now().Unix())
}

// plaintext is a password that is kept as it is.
type plaintext string

func (h plaintext) matches(password string) bool {
	pw, err := preparePassword(string(h))
	return err == nil && subtle.ConstantTimeCompare([]byte(pw), []byte(password)) == 1
}

func (h plaintext) memory() int64 { return 1 }
