package maildir_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/postrider/postrider/mime/maildir"
)

func makeDir(t testing.TB) maildir.Dir {
	t.Helper()
	d := maildir.Dir(filepath.Join(t.TempDir(), "Maildir"))
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	return d
}

func list(t testing.TB, d maildir.Dir) map[string]*maildir.Message {
	t.Helper()
	all := map[string]*maildir.Message{}
	for m, err := range d.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		if all[m.Key] != nil {
			t.Errorf("%s twice", m.Key)
		}
		all[m.Key] = m
	}
	return all
}

func text(t testing.TB, m *maildir.Message) string {
	t.Helper()
	r, err := m.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(iotest.OneByteReader(r))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func files(t testing.TB, d maildir.Dir, sub string) (names []string) {
	t.Helper()
	e, err := os.ReadDir(filepath.Join(string(d), sub))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range e {
		names = append(names, f.Name())
	}
	return names
}

func TestRoundTrip(t *testing.T) {
	d := makeDir(t)
	may := time.Date(2024, 5, 1, 9, 8, 7, 0, time.UTC)
	for _, c := range []struct {
		text string
		o    maildir.Options
		want []string
	}{
		{"Subject: a\r\n\r\nhi\r\n", maildir.Options{}, nil},
		{"no end", maildir.Options{Date: may}, nil},
		{"", maildir.Options{Seen: true}, nil},
		{"a\rb\r\n\r", maildir.Options{Flags: []string{`\Seen`, `\answered`, `\Flagged`, `\Draft`, `\Deleted`, "$Forwarded"}}, []string{`\Draft`, `\Flagged`, "$Forwarded", `\Answered`, `\Seen`, `\Deleted`}},
		{strings.Repeat("x", 40_000) + "\r\n" + strings.Repeat("y", 32<<10-3) + "\r\nz\r\n", maildir.Options{Flags: []string{"work", `\Seen`, "$Junk", "WORK"}}, []string{`\Seen`, "work", "$Junk"}},
	} {
		key, err := d.Deliver(iotest.HalfReader(strings.NewReader(c.text)), c.o)
		if err != nil {
			t.Fatal(err)
		}
		m := list(t, d)[key]
		if m == nil {
			t.Fatalf("%s is not there", key)
		}
		if got := text(t, m); got != c.text {
			t.Errorf("%.50q, want %.50q", got, c.text)
		}
		if !slices.Equal(m.Flags, c.want) || m.New != (c.want == nil && !c.o.Seen) {
			t.Errorf("flags %q, new %v", m.Flags, m.New)
		}
		if !c.o.Date.IsZero() && !m.Date.Equal(may) || time.Since(m.Date) < -time.Minute {
			t.Errorf("date %v", m.Date)
		}
		if !strings.Contains(key, fmt.Sprintf(",S=%d,W=%d", m.Size, len(c.text))) {
			t.Errorf("key %s, size %d of %d", key, m.Size, len(c.text))
		}
	}
	if f := files(t, d, "tmp"); len(f) != 0 {
		t.Errorf("left in tmp: %q", f)
	}
	if b, err := os.ReadFile(filepath.Join(string(d), "dovecot-keywords")); err != nil || string(b) != "0 work\n1 $Junk\n" {
		t.Errorf("%q %v", b, err)
	}
}

// TestAtomic fails in every way it can, and leaves nothing.
func TestAtomic(t *testing.T) {
	d := makeDir(t)
	gone := errors.New("gone")
	if _, err := d.Deliver(io.MultiReader(strings.NewReader(strings.Repeat("x\r\n", 50_000)), iotest.ErrReader(gone)), maildir.Options{}); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	for _, flag := range []string{"a b", "", `\Recent`, "x\ny", "ü"} {
		if _, err := d.Deliver(strings.NewReader("x"), maildir.Options{Flags: []string{flag}}); !errors.Is(err, maildir.ErrKeyword) {
			t.Errorf("%q: %v", flag, err)
		}
	}
	var many []string
	for i := range 27 {
		many = append(many, fmt.Sprint("k", i))
	}
	if _, err := d.Deliver(strings.NewReader("x"), maildir.Options{Flags: many}); !errors.Is(err, maildir.ErrKeyword) {
		t.Errorf("%v", err)
	}
	if err := os.Remove(filepath.Join(string(d), "new")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Deliver(strings.NewReader("x"), maildir.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	for _, sub := range []string{"tmp", "cur"} {
		if f := files(t, d, sub); len(f) != 0 {
			t.Errorf("left in %s: %q", sub, f)
		}
	}
	if _, err := maildir.Dir(t.TempDir()).Deliver(strings.NewReader("x"), maildir.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestRead(t *testing.T) {
	d := makeDir(t)
	for name, body := range map[string]string{
		"new/1.a":               "A: 1\n\nx\n",
		"new/7.dup":             "new",
		"cur/7.dup:2,S":         "cur",
		"cur/2.b:2,":            "A: 2\r\n\r\nx\r\n",
		"cur/3.c,S=9:2,FSac,x":  "x",
		"cur/4.d:1,S":           "experiment",
		"cur/5.e":               "no info",
		"cur/6.f:2,bzZ?":        "unknown letters",
		"cur/.hidden":           "",
		"tmp/8.g":               "unfinished",
		"dovecot-keywords":      "0 work\n2 $Junk\nx y\n99 far\n-1 below\n3 \\bad\n",
		".Archive.2024/cur/9.h": "",
		".other/file":           "",
	} {
		p := filepath.Join(string(d), name)
		os.MkdirAll(filepath.Dir(p), 0o700)
		if err := os.WriteFile(p, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What would block whoever opens it, or lead elsewhere.
	makeFIFO(t, filepath.Join(string(d), "cur", "fifo"))
	os.Symlink("/etc/passwd", filepath.Join(string(d), "cur", "link"))
	os.Mkdir(filepath.Join(string(d), "cur", "dir"), 0o700)

	got := list(t, d)
	want := map[string][]string{
		"1.a": nil, "2.b": nil, "3.c,S=9": {`\Flagged`, `\Seen`, "work", "$Junk"}, "4.d": nil, "5.e": nil, "6.f": nil, "7.dup": nil,
	}
	for key, flags := range want {
		if m := got[key]; m == nil || !slices.Equal(m.Flags, flags) || m.New != (key == "1.a" || key == "7.dup") {
			t.Errorf("%s: %+v", key, m)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d messages", len(got))
	}
	if s := text(t, got["1.a"]); s != "A: 1\r\n\r\nx\r\n" {
		t.Errorf("%q", s)
	}
	if s := text(t, got["2.b"]); s != "A: 2\r\n\r\nx\r\n" {
		t.Errorf("%q", s)
	}
	// A reader takes notice meanwhile; then it is removed.
	moved := filepath.Join(string(d), "cur", "1.a:2,S")
	if err := os.Rename(filepath.Join(string(d), "new", "1.a"), moved); err != nil {
		t.Fatal(err)
	}
	if s := text(t, got["1.a"]); s != "A: 1\r\n\r\nx\r\n" {
		t.Errorf("moved: %q", s)
	}
	os.Remove(moved)
	if _, err := got["1.a"].Open(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	names, err := d.Folders()
	if err != nil || !reflect.DeepEqual(names, []string{"Archive.2024"}) {
		t.Errorf("%q %v", names, err)
	}
	if string(d.Folder("Archive.2024")) != filepath.Join(string(d), ".Archive.2024") {
		t.Error(d.Folder("Archive.2024"))
	}
}

func TestUnreadable(t *testing.T) {
	failed := func(d maildir.Dir) (err error) {
		for _, err = range d.Messages() {
		}
		return err
	}
	if err := failed(maildir.Dir(filepath.Join(t.TempDir(), "none"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	d := makeDir(t)
	cur := filepath.Join(string(d), "cur")
	os.Remove(cur)
	os.WriteFile(cur, nil, 0o600)
	if err := failed(d); err == nil {
		t.Error("cur is a file")
	}
	if os.Getuid() != 0 { // root reads everything
		d := makeDir(t)
		os.Chmod(filepath.Join(string(d), "cur"), 0)
		if err := failed(d); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%v", err)
		}
	}
	if _, err := maildir.Dir(filepath.Join(t.TempDir(), "none")).Folders(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestLarge streams a message of 256 MB.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a large file")
	}
	d := makeDir(t)
	const lines = 4 << 20
	r := io.LimitReader(repeat("A line of sixty-four octets, as they are found in mails today.\r\n"), 64*lines)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	key, err := d.Deliver(r, maildir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	body, err := list(t, d)[key].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	n, err := io.Copy(io.Discard, body)
	if n != 64*lines || err != nil {
		t.Errorf("%d octets: %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if a := after.TotalAlloc - before.TotalAlloc; a > 2<<20 {
		t.Errorf("%d octets allocated", a)
	}
}

// repeat gives a text over and over.
type repeat string

func (s repeat) Read(p []byte) (int, error) {
	n := 0
	for n+len(s) <= len(p) {
		n += copy(p[n:], s)
	}
	if n == 0 {
		return 0, io.ErrShortBuffer
	}
	return n, nil
}

func FuzzNames(f *testing.F) {
	f.Add("1.a:2,FSa", "0 work\n", "A: b\n\nx")
	f.Add("x", "25 z\n", "\r\r\n")
	f.Fuzz(func(t *testing.T, name, keywords, body string) {
		d := makeDir(t)
		if os.WriteFile(filepath.Join(string(d), "cur", filepath.Base(name)), []byte(body), 0o600) != nil {
			return // no name of a file
		}
		os.WriteFile(filepath.Join(string(d), "dovecot-keywords"), []byte(keywords), 0o600)
		for _, m := range list(t, d) {
			s := text(t, m)
			// What was read can be delivered again.
			other := makeDir(t)
			key, err := other.Deliver(strings.NewReader(s), maildir.Options{Flags: m.Flags, Seen: true})
			if err != nil {
				t.Fatal(err)
			}
			again := list(t, other)[key]
			a, b := slices.Sorted(slices.Values(again.Flags)), slices.Sorted(slices.Values(m.Flags))
			if !slices.Equal(a, b) {
				t.Fatalf("flags %q, were %q", a, b)
			}
			if got := text(t, again); strings.ReplaceAll(got, "\r", "") != strings.ReplaceAll(s, "\r", "") {
				t.Fatalf("%q, was %q", got, s)
			}
		}
	})
}

func BenchmarkDeliver(b *testing.B) {
	d := makeDir(b)
	msg := strings.Repeat("A line of sixty-four octets, as they are found in mails today.\r\n", 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Deliver(strings.NewReader(msg), maildir.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMessages(b *testing.B) {
	d := makeDir(b)
	for i := range 1000 {
		os.WriteFile(filepath.Join(string(d), "cur", fmt.Sprintf("%d.x:2,S", i)), []byte("Subject: x\n\nhi\n"), 0o600)
	}
	b.ReportAllocs()
	for b.Loop() {
		for m, err := range d.Messages() {
			if err != nil {
				b.Fatal(err)
			}
			r, err := m.Open()
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, r)
			r.Close()
		}
	}
}
