package mbox

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/mime"
)

// ErrFormat says that a file is no mbox: its first line does not begin with
// "From ".
var ErrFormat = errors.New("mbox: no From_ line")

// Format is how an mbox tells where a message ends.
type Format uint8

// The formats.
const (
	// Auto is for reading: Content-Length is believed where a From_ line or
	// the end of the file stands where it says, and else the file is read as
	// RD. A Writer takes it for RD.
	Auto Format = iota
	// RD is mboxrd: lines of the message that begin with "From ", or with
	// any number of ">" and that, get one more ">". Nothing is lost. Files
	// of the older mboxo, where only "From " is quoted, are read with it.
	RD
	// CL2 is mboxcl2: a Content-Length field says how long the body is, and
	// nothing is quoted.
	CL2
	// CL is for reading: both quoted and with Content-Length.
	CL
)

// maxHeader is how much of a header is looked at for Content-Length and
// flags, in octets.
const maxHeader = 256 << 10

// separator is what a From_ line says.
type separator struct {
	from string
	date time.Time
}

// parseSeparator reads a From_ line without its line end; false when it is
// text that happens to begin with "From ".
func parseSeparator(line []byte) (separator, bool) {
	var s separator
	rest, ok := bytes.CutPrefix(line, []byte("From "))
	if !ok {
		return s, false
	}
	text := strings.TrimSpace(string(rest))
	end := strings.IndexAny(text, " \t")
	if strings.HasPrefix(text, `"`) {
		// A quoted local part may have spaces.
		if q := strings.Index(text[1:], `"@`); q >= 0 {
			end = strings.IndexAny(text[q+1:], " \t")
			if end >= 0 {
				end += q + 1
			}
		}
	}
	date := ""
	if end < 0 {
		end = len(text)
	} else {
		date = text[end:]
	}
	if s.from = text[:end]; s.from == "-" || s.from == "MAILER-DAEMON" {
		s.from = ""
	}
	date, _, _ = strings.Cut(date, " remote from ")
	if date = strings.TrimSpace(date); date == "" {
		return s, text == "" || text == "-"
	}
	t, err := mime.ParseDate(date)
	if err != nil {
		// No date is like another, but each has a time and a number.
		return s, clock(date)
	}
	s.date = t
	return s, true
}

// clock reports whether s has the time of a day, 15:04, and words before it.
func clock(s string) bool {
	for i := 2; i+2 < len(s); i++ {
		if s[i] == ':' && digit(s[i-1]) && digit(s[i+1]) && digit(s[i+2]) {
			return strings.ContainsAny(s[:i], " \t") && len(s) < 80
		}
	}
	return false
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// quoted reports whether line begins with any number of ">" and "From ".
func quoted(line []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From "))
}

// The fields in which mailbox programs keep flags: letters and IMAP flags.
var statusFlags = [...]struct {
	field  string
	letter byte
	flag   string
}{
	{"Status", 'R', `\Seen`},
	{"X-Status", 'A', `\Answered`},
	{"X-Status", 'F', `\Flagged`},
	{"X-Status", 'T', `\Draft`},
	{"X-Status", 'D', `\Deleted`},
}

// takeFlags returns the flags of a header block and the block without the
// fields that hold them, and without Content-Length if that is asked for.
func takeFlags(block []byte, contentLength bool) (flags []string, rest []byte) {
	h := mime.ParseHeader(block)
	for _, f := range statusFlags {
		if strings.IndexByte(h.Get(f.field), f.letter) >= 0 {
			flags = append(flags, f.flag)
		}
	}
	for k := range strings.FieldsSeq(h.Get("X-Keywords")) {
		if !slices.Contains(flags, k) {
			flags = append(flags, k)
		}
	}
	return flags, without(block, &h, contentLength)
}

// without returns a block without the fields that belong to the format.
func without(block []byte, h *mime.Header, contentLength bool) []byte {
	changed := false
	for _, name := range []string{"Status", "X-Status", "X-Keywords", "Content-Length"} {
		if (name != "Content-Length" || contentLength) && h.Has(name) {
			h.Del(name)
			changed = true
		}
	}
	if !changed {
		return block
	}
	return slices.Concat(h.Bytes(), block[headerLen(block):])
}

// headerLen returns where the fields of a block end: before its empty line.
func headerLen(block []byte) int {
	switch {
	case string(block) == "\n" || string(block) == "\r\n":
		return 0
	case bytes.HasSuffix(block, []byte("\n\r\n")):
		return len(block) - 2
	case bytes.HasSuffix(block, []byte("\n\n")):
		return len(block) - 1
	}
	return len(block)
}
