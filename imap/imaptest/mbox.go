package imaptest

import (
	"strings"
	"time"
)

// Message is one message of a mailbox file.
type Message struct {
	Text string    // with CRLF line ends
	Date time.Time // of its From line; zero = none
}

// ParseMbox splits a mailbox file at its From lines. The empty line before
// the next one is not part of a message.
func ParseMbox(data []byte) []Message {
	var msgs []Message
	var body []string
	var date time.Time
	flush := func() {
		if body == nil {
			return
		}
		if n := len(body); n > 0 && body[n-1] == "" {
			body = body[:n-1]
		}
		msgs = append(msgs, Message{Text: strings.Join(body, "\r\n") + "\r\n", Date: date})
	}
	empty := true
	lines := strings.Split(string(data), "\n")
	if n := len(lines); n > 0 && lines[n-1] == "" {
		lines = lines[:n-1]
	}
	for _, line := range lines {
		line = strings.TrimSuffix(line, "\r")
		if rest, ok := strings.CutPrefix(line, "From "); ok && empty {
			flush()
			body, date = []string{}, fromDate(rest)
			continue
		}
		if body != nil {
			body = append(body, line)
		}
		empty = line == ""
	}
	flush()
	return msgs
}

// fromDate reads the date of "user@domain  Fri Feb 22 17:06:23 2008".
func fromDate(s string) time.Time {
	_, rest, _ := strings.Cut(s, " ")
	f := strings.Fields(rest)
	if len(f) < 5 {
		return time.Time{}
	}
	t, err := time.Parse("Mon Jan 2 15:04:05 2006", strings.Join(f[:5], " "))
	if err != nil {
		return time.Time{}
	}
	return t
}
