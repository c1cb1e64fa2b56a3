package mime

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"github.com/postrider/postrider/smtp"
)

// NewMessageID returns a new message identifier at that domain, without angle
// brackets: 128 random bits, so that it is unique without knowing the host
// (RFC 5322 §3.6.4). A domain that cannot stand in one becomes "localhost".
func NewMessageID(domain string) string {
	d, err := smtp.ParseDomain(domain)
	if err != nil {
		d = "localhost"
	}
	return randomHex() + "@" + d
}

func randomHex() string {
	var b [16]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// appendMessageIDs collects what stands between angle brackets. A value
// without any gives itself when it is one word with an @.
func appendMessageIDs(ids []string, s string) []string {
	n := len(ids)
	for rest := s; ; {
		i := strings.IndexByte(rest, '<')
		if i < 0 {
			break
		}
		rest = rest[i+1:]
		j := strings.IndexAny(rest, "<>")
		if j < 0 {
			break
		}
		if rest[j] == '<' {
			rest = rest[j:]
			continue
		}
		if id := strings.TrimSpace(rest[:j]); id != "" {
			ids = append(ids, id)
		}
		rest = rest[j+1:]
	}
	if len(ids) == n {
		if s = strings.Trim(s, " \t<>"); strings.Contains(s, "@") && !strings.ContainsAny(s, " \t<>,;") {
			ids = append(ids, s)
		}
	}
	return ids
}
