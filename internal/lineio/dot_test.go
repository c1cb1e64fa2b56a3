package lineio

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDotReader(t *testing.T) {
	tests := []struct {
		name, in, want, rest string
		err, bad             error
		maxLine              int
	}{
		{name: "empty", in: ".\r\nNOOP", want: "", rest: "NOOP"},
		{name: "plain", in: "a\r\nb\r\n.\r\nrest", want: "a\r\nb\r\n", rest: "rest"},
		{name: "stuffed", in: "..\r\n..a\r\n.b\r\n.\r\n", want: ".\r\n.a\r\nb\r\n"},
		{name: "dots inside", in: "a.\r\n\r\n.\r\n", want: "a.\r\n\r\n"},
		{name: "cut at once", in: "", err: io.ErrUnexpectedEOF},
		{name: "cut in a line", in: "abc", want: "abc", err: io.ErrUnexpectedEOF},
		{name: "cut after a line", in: "abc\r\n", want: "abc\r\n", err: io.ErrUnexpectedEOF},
		{name: "cut after the dot", in: "abc\r\n.", want: "abc\r\n", err: io.ErrUnexpectedEOF},
		{name: "cut after dot CR", in: "abc\r\n.\r", want: "abc\r\n", err: io.ErrUnexpectedEOF},

		// Each of these has ended a message for some server, so that what
		// follows was taken for commands: none may end it here.
		{name: "LF dot LF", in: "a\n.\nb\r\n.\r\nrest", want: "a\n.\nb\r\n", bad: ErrBareLF, rest: "rest"},
		{name: "LF dot CRLF", in: "a\n.\r\nb\r\n.\r\nrest", want: "a\n.\r\nb\r\n", bad: ErrBareLF, rest: "rest"},
		{name: "CRLF dot LF", in: "a\r\n.\nb\r\n.\r\nrest", want: "a\r\n\nb\r\n", bad: ErrBareLF, rest: "rest"},
		{name: "CR dot CR", in: "a\r.\rb\r\n.\r\nrest", want: "a\r.\rb\r\n", bad: ErrBareCR, rest: "rest"},
		{name: "CRLF dot CR", in: "a\r\n.\rb\r\n.\r\nrest", want: "a\r\n\rb\r\n", bad: ErrBareCR, rest: "rest"},
		{name: "CR dot CRLF", in: "a\r.\r\nb\r\n.\r\nrest", want: "a\r.\r\nb\r\n", bad: ErrBareCR, rest: "rest"},
		{name: "LF dot CR LF after CR", in: "a\r\r\n.\r\nrest", want: "a\r\r\n", bad: ErrBareCR, rest: "rest"},
		{name: "dot CR CR LF", in: "a\r\n.\r\r\nb\r\n.\r\nrest", want: "a\r\n\r\r\nb\r\n", bad: ErrBareCR, rest: "rest"},
		{name: "NUL before dot", in: "a\r\n\x00.\r\nb\r\n.\r\nrest", want: "a\r\n\x00.\r\nb\r\n", bad: ErrNUL, rest: "rest"},
		{name: "CR NUL LF", in: "a\r\x00\n.\r\nb\r\n.\r\nrest", want: "a\r\x00\n.\r\nb\r\n", bad: ErrBareLF, rest: "rest"},

		{name: "line at the limit", in: "12345678\r\n.\r\n", want: "12345678\r\n", maxLine: 10},
		{name: "line over the limit", in: "123456789\r\n.\r\n", want: "123456789\r\n", maxLine: 10, bad: ErrTooLong},
	}
	for _, tt := range tests {
		for _, via := range []string{"whole", "octet by octet", "small reads", "next"} {
			t.Run(tt.name+"/"+via, func(t *testing.T) {
				var src io.Reader = strings.NewReader(tt.in)
				if via == "octet by octet" {
					src = iotest.OneByteReader(src)
				}
				r := NewReader(src, 16)
				d := NewDotReader(r, tt.maxLine)
				var got []byte
				var err error
				switch via {
				case "small reads":
					got, err = io.ReadAll(iotest.OneByteReader(d))
				case "next":
					for {
						var b []byte
						if b, err = d.Next(3); err != nil {
							break
						}
						if len(b) == 0 || len(b) > 3 {
							t.Fatalf("Next(3) gave %d octets", len(b))
						}
						got = append(got, b...)
					}
					if errors.Is(err, io.EOF) {
						err = nil
					}
				default:
					got, err = io.ReadAll(d)
				}
				if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if string(got) != tt.want && !(tt.err != nil && strings.HasPrefix(string(got), tt.want)) {
					t.Errorf("read %q, want %q", got, tt.want)
				}
				if !errors.Is(d.Bad, tt.bad) && !(tt.bad != nil && d.Bad != nil) {
					t.Errorf("Bad = %v, want %v", d.Bad, tt.bad)
				}
				if tt.err == nil {
					if _, err := d.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
						t.Errorf("second EOF: %v", err)
					}
					rest, _ := io.ReadAll(r)
					if string(rest) != tt.rest {
						t.Errorf("left behind %q, want %q", rest, tt.rest)
					}
				}
			})
		}
	}
}

