package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// SignatureHeader is the field of a request with its time and signatures:
// "t=1764000000,v1=" and the HMAC-SHA-256, in hexadecimal, of the time as it
// stands there, a full stop, and the body.
const SignatureHeader = "Postrider-Signature"

// DefaultTolerance is how old, or early, a request may be.
const DefaultTolerance = 5 * time.Minute

const maxBody = 8 << 20

// Errors of Verify and Read.
var (
	// ErrSignature: the request has no signature by a secret of ours.
	ErrSignature = errors.New("webhook: no valid signature")
	// ErrTime: it was signed too long ago, or in the future.
	ErrTime = errors.New("webhook: signed at another time")
)

// Sign returns the value of SignatureHeader for a body sent at t.
func Sign(secret []byte, t time.Time, body []byte) string {
	stamp := strconv.FormatInt(t.Unix(), 10)
	return "t=" + stamp + ",v1=" + hex.EncodeToString(mac(secret, stamp, body))
}

func mac(secret []byte, stamp string, body []byte) []byte {
	h := hmac.New(sha256.New, secret)
	io.WriteString(h, stamp+".")
	h.Write(body)
	return h.Sum(nil)
}

// Verify checks the value of SignatureHeader of a request with that body,
// received at now. One of the secrets must have signed it, so that a new one
// can be brought in beside the old; signatures are compared in constant time.
// A tolerance of 0 is DefaultTolerance, a negative one no limit.
func Verify(value string, body []byte, now time.Time, tolerance time.Duration, secrets ...[]byte) error {
	var stamp string
	var sigs [][]byte
	for field := range strings.SplitSeq(value, ",") {
		name, v, _ := strings.Cut(strings.TrimSpace(field), "=")
		switch name {
		case "t":
			if stamp != "" {
				return ErrSignature
			}
			stamp = v
		case "v1":
			if b, err := hex.DecodeString(v); err == nil && len(sigs) < 8 {
				sigs = append(sigs, b)
			}
		}
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return ErrSignature
	}
	ok := false
	for _, secret := range secrets {
		if len(secret) == 0 {
			continue
		}
		want := mac(secret, stamp, body)
		for _, sig := range sigs {
			ok = hmac.Equal(want, sig) || ok
		}
	}
	if !ok {
		return ErrSignature
	}
	if tolerance == 0 {
		tolerance = DefaultTolerance
	}
	if age := now.Sub(time.Unix(seconds, 0)); tolerance > 0 && (age > tolerance || age < -tolerance) {
		return ErrTime
	}
	return nil
}

// Read returns the events of a request after Verify found it in order. It reads
// at most 8 MiB.
func Read(r *http.Request, tolerance time.Duration, secrets ...[]byte) ([]Event, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("webhook: reading the body: %w", err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("webhook: the body is longer than %d octets", maxBody)
	}
	if err := Verify(r.Header.Get(SignatureHeader), body, time.Now(), tolerance, secrets...); err != nil {
		return nil, err
	}
	var events []Event
	if err := json.Unmarshal(body, &events); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	return events, nil
}
