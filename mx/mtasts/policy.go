package mtasts

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// ErrPolicy is wrapped by what [ParsePolicy] returns.
var ErrPolicy = errors.New("mtasts: malformed policy")

// Mode says what a policy that is not met means (RFC 8461 §5).
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // no delivery to a host that does not meet it
	Testing Mode = "testing" // delivery, and a TLS report (RFC 8460)
	None    Mode = "none"    // there is no policy any more
)

// Policy is what a domain promises of its hosts (RFC 8461 §3.2).
type Policy struct {
	Mode Mode
	// MX are the names of the hosts: A-labels, or "*." and the labels
	// behind one.
	MX []string
	// MaxAge is how long the policy may be kept, at most 31,557,600 s; it is
	// written in whole seconds.
	MaxAge time.Duration
}

const (
	// maxPolicy is the size that RFC 8461 §3.3 suggests, in octets.
	maxPolicy = 64 << 10
	maxMX     = 1000
	maxMaxAge = 31_557_600 * time.Second
)

// ParsePolicy reads a policy file. Unknown keys are passed over; of a key
// that comes twice, other than mx, the first counts. A MaxAge over the largest
// that may be is the largest.
func ParsePolicy(text string) (*Policy, error) {
	if len(text) > maxPolicy {
		return nil, fmt.Errorf("%w: larger than %d octets", ErrPolicy, maxPolicy)
	}
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrPolicy)
	}
	p := &Policy{MaxAge: -1}
	version := ""
	for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n \t"), "\n") {
		line = strings.TrimRight(line, "\r \t")
		key, value, ok := strings.Cut(line, ":")
		value = strings.TrimLeft(value, " \t")
		if !ok || !isName(key) || value == "" || strings.ContainsFunc(value, isControl) {
			return nil, fmt.Errorf("%w: line %q", ErrPolicy, line)
		}
		switch key {
		case "version":
			if version == "" {
				version = value
			}
		case "mode":
			if p.Mode == "" {
				p.Mode = Mode(value)
			}
		case "max_age":
			if p.MaxAge >= 0 {
				continue
			}
			n, err := strconv.ParseUint(value, 10, 63)
			if err != nil || len(value) > 10 {
				return nil, fmt.Errorf("%w: max_age %q is not up to ten digits", ErrPolicy, value)
			}
			p.MaxAge = time.Duration(min(n, uint64(maxMaxAge/time.Second))) * time.Second
		case "mx":
			name, ok := pattern(value)
			if !ok {
				return nil, fmt.Errorf("%w: mx %q is no name", ErrPolicy, value)
			}
			if len(p.MX) < maxMX {
				p.MX = append(p.MX, name)
			}
		}
	}
	switch {
	case version != "STSv1":
		return nil, fmt.Errorf("%w: version %q", ErrPolicy, version)
	case p.Mode != Enforce && p.Mode != Testing && p.Mode != None:
		return nil, fmt.Errorf("%w: mode %q", ErrPolicy, p.Mode)
	case p.MaxAge < 0:
		return nil, fmt.Errorf("%w: no max_age", ErrPolicy)
	case len(p.MX) == 0 && p.Mode != None:
		return nil, fmt.Errorf("%w: no mx", ErrPolicy)
	}
	return p, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// pattern checks an mx value and returns it in lower case. U-labels are taken
// too: what they stand for is clear.
func pattern(s string) (string, bool) {
	rest, wild := strings.CutPrefix(s, "*.")
	rest, err := idna.Lookup.ToASCII(strings.TrimSuffix(rest, "."))
	if err != nil || rest == "" || len(rest) > 253 {
		return "", false
	}
	if wild {
		return "*." + rest, true
	}
	return rest, true
}

// Match reports whether host, an A-label name in any case, is one of the
// policy's (RFC 8461 §4.1).
func (p *Policy) Match(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, above, _ := strings.Cut(host, ".")
	return slices.ContainsFunc(p.MX, func(m string) bool {
		if rest, wild := strings.CutPrefix(m, "*."); wild {
			return above == rest
		}
		return host == m
	})
}

// WriteTo writes the policy file.
func (p *Policy) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, p.String())
	return int64(n), err
}

// String returns the policy file.
func (p *Policy) String() string {
	var b strings.Builder
	b.WriteString("version: STSv1\r\nmode: " + string(p.Mode) + "\r\n")
	for _, m := range p.MX {
		b.WriteString("mx: " + m + "\r\n")
	}
	fmt.Fprintf(&b, "max_age: %d\r\n", int64(p.MaxAge/time.Second))
	return b.String()
}

// Record returns the record that announces the policy: its ID is made from
// the policy, so it changes when that does.
func (p *Policy) Record() Record {
	sum := sha256.Sum256([]byte(p.String()))
	return Record{ID: hex.EncodeToString(sum[:10])}
}
