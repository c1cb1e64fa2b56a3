package canon

import (
	"bytes"
	"regexp"
	"testing"
)

var (
	fold  = regexp.MustCompile("\r\n")
	space = regexp.MustCompile("[ \t]+")
)

// relaxed is RFC 6376 §3.4.2 to the letter.
func relaxed(raw []byte) []byte {
	name, value, _ := bytes.Cut(bytes.TrimSuffix(raw, []byte(CRLF)), []byte(":"))
	name = bytes.TrimRight(name, " \t\r\n")
	lower := make([]byte, len(name))
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	value = space.ReplaceAll(fold.ReplaceAll(value, nil), []byte(" "))
	return append(append(append(lower, ':'), bytes.Trim(value, " ")...), CRLF...)
}

func FuzzAppendField(f *testing.F) {
	for _, s := range []string{"Subject: a  b\r\n", "SUBJect \t: \r\n\t a \t\r\n b\t \r\n", "A:\r\n", "A", "A:x\ry\nz \x00 \x7f\x80\r", "A:\r\n\r\n \r\r\n", ": :\t:"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, want := AppendField([]byte("before"), raw, true), relaxed(raw); string(got) != "before"+string(want) {
			t.Fatalf("%q is %q, want %q", raw, got[len("before"):], want)
		}
	})
}
