package mbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/mbox"
)

type message struct {
	mbox.Head
	Text string
}

// stream hides that a reader can seek.
type stream struct{ io.Reader }

func readAll(t testing.TB, r io.Reader, f mbox.Format) (all []message, err error) {
	t.Helper()
	rd := mbox.NewReader(r)
	rd.Format = f
	for m, err := range rd.Messages() {
		if err != nil {
			return all, err
		}
		b, err := io.ReadAll(m)
		if err != nil {
			return append(all, message{m.Head, string(b)}), err
		}
		all = append(all, message{m.Head, string(b)})
	}
	return all, nil
}

var may = time.Date(2024, 5, 1, 9, 8, 7, 0, time.UTC)

func samples() []message {
	return []message{
		{mbox.Head{From: "ann@example.org", Date: may}, "Subject: a\r\n\r\nFrom here\r\n>From there\r\n\r\n\r\n"},
		{mbox.Head{Date: may.Add(time.Second), Flags: []string{`\Seen`, `\Answered`, `\Flagged`, `\Draft`, `\Deleted`, "$Junk", "work"}}, "Subject: b\r\n\r\n\r\n\r\nFrom x@y Wed May  1 09:08:07 2024\r\n"},
		{mbox.Head{From: `"a b"@example.org`, Date: may}, "From: odd\r\n\r\n"},
		{mbox.Head{From: "x@y", Date: may}, "Subject: lone CR\r\n\r\na\rb\r\n" + strings.Repeat("long", 50_000) + "\r\nFrom \r\n"},
		{mbox.Head{From: "x@y", Date: may}, ">From in: the header\r\nSubject: c\r\n\r\nhi\r\n"},
	}
}

func writeAll(t testing.TB, f mbox.Format, all []message) []byte {
	t.Helper()
	var b bytes.Buffer
	w := mbox.NewWriter(&b)
	w.Format = f
	for _, m := range all {
		if err := w.Add(m.Head, strings.NewReader(m.Text)); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	for _, f := range []mbox.Format{mbox.Auto, mbox.RD, mbox.CL2} {
		b := writeAll(t, f, samples())
		for _, as := range []mbox.Format{f, mbox.Auto} {
			for name, r := range map[string]io.Reader{"seek": bytes.NewReader(b), "stream": stream{bytes.NewReader(b)}, "bytes": iotest.OneByteReader(bytes.NewReader(b))} {
				if f == mbox.CL2 && as == mbox.Auto && name != "seek" {
					continue // cannot be known
				}
				got, err := readAll(t, r, as)
				if err != nil || !reflect.DeepEqual(got, samples()) {
					t.Errorf("format %d as %d, %s: %v\n%.400q", f, as, name, err, got)
				}
			}
		}
	}
	// In CL2 nothing changes but line ends, not even that the last one is
	// missing; in RD it is added.
	m := []message{{mbox.Head{From: "x@y", Date: may}, "A: b\r\n\r\nno end"}}
	if got, err := readAll(t, bytes.NewReader(writeAll(t, mbox.CL2, m)), mbox.Auto); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%v %q", err, got)
	}
	if got, err := readAll(t, bytes.NewReader(writeAll(t, mbox.RD, m)), mbox.Auto); err != nil || got[0].Text != m[0].Text+"\r\n" {
		t.Errorf("%v %q", err, got)
	}
}

