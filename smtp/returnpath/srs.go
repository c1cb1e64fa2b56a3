package returnpath

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postrider/postrider/smtp"
)

// SRS is the Sender Rewriting Scheme. A forwarder sends with
// "SRS0=hash=day=domain=local@forwarder", so that SPF passes for it and a
// bounce comes back to it; one that forwards what was forwarded uses SRS1 and
// does not grow it. The form is that of libsrs2 and Mail::SRS: their addresses
// are taken with the same secret, and ours by them.
type SRS struct {
	// Domain is the forwarder's.
	Domain string
	// Secrets are keys; the first makes addresses, all are good to read
	// them. At least one.
	Secrets [][]byte
	// MaxAge is how long an address is good for, in whole days; 0 = 21 days,
	// and at most 512.
	MaxAge time.Duration
	// Separator comes behind SRS0 and SRS1: '=', '+' or '-'; 0 = '='.
	Separator byte
	// HashLength is how many characters of the hash are used; 0 = 4, the
	// usual. Fewer than 4 are not.
	HashLength int
}

// ErrSecret: a value has no secret.
var ErrSecret = errors.New("returnpath: no secret")

const (
	day      = 24 * time.Hour
	dayCount = 1 << 10 // days are counted modulo this, in two characters
	base32   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

// Forward rewrites the reverse-path of mail that is forwarded. The null
// reverse-path and addresses of Domain stay as they are.
func (s SRS) Forward(from smtp.Address, now time.Time) (smtp.Address, error) {
	if from.IsZero() || strings.EqualFold(from.Domain, s.Domain) {
		return from, nil
	}
	if len(s.Secrets) == 0 {
		return smtp.Address{}, ErrSecret
	}
	sep := s.separator()
	if rest, ok := cutSRS(from.Local, "SRS0"); ok {
		// SRS1=hash=host==rest: the host that made the SRS0 is the one that
		// can undo it.
		hash := s.hash(s.Secrets[0], from.Domain, rest)
		return s.made("SRS1" + sep + hash + "=" + from.Domain + "=" + rest)
	}
	if rest, ok := cutSRS(from.Local, "SRS1"); ok {
		if parts := strings.SplitN(rest[1:], "=", 3); len(parts) == 3 {
			return s.made("SRS1" + sep + s.hash(s.Secrets[0], parts[1], parts[2]) + "=" + parts[1] + "=" + parts[2])
		}
	}
	stamp := timestamp(now)
	hash := s.hash(s.Secrets[0], stamp, from.Domain, from.Local)
	return s.made("SRS0" + sep + hash + "=" + stamp + "=" + from.Domain + "=" + from.Local)
}

func (s SRS) made(local string) (smtp.Address, error) {
	if len(local) > maxDomain { // no server takes more; 64 is not kept to by SRS
		return smtp.Address{}, ErrTooLong
	}
	return smtp.Address{Local: local, Domain: s.Domain}, nil
}

// IsSRS reports whether a has the form that Reverse reads.
func (s SRS) IsSRS(a smtp.Address) bool {
	_, zero := cutSRS(a.Local, "SRS0")
	_, one := cutSRS(a.Local, "SRS1")
	return (zero || one) && strings.EqualFold(a.Domain, s.Domain)
}

// Reverse finds where a bounce to a goes: the original sender for SRS0, the
// forwarder before this one for SRS1. ErrNotOurs and ErrExpired mean that it
// must not be sent anywhere.
func (s SRS) Reverse(a smtp.Address, now time.Time) (smtp.Address, error) {
	if !s.IsSRS(a) {
		return smtp.Address{}, fmt.Errorf("%w: %s", ErrNotOurs, a)
	}
	if rest, ok := cutSRS(a.Local, "SRS1"); ok {
		parts := strings.SplitN(rest[1:], "=", 3)
		if len(parts) != 3 || parts[1] == "" || parts[2] == "" || !s.verify(parts[0], parts[1], parts[2]) {
			return smtp.Address{}, fmt.Errorf("%w: %s", ErrNotOurs, a)
		}
		return address("SRS0"+parts[2], parts[1])
	}
	rest, _ := cutSRS(a.Local, "SRS0")
	parts := strings.SplitN(rest[1:], "=", 4)
	if len(parts) != 4 || parts[2] == "" || !s.verify(parts[0], parts[1], parts[2], parts[3]) {
		return smtp.Address{}, fmt.Errorf("%w: %s", ErrNotOurs, a)
	}
	made, ok := readTimestamp(parts[1])
	if !ok {
		return smtp.Address{}, fmt.Errorf("%w: %s", ErrNotOurs, a)
	}
	maxAge := s.MaxAge
	if maxAge <= 0 {
		maxAge = 21 * day
	}
	age := (dayNumber(now) - made + dayCount) % dayCount
	if time.Duration(age)*day > min(maxAge, dayCount/2*day) && age != dayCount-1 { // a clock may be a day behind
		return smtp.Address{}, fmt.Errorf("%w: %s", ErrExpired, a)
	}
	return address(parts[3], parts[2])
}

func address(local, domain string) (smtp.Address, error) {
	a, err := smtp.ParseAddress(smtp.Address{Local: local, Domain: domain}.String())
	if err != nil {
		return smtp.Address{}, fmt.Errorf("%w: %w", ErrNotOurs, err)
	}
	return a, nil
}

func (s SRS) separator() string {
	if s.Separator == 0 {
		return "="
	}
	return string(rune(s.Separator))
}

// cutSRS cuts the word and returns what follows with its separator.
func cutSRS(local, word string) (string, bool) {
	rest, ok := cutPrefixFold(local, word)
	return rest, ok && rest != "" && strings.IndexByte("=+-", rest[0]) >= 0
}

func (s SRS) hashLength() int { return min(max(s.HashLength, 4), 27) }

// hash is over the parts in lower case: hosts on the way may change case.
func (s SRS) hash(secret []byte, parts ...string) string {
	m := hmac.New(sha1.New, secret)
	for _, p := range parts {
		m.Write([]byte(strings.ToLower(p)))
	}
	return base64.StdEncoding.EncodeToString(m.Sum(nil))[:s.hashLength()]
}

// verify compares without regard to case, as the scheme does.
func (s SRS) verify(hash string, parts ...string) bool {
	ok := false
	for _, secret := range s.Secrets {
		want := s.hash(secret, parts...)
		if hmac.Equal([]byte(strings.ToLower(want)), []byte(strings.ToLower(hash))) {
			ok = true
		}
	}
	return ok
}

func dayNumber(t time.Time) int { return int(t.Unix()/int64(day/time.Second)) % dayCount }

func timestamp(t time.Time) string {
	n := dayNumber(t)
	return string([]byte{base32[n>>5], base32[n&31]})
}

func readTimestamp(s string) (int, bool) {
	if len(s) != 2 {
		return 0, false
	}
	hi, lo := strings.IndexByte(base32, upper(s[0])), strings.IndexByte(base32, upper(s[1]))
	return hi<<5 | lo, hi >= 0 && lo >= 0
}
