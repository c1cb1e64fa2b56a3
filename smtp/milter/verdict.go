package milter

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/postrider/postrider/smtp"
)

// verdict is what a filter says at a step.
type verdict struct {
	kind byte  // repContinue, repAccept, repDiscard, repSkip, or repReject with err
	err  error // the reply
}

// judge reads an answer that ends a step.
func judge(cmd byte, data []byte) (verdict, error) {
	switch cmd {
	case repContinue, repAccept, repDiscard, repSkip:
		return verdict{kind: cmd}, nil
	case repReject:
		return refuse(550, smtp.EnhancedCode{5, 7, 1}, "Rejected by a mail filter"), nil
	case repTempfail:
		return refuse(451, smtp.EnhancedCode{4, 7, 1}, "Service unavailable, try again later"), nil
	case repShutdown, repConnFail:
		return refuse(421, smtp.EnhancedCode{4, 7, 1}, "Service unavailable, closing connection"), nil
	case repReply:
		s, err := stringsOf(data, 1, 1)
		if err != nil {
			return verdict{}, err
		}
		e, ok := parseReply(s[0])
		if !ok {
			return verdict{}, fmt.Errorf("%w: reply %q", ErrProtocol, s[0])
		}
		return verdict{repReject, e}, nil
	}
	return verdict{}, fmt.Errorf("%w: unexpected %q", ErrProtocol, cmd)
}

func refuse(code int, enhanced smtp.EnhancedCode, text string) verdict {
	return verdict{repReject, &smtp.Error{Code: code, Enhanced: enhanced, Text: text}}
}

// parseReply reads "550 5.7.1 text", or several lines of that with one code.
func parseReply(s string) (*smtp.Error, bool) {
	if len(s) < 3 {
		return nil, false
	}
	code, err := strconv.Atoi(s[:3])
	if err != nil || code < 400 || code > 599 {
		return nil, false
	}
	e := &smtp.Error{Code: code}
	var lines []string
	for line := range strings.Lines(s) {
		line = strings.TrimRight(line, "\r\n")
		if len(lines) == 20 {
			break
		}
		if rest, ok := strings.CutPrefix(line, s[:3]); ok && (rest == "" || rest[0] == ' ' || rest[0] == '-') {
			line = strings.TrimPrefix(strings.TrimPrefix(rest, "-"), " ")
		}
		word, rest, _ := strings.Cut(line, " ")
		if x, ok := parseEnhanced(word); ok && int(x[0]) == code/100 {
			e.Enhanced, line = x, rest
		}
		// libmilter wants "%" doubled.
		lines = append(lines, clean(strings.ReplaceAll(line, "%%", "%")))
	}
	e.Text = strings.Trim(strings.Join(lines, "\n"), "\n")
	return e, true
}

func parseEnhanced(s string) (x smtp.EnhancedCode, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return x, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n > 999 {
			return smtp.EnhancedCode{}, false
		}
		x[i] = uint16(n)
	}
	return x, true
}

// clean keeps text printable and a line short.
func clean(s string) string {
	b := []byte(s[:min(len(s), 400)])
	for i, ch := range b {
		if ch < ' ' || ch >= 0x7f {
			b[i] = '?'
		}
	}
	return string(b)
}
