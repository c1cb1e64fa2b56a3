package lineio

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", 50)
	tests := []struct {
		name, in string
		limit    int
		want     []string // lines, or the error's text after "!"
	}{
		{"lines", "one\r\n\r\ntwo\r\n", 100, []string{"one", "", "two", "!EOF"}},
		{"cut", "one\r\ntw", 100, []string{"one", "!unexpected EOF"}},
		{"bare LF", "one\ntwo\r\n\nx\r\n", 100, []string{"!bare LF in line", "two", "!bare LF in line", "x", "!EOF"}},
		{"bare CR", "on\re\r\ntwo\r\n", 100, []string{"!bare CR in line", "two", "!EOF"}},
		{"CR CR LF", "one\r\r\ntwo\r\n", 100, []string{"!bare CR in line", "two", "!EOF"}},
		{"NUL", "on\x00e\r\ntwo\r\n", 100, []string{"!NUL in line", "two", "!EOF"}},
		{"at the limit", "12345678\r\n", 10, []string{"12345678", "!EOF"}},
		{"over the limit", "123456789\r\nx\r\n", 10, []string{"!line too long", "x", "!EOF"}},
		{"longer than the buffer", long + "\r\nx\r\n", 100, []string{long, "x", "!EOF"}},
		{"far over the limit", long + long + "\r\nx\r\n", 20, []string{"!line too long", "x", "!EOF"}},
		{"endless", strings.Repeat("x", SkipLimit+100), 20, []string{"!line without end: unexpected EOF"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, src := range []io.Reader{strings.NewReader(tt.in), iotest.HalfReader(strings.NewReader(tt.in))} {
				r := NewReader(src, 16)
				for _, want := range tt.want {
					line, err := r.ReadLine(tt.limit)
					got := string(line)
					if err != nil {
						got = "!" + err.Error()
					}
					if got != want {
						t.Fatalf("got %q, want %q", got, want)
					}
				}
			}
		})
	}
}

func TestReadLineError(t *testing.T) {
	boom := errors.New("boom")
	r := NewReader(iotest.ErrReader(boom), 16)
	if _, err := r.ReadLine(10); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
}

func FuzzReadLine(f *testing.F) {
	f.Add("one\r\ntwo\r\n", uint8(10))
	f.Add("\r\n\n\r\x00\r\n", uint8(2))
	f.Add(strings.Repeat("x", 100)+"\r\ny\r\n", uint8(20))
	f.Fuzz(func(t *testing.T, in string, limit uint8) {
		r := NewReader(strings.NewReader(in), 16)
		for range len(in) + 1 {
			line, err := r.ReadLine(int(limit))
			switch {
			case err == nil:
				if len(line)+2 > int(limit) || strings.ContainsAny(string(line), "\r\n\x00") {
					t.Fatalf("line %q with limit %d", line, limit)
				}
			case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
				return
			case errors.Is(err, ErrTooLong), errors.Is(err, ErrBareCR), errors.Is(err, ErrBareLF), errors.Is(err, ErrNUL):
			default:
				t.Fatal(err)
			}
		}
		t.Fatal("no end")
	})
}
