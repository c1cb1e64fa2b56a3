package imapwire

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/imap"
)

func decode(text string) *Decoder {
	return NewDecoder(bufio.NewReaderSize(strings.NewReader(text), 16))
}

func TestDecoderValues(t *testing.T) {
	d := decode("a1 UID fetch \"q\\\"u\\\\o\" {3}\r\nlit {2+}\r\nok INBOX inbox &AOQ-x 1:3,* $ (\\Seen $Junk \\*) 4294967295 99999999999 NIL \"17-Jul-1996 02:44:25 -0700\" 1-Feb-1994 foo*%\r\n")
	var tag, kw, sub, q, lit, lit2, m1, m2, m3, nilText, pattern string
	var set imap.NumSet
	var ms imap.MessageSet
	var flags []imap.Flag
	var n uint32
	var n64 int64
	var at, day time.Time
	notNil := true
	ok := d.ExpectTag(&tag) && d.ExpectSP() && d.ExpectKeyword(&kw) && d.ExpectSP() && d.ExpectKeyword(&sub) && d.ExpectSP() &&
		d.ExpectString(&q) && d.ExpectSP() && d.ExpectAString(&lit) && d.ExpectSP() && d.ExpectAString(&lit2) && d.ExpectSP() &&
		d.ExpectMailbox(&m1) && d.ExpectSP() && d.ExpectMailbox(&m2) && d.ExpectSP() && d.ExpectMailbox(&m3) && d.ExpectSP() &&
		d.ExpectNumSet(&set) && d.ExpectSP() && d.ExpectMessageSet(&ms) && d.ExpectSP() &&
		d.ExpectList(func() bool {
			var f imap.Flag
			if !d.ExpectFlag(&f) {
				return false
			}
			flags = append(flags, f)
			return true
		}) && d.ExpectSP() && d.ExpectNumber(&n) && d.ExpectSP() && d.ExpectNumber64(&n64) && d.ExpectSP() &&
		d.NString(&nilText, &notNil) && d.ExpectSP() && d.ExpectDateTime(&at) && d.ExpectSP() && d.ExpectDate(&day) && d.ExpectSP() &&
		d.ExpectListMailbox(&pattern) && d.ExpectCRLF()
	if !ok || d.Err() != nil {
		t.Fatal(d.Err())
	}
	if tag != "a1" || kw != "UID" || sub != "FETCH" || q != `q"u\o` || lit != "lit" || lit2 != "ok" || m1 != "INBOX" || m2 != "INBOX" || m3 != "äx" ||
		set.String() != "1:3,*" || !ms.Saved || len(flags) != 3 || flags[2] != imap.FlagAny || n != 1<<32-1 || n64 != 99999999999 || notNil || pattern != "foo*%" ||
		at.Format(time.RFC3339) != "1996-07-17T02:44:25-07:00" || day.Format(time.DateOnly) != "1994-02-01" {
		t.Errorf("%q %q %q %q %q %q %q %q %q %v %v %v %v %v %v %v %v %q", tag, kw, sub, q, lit, lit2, m1, m2, m3, set, ms, flags, n, n64, notNil, at, day, pattern)
	}
}

func TestDecoderSticks(t *testing.T) {
	d := decode("abc def\r\n")
	var s string
	var n uint32
	if d.ExpectNumber(&n) {
		t.Fatal("a word was taken for a number")
	}
	first := d.Err()
	if d.Atom(&s) || d.SP() || d.CRLF() || d.ExpectCRLF() || d.Err() != first {
		t.Errorf("the first error did not stick: %v", d.Err())
	}
	var syntax *SyntaxError
	if !errors.As(first, &syntax) {
		t.Errorf("got %T", first)
	}
}

func TestSection(t *testing.T) {
	for _, c := range []struct {
		in, out string
		request bool
	}{
		{"[]", "BODY[]", true},
		{"[header]", "BODY[HEADER]", true},
		{"[1.2.3]", "BODY[1.2.3]", true},
		{"[1.mime]", "BODY[1.MIME]", true},
		{"[4.1.TEXT]<10.20>", "BODY[4.1.TEXT]<10.20>", true},
		{"[]<7>", "BODY[]<7>", false},
		{`[HEADER.FIELDS (From "X-Y" "a b")]`, `BODY[HEADER.FIELDS (From X-Y "a b")]`, true},
		{"[1.HEADER.FIELDS.NOT (to)]", "BODY[1.HEADER.FIELDS.NOT (to)]", true},
		{"[mime]", "", true},
		{"[0]", "", true},
		{"[1.]", "", true},
		{"[01]", "", true},
		{"[1.0]", "", true},
		{"[99999999999]", "", true},
		{"[HEADER.FIELDS ()]", "", true},
		{"[HEADER.FIELDS]", "", true},
		{"[]<0.0>", "", true},
		{"[]<1>", "", true},
		{"[]<9223372036854775807.9>", "", true},
		{"[foo]", "", true},
	} {
		d := decode(c.in + "\r\n")
		var s imap.Section
		ok := d.ExpectSection(&s, c.request) && d.ExpectCRLF()
		if got := s.String(); ok != (c.out != "") || ok && got != c.out {
			t.Errorf("%s: %v, %s, %v", c.in, ok, got, d.Err())
		}
	}
}

