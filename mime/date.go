package mime

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrDate says that a text holds no date.
var ErrDate = errors.New("mime: not a date")

// FormatDate writes t as RFC 5322 §3.3 has it, in the time zone of t.
func FormatDate(t time.Time) string { return t.Format("Mon, 2 Jan 2006 15:04:05 -0700") }

// ParseDate reads a date in the syntax of RFC 5322 §3.3, the obsolete one of
// §4.3 (years of two digits, named zones, comments) and what else is found in
// mail: no day of the week or a wrong one, month and year in either order of
// asctime, missing seconds or zone (taken as +0000). The error wraps
// [ErrDate].
func ParseDate(s string) (time.Time, error) {
	t, ok := parseDate(s)
	if !ok {
		if len(s) > 80 {
			s = s[:80]
		}
		return time.Time{}, fmt.Errorf("%w: %q", ErrDate, s)
	}
	return t, nil
}

// What is read of a text; a date has seven words, besides comments.
const (
	dateTokens = 12
	maxDate    = 512
)

func parseDate(s string) (time.Time, bool) {
	s = s[:min(len(s), maxDate)]
	var words [dateTokens]string
	n := 0
	for n < len(words) {
		var w string
		w, s = dateWord(s)
		if w == "" {
			break
		}
		words[n] = w
		n++
	}
	day, year, month := -1, -1, time.Month(0)
	var hour, minute, sec int
	var haveTime, haveZone bool
	offset := 0
	for i := 0; i < n; i++ {
		w := words[i]
		switch c := w[0]; {
		case c == '+' || c == '-':
			if o, ok := numericZone(w); ok && haveTime && !haveZone {
				offset, haveZone = o, true
			}
		case c >= '0' && c <= '9':
			switch {
			case strings.IndexByte(w, ':') > 0:
				if haveTime {
					continue
				}
				var ok bool
				if hour, minute, sec, ok = clock(w); !ok {
					return time.Time{}, false
				}
				haveTime = true
			case day < 0:
				d, rest := number(w)
				if rest == "-" || len(rest) > 1 && rest[0] == '-' {
					// 21-Nov-1997 as one word.
					m, y, ok := strings.Cut(rest[1:], "-")
					if !ok {
						return time.Time{}, false
					}
					month = monthOf(m)
					if year, ok = yearOf(y); !ok || month == 0 {
						return time.Time{}, false
					}
					rest = ""
				}
				if rest != "" {
					return time.Time{}, false
				}
				day = d
			case month == 0:
				return time.Time{}, false
			case year < 0:
				y, ok := yearOf(w)
				if !ok {
					return time.Time{}, false
				}
				year = y
			}
		default:
			switch {
			case month == 0 && monthOf(w) != 0:
				month = monthOf(w)
			case month == 0 && day < 0:
				// The day of the week; whether it is the right one tells nothing.
			case month == 0:
				return time.Time{}, false
			case haveTime && !haveZone && c != '(':
				if o, ok := namedZone(w); ok {
					offset, haveZone = o, true
				}
			}
		}
	}
	if day < 1 || day > 31 || month == 0 || year < 0 {
		return time.Time{}, false
	}
	loc := time.UTC
	if offset != 0 {
		loc = time.FixedZone("", offset)
	}
	t := time.Date(year, month, day, hour, minute, sec, 0, loc)
	if sec != 60 && t.Day() != day {
		return time.Time{}, false // 31 April
	}
	return t, true
}

// dateWord cuts the next word off; comments, commas and space are skipped.
func dateWord(s string) (word, rest string) {
	for s != "" {
		switch s[0] {
		case ' ', '\t', '\r', '\n', ',':
			s = s[1:]
		case '(':
			end := commentEnd(s)
			if end < 0 {
				return "", ""
			}
			s = s[end:]
		default:
			i := 1
			for i < len(s) && !strings.ContainsRune(" \t\r\n,(", rune(s[i])) {
				// A zone may stick to the time: 10:00:00+0200.
				if (s[i] == '+' || s[i] == '-') && strings.IndexByte(s[:i], ':') > 0 {
					break
				}
				i++
			}
			return s[:i], s[i:]
		}
	}
	return "", ""
}

func number(s string) (n int, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' && i < 6 {
		n = n*10 + int(s[i]-'0')
		i++
	}
	return n, s[i:]
}

// yearOf reads a year; RFC 5322 §4.3 says what two and three digits mean.
func yearOf(s string) (int, bool) {
	n, rest := number(s)
	if rest != "" || s == "" {
		return 0, false
	}
	switch {
	case len(s) == 2 && n < 50:
		n += 2000
	case len(s) == 2 || len(s) == 3:
		n += 1900
	case len(s) < 2 || len(s) > 4:
		return 0, false
	}
	return n, true
}

func clock(s string) (h, m, sec int, ok bool) {
	h, rest := number(s)
	if rest == "" || rest[0] != ':' {
		return 0, 0, 0, false
	}
	m, rest = number(rest[1:])
	if rest != "" && (rest[0] == ':' || rest[0] == '.') {
		sec, rest = number(rest[1:])
	}
	// Fractions of a second are left out.
	if rest != "" && rest[0] != '.' {
		return 0, 0, 0, false
	}
	return h, m, sec, h < 24 && m < 60 && sec <= 60
}

func monthOf(s string) time.Month {
	if len(s) < 3 {
		return 0
	}
	const names = "janfebmaraprmayjunjulaugsepoctnovdec"
	i := strings.Index(names, lower(s[:3]))
	if i < 0 || i%3 != 0 {
		return 0
	}
	m := time.Month(i/3 + 1)
	full := lower(strings.TrimSuffix(s, "."))
	if len(full) > 3 && !strings.HasPrefix(lower(m.String()), full) {
		return 0
	}
	return m
}

func numericZone(s string) (int, bool) {
	d := strings.Replace(s[1:], ":", "", 1)
	n, rest := number(d)
	if rest != "" || len(d) != 4 && len(d) != 2 {
		return 0, false
	}
	if len(d) == 2 {
		n *= 100
	}
	if n%100 > 59 || n/100 > 24 {
		return 0, false
	}
	o := (n/100*60 + n%100) * 60
	if s[0] == '-' {
		o = -o
	}
	return o, true
}

// namedZone knows the zones of RFC 5322 §4.3 and a few that are common; the
// military ones and any other name are -0000 there, so UTC here.
func namedZone(s string) (int, bool) {
	s = strings.ToUpper(s)
	for _, p := range [...]string{"GMT", "UTC", "UT"} {
		if rest, ok := strings.CutPrefix(s, p); ok && len(rest) > 1 && (rest[0] == '+' || rest[0] == '-') {
			return numericZone(rest)
		}
	}
	if len(s) == 7 && s[3] >= '0' && s[3] <= '9' {
		s = s[:3] // EST5EDT
	}
	hours := 0
	switch s {
	case "EDT":
		hours = -4
	case "EST", "CDT":
		hours = -5
	case "CST", "MDT":
		hours = -6
	case "MST", "PDT":
		hours = -7
	case "PST":
		hours = -8
	case "BST", "CET", "MET", "WEST":
		hours = 1
	case "CEST", "MEST", "EET":
		hours = 2
	case "EEST", "MSK":
		hours = 3
	case "JST", "KST":
		hours = 9
	case "AM", "PM":
		return 0, false
	}
	return hours * 3600, true
}
