package mime_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postrider/postrider/mime"
)

// checkStream reads b as a stream and compares all that it gives with Parse.
func checkStream(t testing.TB, r io.Reader, b []byte, l mime.Limits, skip bool) {
	t.Helper()
	want, _ := mime.Parse(bytes.NewReader(b), int64(len(b)), l)
	var parts []*mime.Part
	for p := range want.All() {
		parts = append(parts, p)
	}
	s := mime.NewStream(r, l)
	n := 0
	for ; ; n++ {
		p, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n >= len(parts) {
			t.Fatalf("part %d of %d", n+1, len(parts))
		}
		w := parts[n]
		if p.Type != w.Type || p.HeaderOffset != w.HeaderOffset || p.BodyOffset != w.BodyOffset {
			t.Fatalf("part %d is %s at %d, want %s at %d", n, p.Type, p.HeaderOffset, w.Type, w.HeaderOffset)
		}
		if skip && n%2 == 1 {
			continue
		}
		got, err := io.ReadAll(s)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(w.Raw(bytes.NewReader(b)))
		if w.Parts != nil || w.Message != nil {
			body = nil
		}
		if len(got) == 0 && w.IsMultipart() && w.Parts == nil {
			continue // its delimiters may still have come
		}
		if !bytes.Equal(got, body) {
			t.Fatalf("part %d is %q, want %q", n, got, body)
		}
	}
	if n != len(parts) {
		t.Fatalf("%d parts, want %d", n, len(parts))
	}
	if got := s.Root(); !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, want %+v", got, want)
	}
	if _, err := s.Next(); err != io.EOF {
		t.Fatal(err)
	}
}

func TestStreamCorpus(t *testing.T) {
	for name, b := range corpus(t) {
		t.Run(name, func(t *testing.T) {
			checkStream(t, bytes.NewReader(b), b, mime.Limits{}, false)
			checkStream(t, bytes.NewReader(b), b, mime.Limits{}, true)
			checkStream(t, iotest.OneByteReader(bytes.NewReader(b)), b, mime.Limits{}, false)
			checkStream(t, iotest.DataErrReader(bytes.NewReader(b)), b, mime.Limits{Parts: 3, Depth: 2}, false)
		})
	}
}

func TestStreamError(t *testing.T) {
	broken := errors.New("gone")
	in := "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\nthere"
	s := mime.NewStream(io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken)), mime.Limits{})
	for range 2 {
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := io.ReadAll(s); !errors.Is(err, broken) || !strings.HasPrefix(string(b), "hello") {
		t.Errorf("%q %v", b, err)
	}
	if _, err := s.Next(); !errors.Is(err, broken) {
		t.Error(err)
	}
	var empty mime.Part
	if p, err := mime.NewStream(strings.NewReader(""), mime.Limits{}).Next(); err != nil || p.Type != "text" {
		t.Errorf("%+v %v %v", p, err, empty)
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\n\r\none\r\n--b \r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ny\r\n--b--\r\nepi"), true)
	f.Add(small(), false)
	f.Fuzz(func(t *testing.T, b []byte, skip bool) {
		checkStream(t, bytes.NewReader(b), b, mime.Limits{Parts: 20, Depth: 6}, skip)
		checkStream(t, iotest.HalfReader(bytes.NewReader(b)), b, mime.Limits{}, skip)
	})
}

// huge is a message of that many octets with one attachment, made as it is
// read.
func huge(size int64) io.Reader {
	head := "From: ann@example.com\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nsee there\r\n" +
		"--b\r\nContent-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n"
	line := strings.Repeat("QUJDREVGR0hJSktM", 4) + "QUJDREVGR0hJ\r\n"
	return io.MultiReader(strings.NewReader(head),
		io.LimitReader(&repeat{block: []byte(strings.Repeat(line, 1000))}, size-size%int64(len(line))),
		strings.NewReader("--b--\r\n"))
}

type repeat struct {
	block []byte
	i     int
}

func (r *repeat) Read(b []byte) (int, error) {
	n := copy(b, r.block[r.i:])
	r.i = (r.i + n) % len(r.block)
	return n, nil
}

// TestHuge reads a message of 1 GB (64 MB with -short) as a Parser and as a
// Stream, whose parts are decoded, and composes one: none of it takes more
// memory for that.
func TestHuge(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() || raceEnabled {
		size = 64 << 20
	}
	memory := func(f func()) uint64 {
		var a, b runtime.MemStats
		runtime.ReadMemStats(&a)
		f()
		runtime.ReadMemStats(&b)
		return b.TotalAlloc - a.TotalAlloc
	}
	const most = 1 << 20
	var by mime.Parser
	var n int64
	if m := memory(func() {
		n, _ = io.CopyBuffer(struct{ io.Writer }{&by}, struct{ io.Reader }{huge(size)}, make([]byte, 32<<10))
	}); m > most {
		t.Errorf("the parser took %d octets of memory", m)
	}
	root := by.Close()
	if len(root.Parts) != 2 || root.Parts[1].Size < size-100 || root.BodyOffset+root.Size != n {
		t.Errorf("%+v", root.Parts)
	}
	var decoded int64
	if m := memory(func() {
		s := mime.NewStream(huge(size), mime.Limits{})
		for {
			_, err := s.Next()
			if err != nil {
				break
			}
			k, _ := io.Copy(io.Discard, s.Decoded())
			decoded += k
		}
	}); m > most {
		t.Errorf("the stream took %d octets of memory", m)
	}
	if want := int64(len("see there")) + size/78*57; decoded != want {
		t.Errorf("%d octets decoded, want %d", decoded, want)
	}
	open := func() (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(&repeat{block: bytes.Repeat([]byte("some data"), 1000)}, size)), nil
	}
	if m := memory(func() {
		msg := &mime.Message{From: []mime.Address{ann}, Text: "x", Attachments: []mime.File{{Name: "big.zip", Open: open}}}
		n, _ = msg.WriteTo(io.Discard)
	}); m > most || n < size {
		t.Errorf("composing %d octets took %d of memory", n, m)
	}
}