func TestDotReaderSkip(t *testing.T) {
	in := strings.Repeat("0123456789\r\n", 100) + ".\r\nQUIT"
	r := NewReader(strings.NewReader(in), 64)
	if n, err := NewDotReader(r, 0).Skip(0); n != 1200 || err != nil {
		t.Fatal(n, err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "QUIT" {
		t.Errorf("rest %q", rest)
	}
	r = NewReader(strings.NewReader(in), 64)
	if _, err := NewDotReader(r, 0).Skip(1000); !errors.Is(err, ErrTooLong) {
		t.Errorf("Skip over the limit: %v", err)
	}
	r = NewReader(strings.NewReader("abc\r\n"), 64)
	if _, err := NewDotReader(r, 0).Skip(0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Skip of a cut message: %v", err)
	}
}

func TestDotWriter(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ".\r\n"},
		{"a", "a\r\n.\r\n"},
		{"a\r\n", "a\r\n.\r\n"},
		{".", "..\r\n.\r\n"},
		{".\r\n.\r\n", "..\r\n..\r\n.\r\n"},
		{"..a\r\n", "...a\r\n.\r\n"},
		{"a\nb\n", "a\r\nb\r\n.\r\n"},
		{"a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"},
		{"a\rb", "a\r\nb\r\n.\r\n"},
		{"a\r.\rb\r", "a\r\n..\r\nb\r\n.\r\n"},
		{"\r\r\n\n", "\r\n\r\n\r\n.\r\n"},
		{"\n.", "\r\n..\r\n.\r\n"},
	}
	for _, tt := range tests {
		for split := 0; split <= len(tt.in); split++ {
			var b bytes.Buffer
			w := bufio.NewWriterSize(&b, 16)
			d := NewDotWriter(w)
			for _, part := range []string{tt.in[:split], tt.in[split:]} {
				if n, err := d.Write([]byte(part)); n != len(part) || err != nil {
					t.Fatalf("Write %q: %d, %v", part, n, err)
				}
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			w.Flush()
			if b.String() != tt.want {
				t.Errorf("%q split at %d: %q, want %q", tt.in, split, b.String(), tt.want)
			}
		}
	}
}

type failingWriter struct{ n int }

var errFull = errors.New("full")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestDotWriterError(t *testing.T) {
	d := NewDotWriter(bufio.NewWriterSize(&failingWriter{10}, 16))
	var err error
	for range 10 {
		if _, err = d.Write([]byte("12345678\n")); err != nil {
			break
		}
	}
	if !errors.Is(err, errFull) {
		t.Errorf("error %v", err)
	}
	if err := d.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close: %v", err)
	}
}

