package returnpath

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/smtp"
)

// BATV is Bounce Address Tag Validation, the "prvs" form of
// draft-levine-smtp-batv: mail is sent with "prvs=kdddhhhhhh=ann@ours", and a
// bounce to anything else is one of mail that ann did not send.
type BATV struct {
	// Secrets are keys by their number, 0 to 9; Key is the one that makes
	// addresses.
	Secrets map[int][]byte
	Key     int
	// MaxAge is how long a tag is good for, in whole days; 0 = 7 days, and
	// at most 500.
	MaxAge time.Duration
}

const batvDays = 1000

// Sign tags a.
func (b BATV) Sign(a smtp.Address, now time.Time) (smtp.Address, error) {
	secret := b.Secrets[b.Key]
	if len(secret) == 0 || b.Key < 0 || b.Key > 9 {
		return smtp.Address{}, ErrSecret
	}
	maxAge := b.MaxAge
	if maxAge <= 0 {
		maxAge = 7 * day
	}
	expires := (now.Unix()/int64(day/time.Second) + int64(min(maxAge, batvDays/2*day)/day)) % batvDays
	tag := fmt.Sprintf("%d%03d", b.Key, expires)
	a.Local = "prvs=" + tag + batvHash(secret, tag, a) + "=" + a.Local
	return a, nil
}

// Verify returns the address that was tagged.
func (b BATV) Verify(a smtp.Address, now time.Time) (smtp.Address, error) {
	rest, ok := cutPrefixFold(a.Local, "prvs=")
	tag, local, found := strings.Cut(rest, "=")
	if !ok || !found || len(tag) != 10 {
		return smtp.Address{}, fmt.Errorf("%w: %s", ErrNotOurs, a)
	}
	key, err1 := strconv.ParseUint(tag[:1], 10, 8)
	expires, err2 := strconv.ParseUint(tag[1:4], 10, 16)
	secret := b.Secrets[int(key)]
	a.Local = local
	if err1 != nil || err2 != nil || len(secret) == 0 ||
		!hmac.Equal([]byte(batvHash(secret, tag[:4], a)), []byte(strings.ToLower(tag[4:]))) {
		return smtp.Address{}, fmt.Errorf("%w: %s", ErrNotOurs, a)
	}
	if left := (int64(expires) - now.Unix()/int64(day/time.Second)%batvDays + batvDays) % batvDays; left > batvDays/2 {
		return smtp.Address{}, fmt.Errorf("%w: %s", ErrExpired, a)
	}
	return a, nil
}

func batvHash(secret []byte, tag string, a smtp.Address) string {
	m := hmac.New(sha1.New, secret)
	m.Write([]byte(tag + strings.ToLower(a.Local) + "@" + strings.ToLower(a.Domain)))
	return hex.EncodeToString(m.Sum(nil)[:3])
}
