package mime

import (
	"bytes"
	"encoding/binary"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// FuzzPlainMailbox: the fast way reads what the scanner reads.
func FuzzPlainMailbox(f *testing.F) {
	f.Add(`Bob Builder <bob@example.org>, "A, B" <a@b.example>`)
	f.Add(`=?utf-8?q?J=C3?= <x.y@z>,a@b ,c@d`)
	f.Add(`a  b <c@d> , "" <e@f>,<g@h>`)
	f.Fuzz(func(t *testing.T, s string) {
		m, rest, ok := plainMailbox(s)
		if !ok {
			return
		}
		p := addrScanner{s: s}
		want, more := p.next()
		if !more || want.kind != isMailbox || want.name != m.name || want.local != m.local || want.domain != m.domain ||
			want.comment != "" || want.route != "" || want.bad {
			t.Fatalf("%q: %+v, want %+v", s, m, want)
		}
		q := addrScanner{s: rest}
		for {
			a, ok := p.next()
			b, also := q.next()
			a.text, b.text = "", ""
			if ok != also || !reflect.DeepEqual(a, b) {
				t.Fatalf("%q: after the first %+v %v, want %+v %v", s, b, also, a, ok)
			}
			if !ok {
				return
			}
		}
	})
}

// FuzzUTF8Reader: however it is read, it gives what the transformer alone
// gives.
func FuzzUTF8Reader(f *testing.F) {
	f.Add([]byte("Gr\xc3\xbc\xc3\x9fe \xff\xe2\x82 \xe2\x82\xac \xf0\x9f\x98"), true)
	f.Add(bytes.Repeat([]byte("\xf0\x9f\x98\x80a"), 200), false)
	f.Fuzz(func(t *testing.T, b []byte, strict bool) {
		var tr, ref transform.Transformer = guess{}, guess{}
		if strict {
			tr, ref = validUTF8Only{}, unicode.UTF8.NewDecoder()
		}
		want, _, err := transform.Bytes(ref, b)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b)), iotest.DataErrReader(bytes.NewReader(b)), iotest.HalfReader(bytes.NewReader(b))} {
			got, err := io.ReadAll(toUTF8Reader(struct{ io.Reader }{r}, tr))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d: %q: %q, want %q (%v)", i, b, got, want, err)
			}
		}
		var one bytes.Buffer
		for r := toUTF8Reader(bytes.NewReader(b), tr); ; {
			var buf [1]byte
			n, err := r.Read(buf[:])
			one.Write(buf[:n])
			if err != nil {
				break
			}
		}
		if !bytes.Equal(one.Bytes(), want) {
			t.Fatalf("%q octet by octet: %q, want %q", b, one.Bytes(), want)
		}
		for i, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b)), struct{ io.Reader }{iotest.HalfReader(bytes.NewReader(b))}} {
			var out bytes.Buffer
			n, err := io.Copy(&out, toUTF8Reader(r, tr))
			if err != nil || !bytes.Equal(out.Bytes(), want) || n != int64(len(want)) {
				t.Fatalf("copied %d: %q: %q, want %q (%v)", i, b, out.Bytes(), want, err)
			}
		}
	})
}

func TestPlainWord(t *testing.T) {
	for place := range 8 {
		for c := range 256 {
			b := []byte("aZ09~ .-")
			b[place] = byte(c)
			want := escapeWeight[c] == 0
			if got := plainWord(binary.LittleEndian.Uint64(b)); got && !want || !got && want && c >= ' ' && c < 0x7f && c != '=' {
				t.Errorf("%q: %v", b, got)
			}
		}
	}
}

// FuzzTextEnds: text with one kind of line ends is written as that of any kind
// is, only faster.
func FuzzTextEnds(f *testing.F) {
	f.Add("a\nb", 10)
	f.Add("a\r\nb\r\n", 8190)
	f.Add("\n\n", 0)
	f.Add(strings.Repeat("x", 20_000)+"\nend", 9000)
	f.Add("a\rb\n", 1)
	f.Fuzz(func(t *testing.T, s string, before int) {
		var tr traits
		tr.scan([]byte(s))
		ends := tr.ends()
		if ends == mixedEnds {
			return
		}
		before = max(0, min(before, 20_000))
		write := func(text func(o *output)) string {
			var b bytes.Buffer
			o := &output{w: &b}
			o.add(bytes.Repeat([]byte("h"), before))
			text(o)
			o.finish()
			return b.String()
		}
		got := write(func(o *output) { o.text([]byte(s), ends) })
		want := write(func(o *output) {
			l := lineEnds{next: o.add}
			l.write([]byte(s))
			l.close()
		})
		if got != want {
			t.Errorf("%.200q: %.200q, want %.200q", s, got, want)
		}
	})
}
