package mtasts

import (
	"errors"
	"fmt"
	"strings"
)

// ErrRecord is wrapped by what [ParseRecord] returns.
var ErrRecord = errors.New("mtasts: malformed record")

// Record is the TXT record at "_mta-sts." and the domain (RFC 8461 §3.1).
type Record struct {
	// ID changes with each change of the policy: 1 to 32 letters and digits.
	ID string
}

const recordVersion = "v=STSv1"

// IsRecord reports whether a TXT record begins as one of MTA-STS does; others
// at the same name are no concern of ours.
func IsRecord(txt string) bool {
	rest, ok := strings.CutPrefix(txt, recordVersion)
	return ok && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";")
}

// ParseRecord reads a TXT record, its strings joined. Unknown fields are
// passed over; of a field that comes twice the first counts.
func ParseRecord(txt string) (Record, error) {
	if !IsRecord(txt) {
		return Record{}, fmt.Errorf("%w: does not begin with %q", ErrRecord, recordVersion+";")
	}
	var r Record
	fields := strings.Split(txt, ";")[1:]
	for i, f := range fields {
		f = strings.Trim(f, " \t")
		if f == "" {
			if i == len(fields)-1 {
				continue // a delimiter at the end
			}
			return Record{}, fmt.Errorf("%w: empty field", ErrRecord)
		}
		name, value, ok := strings.Cut(f, "=")
		if !ok || !isName(name) || !isValue(value) {
			return Record{}, fmt.Errorf("%w: field %q", ErrRecord, f)
		}
		if name != "id" || r.ID != "" {
			continue
		}
		if !isID(value) {
			return Record{}, fmt.Errorf("%w: id %q is not 1 to 32 letters and digits", ErrRecord, value)
		}
		r.ID = value
	}
	if r.ID == "" {
		return Record{}, fmt.Errorf("%w: no id", ErrRecord)
	}
	return r, nil
}

// String returns the text of the record.
func (r Record) String() string { return recordVersion + "; id=" + r.ID + ";" }

func isID(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 32
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// isName is sts-ext-name, and the names that are known.
func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && (i == 0 || c != '_' && c != '-' && c != '.') {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 32
}

// isValue is sts-ext-value.
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '=' || c == ';' {
			return false
		}
	}
	return s != ""
}