// TestRead reads what others wrote, and what nobody should have.
func TestRead(t *testing.T) {
	for _, c := range []struct {
		name   string
		format mbox.Format
		file   string
		want   []string
		err    error
	}{
		{"empty", 0, "", nil, nil},
		{"empty lines", 0, "\n\r\n", nil, nil},
		{"no From_ line", 0, "Subject: a\n\nb\n", nil, mbox.ErrFormat},
		{"only From_", 0, "From -\n", []string{""}, nil},
		{"no empty line between", 0, "From a@b Wed May  1 09:08:07 2024\nA: 1\n\nx\nFrom a@b Wed May  1 09:08:07 2024\nA: 2\n", []string{"A: 1\r\n\r\nx\r\n", "A: 2\r\n"}, nil},
		{"text that begins with From", 0, "From -\n\nFrom here to there\nFrom me: 12\nFrom \n\nFrom -\n", []string{"\r\nFrom here to there\r\nFrom me: 12\r\n", "\r\n", ""}, nil},
		{"CRLF", 0, "From a@b Wed May  1 09:08:07 2024\r\nA: 1\r\n\r\n>From x\r\n\r\nFrom -\r\nB: 2\r\n", []string{"A: 1\r\n\r\nFrom x\r\n", "B: 2\r\n"}, nil},
		{"dates", 0, "From a@b Wed May  1 09:08:07 PDT 2024\nA: 1\n\nFrom a@b Wed May 1 09:08 2024\nA: 2\n\nFrom a@b Wed, 1 May 2024 09:08:07 +0200\nA: 3\n\nFrom a@b Wed May  1 09:08:07 2024 remote from uucp\nA: 4\n", []string{"A: 1\r\n\r\n", "A: 2\r\n\r\n", "A: 3\r\n\r\n", "A: 4\r\n"}, nil},
		{"Content-Length", 0, "From -\nContent-Length: 18\n\nFrom -\n>From me\nx\n\n\nFrom -\nB: 2\n", []string{"\r\nFrom -\r\n>From me\r\nx\r\n", "B: 2\r\n"}, nil},
		{"Content-Length, CL", mbox.CL, "From -\nContent-Length: 16\n\n>From -\n>>From \n\nFrom -\nB: 2\n", []string{"\r\nFrom -\r\n>From \r\n", "B: 2\r\n"}, nil},
		{"Content-Length too small", 0, "From -\nContent-Length: 1\n\nxyz\n\nFrom -\nB: 2\n", []string{"Content-Length: 1\r\n\r\nxyz\r\n", "B: 2\r\n"}, nil},
		{"Content-Length too big", mbox.CL2, "From -\nContent-Length: 12\n\nxyz\n\nFrom -\nB: 2\n", []string{"Content-Length: 12\r\n\r\nxyz\r\n", "B: 2\r\n"}, nil},
		{"Content-Length beyond all", 0, "From -\nContent-Length: 9223372036854775807\n\nxyz\n", []string{"Content-Length: 9223372036854775807\r\n\r\nxyz\r\n"}, nil},
		{"Content-Length below zero", 0, "From -\nContent-Length: -1\n\nxyz\n", []string{"Content-Length: -1\r\n\r\nxyz\r\n"}, nil},
		{"Content-Length to the end", 0, "From -\nContent-Length: 4\n\nxyz\n", []string{"\r\nxyz\r\n"}, nil},
		{"Content-Length nothing", 0, "From -\nContent-Length: 0\n\n\nFrom -\n", []string{"\r\n", ""}, nil},
		{"Content-Length as mboxrd", mbox.RD, "From -\nContent-Length: 11\n\n>From -\nx\n\nFrom -\n", []string{"Content-Length: 11\r\n\r\nFrom -\r\nx\r\n", ""}, nil},
		{"truncated", 0, "From a@b Wed May  1 09:08:07 2024\nA: 1\n\nend", []string{"A: 1\r\n\r\nend"}, nil},
	} {
		got, err := readAll(t, strings.NewReader(c.file), c.format)
		var texts []string
		for _, m := range got {
			texts = append(texts, m.Text)
		}
		if !slices.Equal(texts, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%s: %q %v, want %q %v", c.name, texts, err, c.want, c.err)
		}
	}
	// A stream is believed when the format is told.
	got, err := readAll(t, stream{strings.NewReader("From -\nContent-Length: 7\n\nFrom -\n\nFrom -\nContent-Length: 99\n\nxyz\n")}, mbox.CL2)
	if len(got) != 2 || got[0].Text != "\r\nFrom -\r\n" || got[1].Text != "\r\nxyz\r\n" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q %v", got, err)
	}
	gone := errors.New("gone")
	_, err = readAll(t, io.MultiReader(strings.NewReader("From -\n\nx\n"), iotest.ErrReader(gone)), 0)
	if !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}

