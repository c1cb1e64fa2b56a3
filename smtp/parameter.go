package smtp

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// ErrParameter is what the functions that read the value of a parameter
// return for one that is malformed.
var ErrParameter = errors.New("smtp: malformed parameter")

// maxBySeconds is the range of DELIVERBY and HOLDFOR: nine digits.
const maxBySeconds = 999999999

// ParseDeliverBy reads the value of BY (RFC 2852 §4), which counts from now.
func ParseDeliverBy(s string, now time.Time) (at time.Time, byReturn, byTrace bool, err error) {
	num, mode, ok := strings.Cut(s, ";")
	digits := num
	if len(digits) > 0 && (digits[0] == '-' || digits[0] == '+') {
		digits = digits[1:]
	}
	n, ok2 := parseDigits(digits, 9)
	if !ok || !ok2 {
		return time.Time{}, false, false, ErrParameter
	}
	if num[0] == '-' {
		n = -n
	}
	switch strings.ToUpper(mode) {
	case "N":
	case "NT":
		byTrace = true
	case "R":
		byReturn = true
	case "RT":
		byReturn, byTrace = true, true
	default:
		return time.Time{}, false, false, ErrParameter
	}
	if byReturn && n <= 0 {
		return time.Time{}, false, false, ErrParameter
	}
	return now.Add(time.Duration(n) * time.Second), byReturn, byTrace, nil
}

// DeliverByValue returns the value of BY, as the time that is left at now
// (RFC 2852 §4.1.4); "" when o has none. In mode R nothing may be left of the
// time: then the message is not to be sent.
func (o *MailOptions) DeliverByValue(now time.Time) string {
	if o.DeliverBy.IsZero() {
		return ""
	}
	left := min(max(o.DeliverBy.Sub(now)/time.Second, -maxBySeconds), maxBySeconds)
	s := strconv.FormatInt(int64(left), 10) + ";"
	if o.ByReturn {
		s += "R"
	} else {
		s += "N"
	}
	if o.ByTrace {
		s += "T"
	}
	return s
}

// ParseHoldFor reads the value of HOLDFOR (RFC 4865 §3), in seconds.
func ParseHoldFor(s string) (time.Duration, error) {
	n, ok := parseDigits(s, 9)
	if !ok || n == 0 {
		return 0, ErrParameter
	}
	return time.Duration(n) * time.Second, nil
}

// ParseHoldUntil reads the value of HOLDUNTIL (RFC 4865 §3), a date-time of
// RFC 3339.
func ParseHoldUntil(s string) (time.Time, error) { return parseDateTime(s) }

// HoldUntilValue returns the value of HOLDUNTIL, "" when o has none.
func (o *MailOptions) HoldUntilValue() string {
	if o.HoldUntil.IsZero() {
		return ""
	}
	// Never earlier than asked for.
	t := o.HoldUntil
	if t.Nanosecond() > 0 {
		t = t.Truncate(time.Second).Add(time.Second)
	}
	return t.UTC().Format(time.RFC3339)
}

// ParseFutureRelease reads what follows FUTURERELEASE in the reply to EHLO:
// the longest interval and the latest time (RFC 4865 §3).
func ParseFutureRelease(s string) (longest time.Duration, latest time.Time, err error) {
	a, b, _ := strings.Cut(s, " ")
	if longest, err = ParseHoldFor(a); err != nil {
		return 0, time.Time{}, err
	}
	latest, err = parseDateTime(b)
	return longest, latest, err
}

// FormatFutureRelease is the inverse of ParseFutureRelease.
func FormatFutureRelease(longest time.Duration, latest time.Time) string {
	return strconv.FormatInt(int64(min(longest/time.Second, maxBySeconds)), 10) + " " + latest.UTC().Format(time.RFC3339)
}

// ParsePriority reads the value of MT-PRIORITY (RFC 6710 §7).
func ParsePriority(s string) (int8, error) {
	digit := strings.TrimPrefix(s, "-")
	if len(digit) != 1 || digit[0] < '0' || digit[0] > '9' || s == "-0" {
		return 0, ErrParameter
	}
	n := int8(digit[0] - '0')
	if len(s) == 2 {
		n = -n
	}
	return n, nil
}