// FuzzDot writes any octets with DotWriter and reads them back: what was
// CRLF text comes back as it was, and what follows stays untouched.
func FuzzDot(f *testing.F) {
	for _, s := range []string{"", ".", "a\r\n.b\r\n", "a\n.\nb", "\r.\r", "..\r\n\r\n", "a\x00b", strings.Repeat("x", 40) + "\r\n."} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		var wire bytes.Buffer
		w := bufio.NewWriterSize(&wire, 16)
		d := NewDotWriter(w)
		k := min(int(cut), len(in))
		d.Write(in[:k])
		d.Write(in[k:])
		d.Close()
		w.WriteString("NOOP\r\n")
		w.Flush()
		r := NewReader(&wire, 16)
		dr := NewDotReader(r, 0)
		got, err := io.ReadAll(dr)
		if err != nil {
			t.Fatalf("read back: %v", err)
		}
		want := normalize(in)
		if !bytes.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if dr.Bad != nil && !errors.Is(dr.Bad, ErrNUL) {
			t.Errorf("Bad = %v in what DotWriter wrote", dr.Bad)
		}
		if line, err := r.ReadLine(100); string(line) != "NOOP" || err != nil {
			t.Errorf("next line %q, %v", line, err)
		}
	})
}

// normalize is DotWriter's promise, written plainly.
func normalize(in []byte) []byte {
	var out []byte
	for i := 0; i < len(in); i++ {
		switch {
		case in[i] == '\r' && i+1 < len(in) && in[i+1] == '\n':
			i++
			out = append(out, "\r\n"...)
		case in[i] == '\r' || in[i] == '\n':
			out = append(out, "\r\n"...)
		default:
			out = append(out, in[i])
		}
	}
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	return out
}

// FuzzDotReader reads any octets and compares with the definition: the first
// CRLF.CRLF is the end, and it alone.
func FuzzDotReader(f *testing.F) {
	for _, s := range []string{".\r\n", "a\r\n.\r\nb", "a\n.\r\n\r\n.\r\n", "a\r\n.\n.\r\n\r\n.\r\n", "a\r\n.\r\r\n.\r\n", "\r\n..\r\n.\r\n"} {
		f.Add([]byte(s), uint8(16))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		r := NewReader(bytes.NewReader(in), int(size))
		d := NewDotReader(r, 0)
		got, err := io.ReadAll(d)
		end := bytes.Index(append([]byte("\r\n"), in...), []byte("\r\n.\r\n"))
		if end < 0 {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("no end in %q, yet error %v", in, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		body := in[:end]
		rest, _ := io.ReadAll(r)
		if want := in[end+3:]; !bytes.Equal(rest, want) {
			t.Errorf("left %q, want %q", rest, want)
		}
		want := bytes.ReplaceAll(append([]byte("\r\n"), body...), []byte("\r\n."), []byte("\r\n"))[2:]
		if !bytes.Equal(got, want) {
			t.Errorf("read %q, want %q", got, want)
		}
		clean := bytes.ReplaceAll(body, []byte("\r\n"), nil)
		if bad := bytes.ContainsAny(clean, "\r\n\x00"); bad != (d.Bad != nil) {
			t.Errorf("Bad = %v for %q", d.Bad, body)
		}
	})
}

func BenchmarkDotReader(b *testing.B) {
	msg := bytes.Repeat([]byte(strings.Repeat("x", 70)+"\r\n"), 1000)
	msg = append(msg, ".\r\n"...)
	src := bytes.NewReader(msg)
	r := NewReader(src, 16<<10)
	d := NewDotReader(r, 1000)
	buf := make([]byte, 32<<10)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(msg)
		r.Reset(src)
		d.Reset(r, 1000)
		for {
			if _, err := d.Read(buf); err != nil {
				break
			}
		}
	}
}

func BenchmarkDotWriter(b *testing.B) {
	msg := bytes.Repeat([]byte(strings.Repeat("x", 70)+"\r\n"), 1000)
	w := bufio.NewWriterSize(io.Discard, 16<<10)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		d := NewDotWriter(w)
		d.Write(msg)
		d.Close()
	}
}
