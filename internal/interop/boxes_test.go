package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	boxes "github.com/postrider/postrider/mime/maildir"
	"github.com/postrider/postrider/mime/mbox"
)

func makeBox(t *testing.T) string {
	t.Helper()
	d := boxes.Dir(filepath.Join(t.TempDir(), "Maildir"))
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	return string(d)
}

func deliver(t *testing.T, dir, name string, b []byte, flags ...string) {
	t.Helper()
	if _, err := boxes.Dir(dir).Deliver(bytes.NewReader(b), boxes.Options{Flags: flags, Seen: true}); err != nil {
		t.Fatal(name, err)
	}
}

// bodies are what mailbox formats get wrong.
var bodies = []string{
	"plain\r\n", "From here\r\n>From there\r\n>>From afar\r\n", "\r\n\r\nFrom -\r\n\r\n", "no end",
	"Content-Length: 3\r\n\r\nx\r\n", "\r\n", ".\r\n..\r\n", strings.Repeat("long", 5000) + "\r\n",
}

func boxText(i int) string {
	return fmt.Sprintf("X-Number: %02d\r\nSubject: s\r\n\r\n%s", i, bodies[i])
}

type boxMessage struct{ Number, Flags, From, Body string }

// pythonBox reads a mailbox with Python's mailbox module.
func pythonBox(t *testing.T, kind, path string) (all []boxMessage) {
	t.Helper()
	need(t, python3)
	script, err := filepath.Abs("python/boxes.py")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(run(t, t.TempDir(), python3, script, "read", kind, path)) {
		var m boxMessage
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// pythonWrites makes a mailbox with Python's mailbox module.
func pythonWrites(t *testing.T, kind string) string {
	t.Helper()
	need(t, python3)
	dir := t.TempDir()
	script, err := filepath.Abs("python/boxes.py")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{script, "write", kind, filepath.Join(dir, "box")}
	for i := range bodies {
		name := filepath.Join(dir, fmt.Sprintf("%02d.eml", i))
		write(t, name, boxText(i))
		args = append(args, name)
	}
	run(t, dir, python3, args...)
	return filepath.Join(dir, "box")
}

func lf(s string) string { return strings.TrimRight(strings.ReplaceAll(s, "\r\n", "\n"), "\n") }

func writeMbox(t *testing.T, f mbox.Format, flags []string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "box")
	var b bytes.Buffer
	w := mbox.NewWriter(&b)
	w.Format = f
	for i := range bodies {
		h := mbox.Head{From: "ann@example.org", Date: time.Date(2024, 5, 1, 9, 8, 7, 0, time.UTC), Flags: flags}
		if err := w.Add(h, strings.NewReader(boxText(i))); err != nil {
			t.Fatal(err)
		}
	}
	write(t, name, b.String())
	return name
}

func TestMboxPython(t *testing.T) {
	got := pythonBox(t, "mbox", writeMbox(t, mbox.RD, []string{`\Seen`, `\Flagged`}))
	if len(got) != len(bodies) {
		t.Fatalf("%d messages of %d", len(got), len(bodies))
	}
	for i, m := range got {
		// It leaves the quoting as it is.
		want := strings.ReplaceAll(strings.ReplaceAll("\n"+lf(bodies[i]), "\n>", "\n\x00>"), "\nFrom ", "\n>From ")
		want = strings.ReplaceAll(want, "\x00>>From", ">>>From")
		want = strings.ReplaceAll(strings.ReplaceAll(want, "\x00>From", ">>From"), "\x00", "")[1:]
		if m.Flags != "FR" || !strings.HasPrefix(m.From, "ann@example.org Wed May  1 09:08:07 2024") || strings.TrimRight(m.Body, "\n") != want {
			t.Errorf("%d: %q, want %q", i, m, want)
		}
	}
	f, err := os.Open(pythonWrites(t, "mbox"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i := 0
	for m, err := range mbox.NewReader(f).Messages() {
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(m)
		_, body, _ := strings.Cut(string(b), "\r\n\r\n")
		// It writes mboxo: what was quoted before cannot be told.
		want := strings.ReplaceAll(strings.ReplaceAll(lf(bodies[i]), "\n>From", "\nFrom"), "\n>>From", "\n>From")
		if err != nil || m.From != "ann@example.org" || !slices.Equal(m.Flags, []string{`\Seen`, `\Flagged`}) || lf(body) != want {
			t.Errorf("%d: %+v %q %v, want %q", i, m.Head, body, err, want)
		}
		i++
	}
	if i != len(bodies) {
		t.Errorf("%d messages read of %d", i, len(bodies))
	}
}

// TestMboxDovecot: Dovecot reads what we write, and we what it writes.
func TestMboxDovecot(t *testing.T) {
	need(t, "doveadm")
	for _, format := range []mbox.Format{mbox.RD, mbox.CL2} {
		dir := filepath.Join(t.TempDir(), "mail")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		box := filepath.Join(dir, "inbox")
		if err := os.Rename(writeMbox(t, format, []string{`\Seen`, `\Flagged`, "work"}), box); err != nil {
			t.Fatal(err)
		}
		location := "mbox:" + dir + ":INBOX=" + box
		var rows []map[string]string
		out := doveadm(t, location, "-f", "json", "fetch", "hdr.x-number flags date.received body", "mailbox", "INBOX")
		if err := json.NewDecoder(strings.NewReader(out[max(0, strings.Index(out, "[{")):])).Decode(&rows); err != nil {
			t.Fatal(err, out)
		}
		if len(rows) != len(bodies) {
			t.Fatalf("format %d: Dovecot has %d messages of %d", format, len(rows), len(bodies))
		}
		for i, row := range rows {
			want := lf(bodies[i])
			if format == mbox.RD {
				// It leaves the quoting as it is.
				want = quoteFrom(want)
			}
			if lf(row["body"]) != want || row["hdr.x-number"] != fmt.Sprintf("%02d", i) || row["date.received"] != "2024-05-01 09:08:07" {
				t.Errorf("format %d, %d: %+q, want %+q", format, i, row, want)
			}
			// It takes keywords only from files that it numbered itself: those of
			// others may have come with the mail.
			for _, f := range []string{`\Seen`, `\Flagged`} {
				if !slices.Contains(strings.Fields(row["flags"]), f) {
					t.Errorf("format %d, %d: flags %q lack %s", format, i, row["flags"], f)
				}
			}
		}
	}

	dir := filepath.Join(t.TempDir(), "mail")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	box := filepath.Join(dir, "inbox")
	write(t, box, "")
	location := "mbox:" + dir + ":INBOX=" + box
	for i := range bodies {
		name := filepath.Join(dir, fmt.Sprintf("%02d.eml", i))
		write(t, name, boxText(i))
		doveadm(t, location, "save", "-m", "INBOX", name)
	}
	doveadm(t, location, "flags", "add", `\Seen \Flagged work`, "mailbox", "INBOX", "all")
	f, err := os.Open(box)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i := 0
	for m, err := range mbox.NewReader(f).Messages() {
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(m)
		head, body, _ := strings.Cut(string(b), "\r\n\r\n")
		if strings.Contains(head, "DON'T DELETE THIS MESSAGE") {
			continue // Dovecot's own
		}
		if err != nil || lf(body) != lf(bodies[i]) {
			t.Errorf("%d: %+q %v, want %+q", i, body, err, bodies[i])
		}
		for _, want := range []string{`\Seen`, `\Flagged`, "work"} {
			if !slices.Contains(m.Flags, want) {
				t.Errorf("%d: flags %q lack %s", i, m.Flags, want)
			}
		}
		i++
	}
	if i != len(bodies) {
		t.Errorf("%d messages read of %d", i, len(bodies))
	}
}

// quoteFrom quotes as mboxrd does.
func quoteFrom(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(strings.TrimLeft(l, ">"), "From ") {
			lines[i] = ">" + l
		}
	}
	return strings.Join(lines, "\n")
}

func TestMaildirPython(t *testing.T) {
	dir := makeBox(t)
	for i := range bodies {
		deliver(t, dir, fmt.Sprint(i), []byte(boxText(i)), `\Seen`, `\Flagged`)
	}
	got := pythonBox(t, "maildir", dir)
	if len(got) != len(bodies) {
		t.Fatalf("%d messages of %d", len(got), len(bodies))
	}
	for i, m := range got {
		if m.Flags != "FS" || strings.TrimRight(m.Body, "\n") != lf(bodies[i]) {
			t.Errorf("%d: %q", i, m)
		}
	}
	n := 0
	for m, err := range boxes.Dir(pythonWrites(t, "maildir")).Messages() {
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		r.Close()
		head, body, _ := strings.Cut(string(b), "\r\n\r\n")
		var i int
		fmt.Sscanf(head, "X-Number: %d", &i)
		if err != nil || m.New || !slices.Equal(m.Flags, []string{`\Flagged`, `\Seen`}) || lf(body) != lf(bodies[i]) {
			t.Errorf("%d: %+v %q %v", i, m, body, err)
		}
		n++
	}
	if n != len(bodies) {
		t.Errorf("%d messages read of %d", n, len(bodies))
	}
}

// TestMaildirDovecot lets Dovecot read flags, keywords and sizes of ours, and
// us what it made of them.
func TestMaildirDovecot(t *testing.T) {
	need(t, "doveadm")
	dir := makeBox(t)
	for i := range bodies {
		deliver(t, dir, fmt.Sprint(i), []byte(boxText(i)), `\Seen`, "work", "$Junk")
	}
	n := 0
	for line := range strings.Lines(doveadm(t, "maildir:"+dir, "-f", "tab", "fetch", "hdr.x-number flags size.virtual size.physical", "mailbox", "INBOX")) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 4 || f[0] == "hdr.x-number" {
			continue
		}
		var i int
		fmt.Sscan(strings.TrimLeft(f[0], "0"), &i)
		flags := strings.Fields(f[1])
		for _, want := range []string{`\Seen`, "work", "$Junk"} {
			if !slices.Contains(flags, want) {
				t.Errorf("%d: flags %q lack %s", i, flags, want)
			}
		}
		if want := fmt.Sprint(len(boxText(i))); f[2] != want {
			t.Errorf("%d: %s octets, want %s", i, f[2], want)
		}
		n++
	}
	if n != len(bodies) {
		t.Errorf("Dovecot has %d messages of %d", n, len(bodies))
	}
	doveadm(t, "maildir:"+dir, "flags", "add", `\Answered other`, "mailbox", "INBOX", "all")
	n = 0
	for m, err := range boxes.Dir(dir).Messages() {
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`\Seen`, `\Answered`, "work", "$Junk", "other"} {
			if !slices.Contains(m.Flags, want) {
				t.Errorf("%s: flags %q lack %s", m.Key, m.Flags, want)
			}
		}
		n++
	}
	if n != len(bodies) {
		t.Errorf("%d messages read of %d", n, len(bodies))
	}
}
