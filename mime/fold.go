package mime

import (
	"strings"
	"unicode/utf8"
)

const (
	foldColumns = 78  // RFC 5322 §2.1.1: what lines should keep to
	lineLimit   = 998 // and what they must
)

// folder writes one field, breaking it before white space.
type folder struct {
	dst []byte
	col int
	err error

	utf8 bool // UTF-8 may stand as it is
}

// begin writes the name and the colon.
func (f *folder) begin(name string) {
	if !validName(name) {
		f.err = ErrInjection
		return
	}
	f.dst = append(f.dst, name...)
	f.dst = append(f.dst, ':', ' ')
	f.col = len(name) + 2
}

// word writes one word with the white space before it; sep is "" only for the
// first one.
func (f *folder) word(sep, w string) {
	if f.col+len(sep)+len(w) > foldColumns && sep != "" || f.col+len(w) > lineLimit {
		if sep == "" {
			// Too long even for the first line: the name stands alone there.
			f.dst = f.dst[:len(f.dst)-1]
			sep = " "
		}
		f.dst = append(f.dst, "\r\n"...)
		f.col = 0
	}
	f.dst = append(append(f.dst, sep...), w...)
	if f.col += len(sep) + len(w); f.col > lineLimit {
		f.err = ErrLineLength
	}
}

// words writes text that has white space in it already, as it is.
func (f *folder) words(sep, s string) {
	for s != "" {
		var w string
		w, s = cutWord(s)
		f.word(sep, w)
		sep, s = cutSpace(s)
	}
}

func (f *folder) end() { f.dst = append(f.dst, "\r\n"...) }

// cutWord returns s up to white space, and the rest.
func cutWord(s string) (word, rest string) {
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// cutSpace returns the white space that s begins with, and the rest.
func cutSpace(s string) (space, rest string) {
	i := 0
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return s[:i], s[i:]
}

func validName(name string) bool {
	for i := 0; i < len(name); i++ {
		if !isNameByte(name[i]) || name[i] >= 0x80 {
			return false
		}
	}
	return name != "" && len(name) < foldColumns
}

// appendField writes a field with its CRLF; see Header.Set.
func appendField(dst []byte, name, value string) ([]byte, error) {
	if strings.ContainsAny(value, "\r\n\x00") {
		return nil, ErrInjection
	}
	f := folder{dst: dst}
	f.begin(name)
	value = strings.Trim(value, " \t")
	if structured(name) {
		f.words("", toUTF8(value))
	} else {
		f.text(value, false)
	}
	f.end()
	if f.err != nil {
		return nil, f.err
	}
	return f.dst, nil
}

// text writes unstructured text; words that are not ASCII, and the space
// between two of those, become encoded words. With literal, so do words that
// look like an encoded word, because they are none.
func (f *folder) text(s string, literal bool) {
	sep := ""
	for s != "" {
		w, rest := cutWord(s)
		if !f.needsEncoding(w, literal) {
			f.word(sep, w)
			sep, s = cutSpace(rest)
			continue
		}
		end := len(w)
		for {
			space, after := cutSpace(s[end:])
			next, _ := cutWord(after)
			if next == "" || !f.needsEncoding(next, literal) {
				break
			}
			end += len(space) + len(next)
		}
		var buf [256]byte
		f.words(sep, string(appendWords(buf[:0], toUTF8(s[:end]), f.col+len(sep))))
		sep, s = cutSpace(s[end:])
	}
}

func (f *folder) needsEncoding(w string, literal bool) bool {
	raw := f.utf8 && utf8.ValidString(w)
	for i := 0; i < len(w); i++ {
		if (w[i] >= 0x7f || w[i] < ' ') && (!raw || w[i] < 0x80) {
			return true
		}
	}
	return len(w) >= lineLimit || literal && strings.Contains(w, "=?")
}

// structured reports fields with a syntax in which an encoded word may not
// stand just anywhere.
func structured(name string) bool {
	switch lower(name) {
	case "from", "sender", "reply-to", "to", "cc", "bcc",
		"message-id", "in-reply-to", "references", "content-id",
		"date", "mime-version", "content-type", "content-disposition",
		"content-transfer-encoding", "content-language", "content-location",
		"return-path", "received", "received-spf", "delivered-to",
		"disposition-notification-to", "original-recipient", "auto-submitted",
		"authentication-results", "dkim-signature", "arc-seal",
		"arc-message-signature", "arc-authentication-results",
		"list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post",
		"list-subscribe", "list-post", "list-owner", "list-archive":
		return true
	}
	return len(name) > 7 && equalFold(name[:7], "resent-")
}
