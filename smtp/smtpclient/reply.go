package smtpclient

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/postrider/postrider/smtp"
)

// What a reply may be at most. RFC 5321 §4.5.3.1.5 allows 512 octets a line.
const (
	readBuffer    = 4096 // also the longest line, CRLF included
	maxReplyLines = 128
	maxReplyText  = 16 << 10
)

// readReply reads one reply. The code is that of its last line. The enhanced
// code is taken out of the text where it agrees with the code. Control
// characters become "?", since the text ends up in logs and notices.
func readReply(br *bufio.Reader) (smtp.Reply, error) {
	var r smtp.Reply
	var text strings.Builder
	for n := 0; ; n++ {
		line, err := br.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				err = violation("reply line over %d octets", readBuffer)
			} else if errors.Is(err, io.EOF) && (n > 0 || len(line) > 0) {
				err = io.ErrUnexpectedEOF
			}
			return smtp.Reply{}, err
		}
		line = line[:len(line)-1]
		if len(line) > 0 && line[len(line)-1] == '\r' {
			line = line[:len(line)-1]
		}
		code, more, rest, ok := cutCode(line)
		if !ok {
			return smtp.Reply{}, violation("malformed reply line %q", clip(line))
		}
		r.Code = code
		if e, after, ok := cutEnhanced(code, rest); ok {
			r.Enhanced, rest = e, after
		}
		if n == 0 && !more {
			r.Text = clean(rest)
			return r, nil
		}
		if n == maxReplyLines || text.Len()+len(rest) > maxReplyText {
			return smtp.Reply{}, violation("endless reply")
		}
		if n > 0 {
			text.WriteByte('\n')
		}
		text.WriteString(clean(rest))
		if !more {
			r.Text = text.String()
			return r, nil
		}
	}
}

func clip(b []byte) []byte { return b[:min(len(b), 64)] }

// cutCode splits a reply line. "250" alone is a reply too (RFC 5321 §4.2).
func cutCode(line []byte) (code int, more bool, rest []byte, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, false, nil, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, nil, false
		}
		code = code*10 + int(c-'0')
	}
	if len(line) == 3 {
		return code, false, nil, true
	}
	switch line[3] {
	case ' ':
		return code, false, line[4:], true
	case '-':
		return code, true, line[4:], true
	}
	return 0, false, nil, false
}

// cutEnhanced splits an enhanced code (RFC 2034 §4) off a reply's text.
func cutEnhanced(code int, text []byte) (smtp.EnhancedCode, []byte, bool) {
	var e smtp.EnhancedCode
	if code/100 == 3 || len(text) < 5 || int(text[0]-'0') != code/100 || text[1] != '.' {
		return e, nil, false
	}
	e[0] = uint16(code / 100)
	i := 2
	for part := 1; part <= 2; part++ {
		start := i
		for i < len(text) && i-start < 3 && text[i] >= '0' && text[i] <= '9' {
			e[part] = e[part]*10 + uint16(text[i]-'0')
			i++
		}
		if i == start {
			return smtp.EnhancedCode{}, nil, false
		}
		if part == 1 {
			if i == len(text) || text[i] != '.' {
				return smtp.EnhancedCode{}, nil, false
			}
			i++
		}
	}
	if i < len(text) {
		if text[i] != ' ' {
			return smtp.EnhancedCode{}, nil, false
		}
		i++
	}
	return e, text[i:], true
}

func clean(b []byte) string {
	ok := true
	for _, c := range b {
		if c < 0x20 || c >= 0x7f {
			ok = false
			break
		}
	}
	if ok {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		c, n := utf8.DecodeRune(b)
		switch {
		case c == '\t':
			s.WriteByte(' ')
		case c < 0x20 || c == 0x7f || c >= 0x80 && c < 0xa0 || c == utf8.RuneError && n == 1 || c == 0x2028 || c == 0x2029:
			s.WriteByte('?')
		default:
			s.WriteRune(c)
		}
		b = b[n:]
	}
	return s.String()
}
