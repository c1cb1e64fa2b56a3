package imapwire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/postrider/postrider/imap"
)

func TestEncoder(t *testing.T) {
	var out bytes.Buffer
	e := NewEncoder(bufio.NewWriter(&out))
	e.Atom("* X").SP().Quoted(`a"b\c`+"\r\n").SP().String("x\ny").SP().NString("").SP().AString("atom").SP().AString("two words").SP().AString("nil").SP().
		Mailbox("Entwürfe").SP().Number(42).SP().NumSet(imap.NumSet{{First: 1, Last: 3}, {First: 7, Last: imap.Star}}).SP().
		MessageSet(imap.MessageSet{Saved: true}).SP().Flags([]imap.Flag{imap.FlagSeen, "x"}).SP().
		DateTime(time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)).SP().List(2, func(i int) { e.Number(uint64(i)) })
	if err := e.CRLF(); err != nil {
		t.Fatal(err)
	}
	e.UTF8 = true
	e.Mailbox("ä b").CRLF()
	e.Flush()
	want := "* X \"a\\\"b\\\\c\" {3}\r\nx\ny NIL atom \"two words\" \"nil\" Entw&APw-rfe 42 1:3,7:* $ (\\Seen x) \" 3-Feb-2020 04:05:06 +0000\" (0 1)\r\n\"ä b\"\r\n"
	if out.String() != want {
		t.Errorf("got\n%q, want\n%q", out.String(), want)
	}
}

func TestEncoderClientLiterals(t *testing.T) {
	var out bytes.Buffer
	waited := 0
	e := NewEncoder(bufio.NewWriter(&out))
	e.Wait = func() error { waited++; return nil }
	io.WriteString(e.Literal(3, false), "abc")
	e.NonSync = 4096
	io.WriteString(e.Literal(3, true), "abc")
	e.NonSync = -1
	io.WriteString(e.Literal(5000, false), "")
	if e.Flush(); out.String() != "{3}\r\nabc~{3+}\r\nabc{5000+}\r\n" || waited != 1 {
		t.Errorf("%q, waited %d times", out.String(), waited)
	}
	refused := errors.New("refused")
	e.Wait, e.NonSync = func() error { return refused }, 0
	if _, err := io.WriteString(e.Literal(3, false), "abc"); err != refused || e.CRLF() != refused {
		t.Errorf("got %v", err)
	}
}

// TestRoundTrip checks that what the Encoder writes the Decoder reads.
func TestRoundTrip(t *testing.T) {
	for _, s := range []string{"", "a", "NIL", "a b", `"`, `\`, "ä", "a\r\nb", "]", "%*", "&", "~{1}", "{3}", "a\tb"} {
		for _, utf8 := range []bool{false, true} {
			var out bytes.Buffer
			e := NewEncoder(bufio.NewWriter(&out))
			e.UTF8 = utf8
			e.AString(s).SP().String(s).SP().Mailbox(s).CRLF()
			e.Flush()
			d := decode(out.String())
			d.UTF8 = utf8
			var a, b, c string
			if !d.ExpectAString(&a) || !d.ExpectSP() || !d.ExpectString(&b) || !d.ExpectSP() || !d.ExpectMailbox(&c) || !d.ExpectCRLF() || a != s || b != s || c != s {
				t.Errorf("%q: %q gives %q %q %q, %v", s, out.String(), a, b, c, d.Err())
			}
		}
	}
}
