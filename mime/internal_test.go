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

// FuzzTraits: what scan finds, however the content is cut, is what a plain
// look at each line finds.
func FuzzTraits(f *testing.F) {
	f.Add("From x\r\n--=_0123456789abcdef0123456789abcd\nGr\xfc\xdfe\r \x00=\n", 7)
	f.Add("a\n\n\r\n--=_x\nFrom", 1)
	f.Add(strings.Repeat("12345678", 20)+"\n"+strings.Repeat("x\n", 20), 3)
	f.Fuzz(func(t *testing.T, s string, cut int) {
		if len(s) > 5000 {
			return
		}
		var got, parts traits
		got.scan([]byte(s))
		for rest := s; rest != ""; {
			n := min(max(cut, 1), len(rest))
			parts.scan([]byte(rest[:n]))
			rest = rest[n:]
		}
		var want traits
		want.octets, want.nul = len(s), strings.Contains(s, "\x00")
		want.returns = strings.Count(s, "\r") - strings.Count(s, "\r\n")
		want.lines, want.pairs = strings.Count(s, "\n"), strings.Count(s, "\r\n")
		for _, c := range []byte(s) {
			if c >= 0x80 {
				want.eight++
			}
			if c >= 0x7f || c == '=' || c < ' ' && c != '\t' && c != '\r' && c != '\n' {
				want.escapes++
			}
		}
		for line := range strings.SplitSeq(s, "\n") {
			want.from = want.from || strings.HasPrefix(line, "From ")
			if len(line) >= 34 && strings.HasPrefix(line, "--=_") {
				want.like = append(want.like, line[2:34])
			}
		}
		for line := range strings.Lines(s) {
			n := len(strings.TrimSuffix(line, "\n"))
			if strings.HasSuffix(line, "\r\n") {
				n--
			}
			want.longest = max(want.longest, n)
		}
		for name, tr := range map[string]*traits{"whole": &got, "in parts": &parts} {
			// A line end that is cut, and the beginning of a line at the end of a
			// block, look like more than they are for a moment.
			if tr.longest == want.longest+1 && strings.Contains(s, "\r\n") {
				tr.longest--
			}
			if tr.from && !want.from && strings.Contains(s, "F") {
				tr.from = false
			}
			if tr.octets != want.octets || tr.nul != want.nul || tr.returns != want.returns || tr.lines != want.lines || tr.pairs != want.pairs ||
				tr.eight != want.eight || tr.escapes != want.escapes || tr.from != want.from || tr.longest != want.longest || !reflect.DeepEqual(tr.like, want.like) {
				t.Errorf("%s: %+v, want %+v", name, tr, want)
			}
		}
	})
}