func TestHeads(t *testing.T) {
	got, err := readAll(t, strings.NewReader("From ann@example.org Wed May  1 09:08:07 2024\nStatus: RO\nX-Status: AF\nX-Keywords: a b\nSubject: x\n\n\nFrom MAILER-DAEMON Wed May  1 09:08:07 2024\n\n"), 0)
	want := []message{
		{mbox.Head{From: "ann@example.org", Date: may, Flags: []string{`\Seen`, `\Answered`, `\Flagged`, "a", "b"}}, "Subject: x\r\n\r\n"},
		{mbox.Head{Date: may}, ""},
	}
	if err != nil || len(got) != 2 || !reflect.DeepEqual(got[0], want[0]) || got[1].From != "" {
		t.Errorf("%v\n got %q\nwant %q", err, got, want)
	}
	w := mbox.NewWriter(io.Discard)
	for _, h := range []mbox.Head{{From: "a b"}, {From: "a\nFrom b"}, {From: "x@y\x00"}, {From: strings.Repeat("x", 2000)}, {Flags: []string{"a b"}}, {Flags: []string{"a\r\nB: c"}}, {Flags: []string{""}}} {
		if err := w.Add(h, strings.NewReader("A: b\r\n")); !errors.Is(err, mbox.ErrHead) {
			t.Errorf("%.50q: %v", h, err)
		}
	}
	if err := w.Add(mbox.Head{}, strings.NewReader("A: b\r\n")); err != nil {
		t.Errorf("after refused heads: %v", err)
	}
	w.Format = mbox.CL
	if err := w.Add(mbox.Head{}, strings.NewReader("")); err == nil {
		t.Error("CL was written")
	}
	gone := errors.New("gone")
	w = mbox.NewWriter(io.Discard)
	if err := w.Add(mbox.Head{}, iotest.ErrReader(gone)); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	if err := w.Add(mbox.Head{}, strings.NewReader("A: b\r\n")); !errors.Is(err, gone) {
		t.Errorf("after a cut message: %v", err)
	}
}

// TestSkip does not read the messages, and stops in the middle.
func TestSkip(t *testing.T) {
	b := writeAll(t, mbox.RD, samples())
	r := mbox.NewReader(bytes.NewReader(b))
	for range r.Messages() {
		break
	}
	n := 1
	for m, err := range r.Messages() {
		if err != nil || m.From != samples()[n].From {
			t.Fatal(err, n)
		}
		n++
	}
	if n != len(samples()) {
		t.Errorf("%d messages", n)
	}
}

func TestCorpus(t *testing.T) {
	dir := conformance.Path(t, "mime", "mbox")
	for name, want := range map[string]int{"simple.mbox": 3, "content-length.mbox": 29} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []mbox.Format{mbox.Auto, mbox.RD} {
			all, err := readAll(t, bytes.NewReader(b), f)
			if err != nil || len(all) != want {
				t.Fatalf("%s: %d messages, want %d: %v", name, len(all), want, err)
			}
			var subjects []string
			for _, m := range all {
				p, err := mime.Parse(strings.NewReader(m.Text), int64(len(m.Text)), mime.Limits{})
				if err != nil || !p.Header.Has("From") {
					t.Errorf("%s: %.200q", name, m.Text)
				}
				subjects = append(subjects, p.Header.Get("Subject"))
			}
			// The summary names them in order.
			if name == "content-length.mbox" {
				s, err := os.ReadFile(filepath.Join(dir, "content-length-summary.txt"))
				if err != nil {
					t.Fatal(err)
				}
				i := 0
				for line := range strings.Lines(string(s)) {
					if subject, ok := strings.CutPrefix(line, "Subject: "); ok {
						if i >= len(subjects) || strings.TrimSpace(subject) != subjects[i] {
							t.Errorf("message %d: %q, want %q", i, subjects[i], subject)
						}
						i++
					}
				}
				if i != len(subjects) {
					t.Errorf("%d subjects in the summary", i)
				}
			}
			for _, to := range []mbox.Format{mbox.RD, mbox.CL2} {
				if again, err := readAll(t, bytes.NewReader(writeAll(t, to, all)), mbox.Auto); err != nil || len(again) != len(all) {
					t.Errorf("%s: %d again: %v", name, len(again), err)
				}
			}
		}
	}
}

// endless is a message of n octets.
type endless struct{ n, done int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.n <= 0 {
		return 0, io.EOF
	}
	const line = "From the beginning this is text of a very large message, again.\r\n"
	k := 0
	for k < len(p) && e.n > 0 {
		c := copy(p[k:], line[e.done%int64(len(line)):])
		c = int(min(int64(c), e.n))
		k += c
		e.n -= int64(c)
		e.done += int64(c)
	}
	return k, nil
}