func TestUUencode(t *testing.T) {
	// The file says "Cat" and more; made with the uuencode of sharutils.
	const cat = "begin 644 cat.txt\r\n#0V%T\r\n`\r\nend\r\n"
	r := strings.NewReader("Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: uue\r\n\r\nsome text\r\n" + cat)
	p, _ := mime.Parse(r, r.Size(), mime.Limits{})
	if b, err := io.ReadAll(p.Decoded(r)); string(b) != "Cat" || err != nil || p.Encoding != "x-uuencode" || p.Defects != nil {
		t.Errorf("%q %v %v %v", b, err, p.Encoding, p.Defects)
	}
	long := strings.Repeat("x", 5000)
	in := "Hi, begin 644 this is no file\nbegin 600 nor this\nhello there, all of you\n" + long + "\n" +
		cat + "between\nbegin 755 a file\n" + "%.&0Q,C,` \n" + "end\nbegin 600 cut\n#0V%T"
	var got []string
	for f, err := range mime.UUFiles(strings.NewReader(in)) {
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(f.Body)
		got = append(got, fmt.Sprintf("%s %o %q", f.Name, f.Mode, b))
	}
	if want := `cat.txt 644 "Cat"|a file 755 "8d123"|cut 600 "Cat"`; strings.Join(got, "|") != want {
		t.Errorf("%s, want %s", strings.Join(got, "|"), want)
	}
	for range mime.UUFiles(strings.NewReader(in)) {
		break // not read, and not gone on
	}
	broken := errors.New("gone")
	for f, err := range mime.UUFiles(io.MultiReader(strings.NewReader("begin 600 x\n#0V%T\n"), iotest.ErrReader(broken))) {
		if f.Body == nil && !errors.Is(err, broken) {
			t.Error(err)
		}
	}
}

func FuzzUU(f *testing.F) {
	f.Add([]byte("begin 644 cat.txt\n#0V%T\n`\nend\nbegin 600 x\n#0V%T"))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for f, err := range mime.UUFiles(bytes.NewReader(b)) {
			if err != nil {
				t.Fatal(err)
			}
			d, _ := io.ReadAll(f.Body)
			total += len(d)
		}
		d, err := io.ReadAll(mime.NewUUReader(iotest.OneByteReader(bytes.NewReader(b))))
		// A line may say that it has 63 octets and have none.
		if err != nil || total > 63*len(b) || len(d) > 63*len(b) {
			t.Fatal(total, len(d), err)
		}
	})
}