// TestDiscard checks that after any failure the next command is read from its
// beginning.
func TestDiscard(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, c := range []struct {
		name, in string
		read     func(d *Decoder)
		err      bool
	}{
		{"rest of the line", "a bad line\r\nnext", func(d *Decoder) { d.Fail("no") }, false},
		{"line was ended", "a\r\nnext", func(d *Decoder) {
			var s string
			d.Atom(&s)
			d.CRLF()
			d.Fail("no")
		}, false},
		{"non-synchronising literal", "a {5+}\r\n12\r\n5 rest {2+}\r\nab (\r\nnext", func(d *Decoder) { d.Fail("no") }, false},
		{"long line before one", long + " {5+}\r\n12345\r\nnext", func(d *Decoder) { d.Fail("no") }, false},
		{"synchronising literal that nobody asked for", "a {5}\r\nnext", func(d *Decoder) { d.Fail("no") }, false},
		{"refused synchronising literal", "{5}\r\nnext", func(d *Decoder) {
			d.Continue = func(*Literal) error { return nil }
			d.Literal(func(*Literal) error { return errors.New("no") })
		}, false},
		{"refused non-synchronising literal", "{5+}\r\n12345 more\r\nnext", func(d *Decoder) {
			d.Continue = func(*Literal) error { return nil }
			d.Literal(func(*Literal) error { return errors.New("no") })
		}, false},
		{"half read literal", "{5+}\r\n12345 more\r\nnext", func(d *Decoder) {
			l, _ := d.Literal(nil)
			io.ReadFull(l, make([]byte, 2))
			d.FailWith(errors.New("no"))
		}, false},
		{"too much", "a {500000+}\r\n", func(d *Decoder) { d.Fail("no") }, true},
		{"size out of range", "{99999999999999999999+}\r\nx\r\nnext", func(d *Decoder) { d.Literal(nil) }, true},
		{"line too long", long + long + long + "\r\nnext", func(d *Decoder) {
			d.MaxLine = 50
			var s string
			d.Atom(&s)
			if !errors.Is(d.Err(), ErrLineTooLong) {
				panic(d.Err())
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := decode(c.in)
			c.read(d)
			if d.Err() == nil {
				t.Fatal("no error")
			}
			if err := d.Discard(1000); (err != nil) != c.err {
				t.Fatalf("Discard: %v", err)
			}
			if c.err {
				return
			}
			d.Begin()
			var s string
			if !d.word(isAtomChar, &s) && s != "" || d.Err() != nil && !errors.Is(d.Err(), io.ErrUnexpectedEOF) {
				t.Fatal(d.Err())
			}
			if rest := string(d.scratch); rest != "next" {
				t.Errorf("next command is %q", rest)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	d := decode("{100}\r\n" + strings.Repeat("x", 100))
	d.MaxLiteral = 99
	var s string
	if d.String(&s) || !errors.Is(d.Err(), ErrLiteralTooBig) {
		t.Errorf("literal over the limit: %v", d.Err())
	}
	d = decode("{60}\r\n" + strings.Repeat("x", 60) + "{60}\r\n" + strings.Repeat("x", 60))
	d.MaxLiteral = 100
	if !d.String(&s) || d.String(&s) || !errors.Is(d.Err(), ErrLiteralTooBig) {
		t.Errorf("the sum of literals is not bounded: %v", d.Err())
	}
	var list func() bool
	list = func() bool { return d.List(list) }
	d = decode(strings.Repeat("(", 1000))
	if list() || d.Err() == nil {
		t.Error("nesting is not bounded")
	}
	d = decode("{4000000000}\r\nshort")
	d.MaxLiteral = -1
	if d.String(&s) || !errors.Is(d.Err(), io.ErrUnexpectedEOF) {
		t.Errorf("cut literal: %v", d.Err())
	}
}

func TestStrings(t *testing.T) {
	for _, in := range []string{"\"a\nb\"", "\"a\\nb\"", "\"abc", "\"\xff\"", "{1}\r\n\x00", "{1", "{1}x", "{-1}\r\n", "{a}\r\n"} {
		d := decode(in)
		var s string
		if d.String(&s) || d.Err() == nil {
			t.Errorf("%q was taken as %q", in, s)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	for _, s := range []string{
		"a LOGIN u {3}\r\nabc\r\n", "a FETCH 1:* (FLAGS BODY[HEADER.FIELDS (a \"b\")]<1.2>)\r\n", "a SEARCH OR (1 2) NOT $\r\n",
		"a APPEND &AOQ- (\\Seen) \" 1-Jan-2020 00:00:00 +0000\" ~{3+}\r\nabc {9999999999999+}\r\n", "((((\"\\\"\"", "{0}\r\n{18446744073709551616}\r\n", "* LIST () NIL \"x\"\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		d := decode(in)
		d.MaxLine, d.MaxLiteral = 200, 100
		d.Continue = func(l *Literal) error {
			if l.Size%2 == 1 {
				return errors.New("odd")
			}
			return nil
		}
		for range 100 {
			d.Begin()
			var s string
			var n uint32
			var set imap.NumSet
			var sec imap.Section
			var at time.Time
			var notNil bool
			var value func() bool
			value = func() bool {
				return d.List(value) || d.NumSet(&set) || d.Number(&n) || d.AString(&s) || d.Label(&s) || d.Mailbox(&s) || d.ListMailbox(&s) ||
					d.NString(&s, &notNil) || d.SP() || d.Next('[') && d.ExpectSection(&sec, true) || d.ExpectDateTime(&at)
			}
			for !d.CRLF() && value() {
			}
			if err := d.Discard(1000); err != nil {
				return
			}
		}
	})
}