// TestLarge reads and writes one message of 1 GB in constant memory.
func TestLarge(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := mbox.NewWriter(pw).Add(mbox.Head{From: "x@y", Date: may}, io.MultiReader(strings.NewReader("A: b\r\n\r\n"), &endless{n: size}))
		pw.CloseWithError(err)
		done <- err
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var n int64
	for m, err := range mbox.NewReader(pr).Messages() {
		if err != nil {
			t.Fatal(err)
		}
		k, err := io.Copy(io.Discard, m)
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if d := after.TotalAlloc - before.TotalAlloc; d > 4<<20 {
		t.Errorf("%d octets allocated for a message of %d", d, size)
	}
	if n < size || n > size+16 {
		t.Errorf("%d octets of %d", n, size)
	}
}

var lineEnd = regexp.MustCompile(`\r*\n|\r+$`)

// lines gives a text's lines as an mbox can keep them: CRs before a line end,
// and at the text's end, are part of the line end, and the last one is optional.
func lines(text string) string {
	return strings.TrimSuffix(lineEnd.ReplaceAllString(text, "\n"), "\n")
}

func FuzzRead(f *testing.F) {
	for _, format := range []mbox.Format{mbox.RD, mbox.CL2} {
		f.Add(writeAll(f, format, samples()[:3]), uint8(0))
	}
	f.Add([]byte("From \n\n\r"), uint8(0))
	f.Add([]byte("From \n\na\r\r\nb\r\n\r"), uint8(1))
	f.Add([]byte("From -\nContent-Length: 3\n\n>From x\n\nFrom a Wed May  1 09:08:07 2024\nStatus: R\n\n"), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, format uint8) {
		all, err := readAll(t, bytes.NewReader(b), mbox.Format(format%4))
		if err != nil && !errors.Is(err, mbox.ErrFormat) {
			t.Fatal(err)
		}
		streamed, err := readAll(t, stream{iotest.HalfReader(bytes.NewReader(b))}, mbox.RD)
		again, err2 := readAll(t, bytes.NewReader(b), mbox.RD)
		if fmt.Sprint(err) != fmt.Sprint(err2) || !reflect.DeepEqual(streamed, again) {
			t.Fatalf("how it is read changes it: %v %v\n%q\n%q", err, err2, streamed, again)
		}
		for _, to := range []mbox.Format{mbox.RD, mbox.CL2} {
			var out bytes.Buffer
			w := mbox.NewWriter(&out)
			w.Format = to
			var kept []message
			for _, m := range all {
				err := w.Add(m.Head, strings.NewReader(m.Text))
				if errors.Is(err, mbox.ErrHead) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				kept = append(kept, m)
			}
			back, err := readAll(t, bytes.NewReader(out.Bytes()), to)
			if err != nil || len(back) != len(kept) {
				t.Fatalf("format %d: %d of %d: %v\n%q", to, len(back), len(kept), err, out.Bytes())
			}
			for i := range back {
				_, got, ok1 := strings.Cut("\r\n"+back[i].Text, "\r\n\r\n")
				_, want, ok2 := strings.Cut("\r\n"+kept[i].Text, "\r\n\r\n")
				if ok1 && ok2 && lines(got) != lines(want) {
					t.Fatalf("format %d: message %d\n%q\nwas\n%q\nfile %q", to, i, back[i].Text, kept[i].Text, out.Bytes())
				}
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	text := "Subject: a\r\n\r\n" + strings.Repeat("A line of text as it is found in mail, sixty octets or so.\r\n", 100)
	var all []message
	for range 100 {
		all = append(all, message{mbox.Head{From: "x@y", Date: may}, text})
	}
	for name, f := range map[string]mbox.Format{"mboxrd": mbox.RD, "mboxcl2": mbox.CL2} {
		file := writeAll(b, f, all)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(file)))
			b.ReportAllocs()
			for b.Loop() {
				r := mbox.NewReader(bytes.NewReader(file))
				r.Format = f
				for m, err := range r.Messages() {
					if err != nil {
						b.Fatal(err)
					}
					io.Copy(io.Discard, m)
				}
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	text := "Subject: a\r\n\r\n" + strings.Repeat("A line of text as it is found in mail, sixty octets or so.\r\n", 100)
	for name, f := range map[string]mbox.Format{"mboxrd": mbox.RD, "mboxcl2": mbox.CL2} {
		b.Run(name, func(b *testing.B) {
			w := mbox.NewWriter(io.Discard)
			w.Format = f
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Add(mbox.Head{From: "x@y", Date: may}, strings.NewReader(text)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