// ParseSolicit checks the value of SOLICIT, or what follows NO-SOLICITING:
// solicitation class keywords separated by commas (RFC 3865 §2.2), and
// returns it as it is.
func ParseSolicit(s string) (string, error) {
	if len(s) > 1000 {
		return "", ErrParameter
	}
	for word := range strings.SplitSeq(s, ",") {
		if word == "" || !isAlpha(word[0]) {
			return "", ErrParameter
		}
		for i := 1; i < len(word); i++ {
			if c := word[i]; !isAlpha(c) && !(c >= '0' && c <= '9') && c != '.' && c != '-' && c != '_' && c != ':' {
				return "", ErrParameter
			}
		}
	}
	return s, nil
}

// ParseValidSince reads the value of RRVS (RFC 7293 §3.1).
func ParseValidSince(s string) (since time.Time, relayUnchecked bool, err error) {
	date, action, has := strings.Cut(s, ";")
	switch {
	case !has || strings.EqualFold(action, "R"):
	case strings.EqualFold(action, "C"):
		relayUnchecked = true
	default:
		return time.Time{}, false, ErrParameter
	}
	since, err = parseDateTime(date)
	return since, relayUnchecked, err
}

// ValidSinceValue returns the value of RRVS, "" when o has none.
func (o *RcptOptions) ValidSinceValue() string {
	if o.ValidSince.IsZero() {
		return ""
	}
	s := o.ValidSince.UTC().Format(time.RFC3339)
	if o.RelayUnchecked {
		s += ";C"
	}
	return s
}

// Limits are what a server says of itself with LIMITS (RFC 9422 §5); 0 = not
// said.
type Limits struct {
	MailMax       int // transactions in one session
	RcptMax       int // recipients in one transaction
	RcptDomainMax int // domains among the recipients of one transaction
}

// ParseLimits reads what follows LIMITS in the reply to EHLO. As RFC 9422 §4
// asks, what it does not know, and what is malformed, it leaves out.
func ParseLimits(s string) (l Limits) {
	for item := range strings.FieldsSeq(s) {
		name, value, _ := strings.Cut(item, "=")
		// Six digits (RFC 9422 §5); more cannot be meant as a limit.
		n, ok := parseDigits(value, 6)
		if !ok || value[0] == '0' {
			continue
		}
		switch strings.ToUpper(name) {
		case "MAILMAX":
			l.MailMax = int(n)
		case "RCPTMAX":
			l.RcptMax = int(n)
		case "RCPTDOMAINMAX":
			l.RcptDomainMax = int(n)
		}
	}
	return l
}

// String returns l as it follows LIMITS, "" when l is zero.
func (l Limits) String() string {
	var b []byte
	for _, x := range [...]struct {
		name string
		n    int
	}{{"MAILMAX=", l.MailMax}, {"RCPTMAX=", l.RcptMax}, {"RCPTDOMAINMAX=", l.RcptDomainMax}} {
		if x.n <= 0 {
			continue
		}
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(append(b, x.name...), int64(min(x.n, 999999)), 10)
	}
	return string(b)
}

// ParseNotify reads the value of NOTIFY (RFC 3461 §4.1): NEVER, or a list of
// the others.
func ParseNotify(s string) (n Notify, err error) {
	for word := range strings.SplitSeq(s, ",") {
		bit := Notify(0)
		for i, name := range notifyNames {
			if strings.EqualFold(word, name) {
				bit = 1 << i
			}
		}
		if bit == 0 {
			return 0, ErrParameter
		}
		n |= bit
	}
	if n != NotifyNever && n&NotifyNever != 0 {
		return 0, ErrParameter
	}
	return n, nil
}

var notifyNames = [...]string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}

// String returns n as the value of NOTIFY, "" for 0. NEVER excludes the others.
func (n Notify) String() string {
	if n&NotifyNever != 0 {
		return notifyNames[0]
	}
	s, sep := "", ""
	for i, name := range notifyNames {
		if n&(1<<i) != 0 {
			s, sep = s+sep+name, ","
		}
	}
	return s
}

// parseDigits reads 1 to most digits.
func parseDigits(s string, most int) (int64, bool) {
	if s == "" || len(s) > most {
		return 0, false
	}
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// parseDateTime reads a date-time of RFC 3339 without fractions of a second.
func parseDateTime(s string) (time.Time, error) {
	if strings.ContainsAny(s, ".,") {
		return time.Time{}, ErrParameter
	}
	t, err := time.Parse(time.RFC3339, strings.ToUpper(s))
	if err != nil {
		return time.Time{}, ErrParameter
	}
	return t, nil
}

func isAlpha(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
