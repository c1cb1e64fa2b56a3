package pop3

import (
	"errors"
	"strconv"
	"strings"
)

// Stat is the answer to STAT: the drop listing (RFC 1939 §5).
type Stat struct {
	Messages int
	Size     int64 // octets
}

// Listing is one line of LIST: the scan listing of a message (RFC 1939 §5).
type Listing struct {
	Number int   // 1 is the first
	Size   int64 // octets
}

// UniqueID is one line of UIDL (RFC 1939 §7).
type UniqueID struct {
	Number int
	ID     string // 1 to 70 octets of 0x21 to 0x7E; the same in all sessions
}

// ErrListing: a line of STAT, LIST or UIDL that is not as RFC 1939 has it.
var ErrListing = errors.New("pop3: malformed listing")

// ParseStat parses the text of STAT's +OK: "2 320". What follows is left out.
func ParseStat(text string) (Stat, error) {
	n, size, err := parsePair(text)
	return Stat{n, size}, err
}

// ParseListing parses one line of LIST: "1 120". What follows is left out.
func ParseListing(line string) (Listing, error) {
	n, size, err := parsePair(line)
	if err == nil && n == 0 {
		err = ErrListing
	}
	return Listing{n, size}, err
}

func parsePair(line string) (int, int64, error) {
	first, rest, _ := strings.Cut(line, " ")
	second, _, _ := strings.Cut(rest, " ")
	n, err1 := parseNumber(first)
	size, err2 := parseNumber(second)
	if err1 != nil || err2 != nil || n > 1<<31-1 {
		return 0, 0, ErrListing
	}
	return int(n), size, nil
}

// parseNumber takes digits only.
func parseNumber(s string) (int64, error) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, ErrListing
	}
	return strconv.ParseInt(s, 10, 64)
}

// ParseUniqueID parses one line of UIDL: "1 whqtswO00WBw418f9t5JxYwZ".
func ParseUniqueID(line string) (UniqueID, error) {
	first, rest, _ := strings.Cut(line, " ")
	id, _, _ := strings.Cut(rest, " ")
	n, err := parseNumber(first)
	if err != nil || n < 1 || n > 1<<31-1 || !ValidUniqueID(id) {
		return UniqueID{}, ErrListing
	}
	return UniqueID{int(n), id}, nil
}

// ValidUniqueID reports whether s can be a unique-id (RFC 1939 §7).
func ValidUniqueID(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 70
}
