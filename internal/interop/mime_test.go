package interop

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	message "github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset"
	"github.com/jhillyerd/enmime/v2"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// messages is how many messages are built at random and read by each peer.
var messages = flag.Int("messages", 200, "messages built at random for the readers of other libraries")

// python3 is Debian's: the one that Debian's modules belong to.
const python3 = "/usr/bin/python3"

// leaf is one part as a reader gives it: text with LF and without the line
// ends at its end, since readers differ there.
type leaf struct{ Type, Name, Sum string }

// read is what a reader gives of a message.
type read struct {
	Subject, From string
	To            []string
	Leaves        []leaf
}

func digest(mediaType string, b []byte) string {
	if strings.HasPrefix(mediaType, "text/") {
		b = bytes.TrimRight(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), "\n")
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// builder makes messages at random, from a seed.
type builder struct{ *rand.Rand }

func (r builder) pick(s ...string) string { return s[r.IntN(len(s))] }

func (r builder) words(n int) string {
	var w []string
	for range 1 + r.IntN(n) {
		w = append(w, r.pick("plain", "word", "Grüße", "naïve", "日本語", "\"quoted\"", "a,b", "(paren)", "🎉", "x=y", "=?fake?=", "trail.", strings.Repeat("long", 1+r.IntN(30))))
	}
	return strings.Join(w, " ")
}

// text has what encodings must get right.
func (r builder) text() string {
	var b strings.Builder
	for range 1 + r.IntN(12) {
		b.WriteString(r.pick("", "From here", ".", "..dot", "--b", "trailing ", "\ttab", ">quote", r.words(8), strings.Repeat("x", 900+r.IntN(300))))
		b.WriteByte('\n')
	}
	return b.String() + "."
}

func (r builder) bytes() []byte {
	b := make([]byte, r.IntN(3000))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (r builder) file(i int) mime.File {
	if r.IntN(3) == 0 {
		return mime.File{Name: fmt.Sprintf("notes %d.csv", i), Type: "text/csv; charset=utf-8", Data: []byte(r.text())}
	}
	return mime.File{Name: fmt.Sprintf(r.pick("file %d.bin", "naïve café %d.bin", "日本 %d.bin", "a \"b\" %d.bin", strings.Repeat("long", 30)+"%d.bin"), i), Type: "application/octet-stream", Data: r.bytes()}
}

// content is a random tree of parts; it returns its leaves in order.
func (r builder) content(depth int) (mime.Content, []leaf) {
	var c mime.Content
	if depth > 0 && r.IntN(2) == 0 {
		if err := c.Header.Add("Content-Type", "multipart/"+r.pick("mixed", "parallel", "x-odd")); err != nil {
			panic(err)
		}
		var all []leaf
		for range 1 + r.IntN(3) {
			p, l := r.content(depth - 1)
			c.Parts = append(c.Parts, p)
			all = append(all, l...)
		}
		return c, all
	}
	t, data := "text/plain", []byte(r.text())
	switch r.IntN(3) {
	case 0:
		t, data = "application/x-data", r.bytes()
	case 1:
		t = "text/x-odd"
	}
	full := t
	if strings.HasPrefix(t, "text/") {
		full += "; charset=utf-8"
	}
	if err := c.Header.Add("Content-Type", full); err != nil {
		panic(err)
	}
	c.Body = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return c, []leaf{{t, "", digest(t, data)}}
}

// message makes one message and what must be read back.
func (r builder) message(i int) (*mime.Message, read) {
	addr := func(l string) smtp.Address { return smtp.Address{Local: l, Domain: "example.test"} }
	from := r.words(3)
	m := &mime.Message{
		From: []mime.Address{{Name: from, Address: addr("ann")}}, To: []mime.Address{{Name: r.words(2), Address: addr("bob")}},
		Subject: r.words(20), Date: time.Date(2024, 5, 1, 9, 8, 7, 0, time.UTC), MessageID: fmt.Sprintf("%d@example.test", i),
	}
	want := read{Subject: m.Subject, From: from, To: []string{"bob@example.test"}}
	for range r.IntN(3) {
		m.To = append(m.To, mime.Address{Address: addr("carol")})
		want.To = append(want.To, "carol@example.test")
	}
	add := func(t, name string, data []byte) {
		want.Leaves = append(want.Leaves, leaf{t, name, digest(t, data)})
	}
	if r.IntN(3) == 0 {
		var c mime.Content
		c, want.Leaves = r.content(4)
		m.Parts = []mime.Content{c}
		return m, want
	}
	m.Text = r.text()
	add("text/plain", "", []byte(m.Text))
	if r.IntN(2) == 0 {
		m.HTML = "<p>" + r.text() + "</p>"
		add("text/html", "", []byte(m.HTML))
		for k := range r.IntN(3) {
			f := mime.File{Name: fmt.Sprintf("pic%d.png", k), Type: "image/png", Data: r.bytes()}
			m.Inline = append(m.Inline, f)
			add(f.Type, f.Name, f.Data)
		}
	}
	for k := range r.IntN(4) {
		f := r.file(k)
		m.Attachments = append(m.Attachments, f)
		t, _, _ := strings.Cut(f.Type, ";")
		add(t, f.Name, f.Data)
	}
	return m, want
}

// built writes the messages into files of a folder.
func built(t *testing.T) (files []string, raw [][]byte, want []read) {
	t.Helper()
	dir := t.TempDir()
	r := builder{rand.New(rand.NewPCG(1, 2))}
	for i := range *messages {
		m, w := r.message(i)
		var b bytes.Buffer
		if _, err := m.WriteTo(&b); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		name := filepath.Join(dir, fmt.Sprintf("%04d.eml", i))
		write(t, name, b.String())
		files, raw, want = append(files, name), append(raw, b.Bytes()), append(want, w)
	}
	return files, raw, want
}

func compare(t *testing.T, files []string, i int, got, want read) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+q\nwant %+q", filepath.Base(files[i]), got, want)
	}
}

// TestBuiltMessages reads what the builder wrote with our own parser and
// those of others.
func TestBuiltMessages(t *testing.T) {
	files, raw, want := built(t)
	t.Run("postrider", func(t *testing.T) {
		for i, b := range raw {
			p, err := mime.Parse(bytes.NewReader(b), int64(len(b)), mime.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			got := read{Subject: p.Header.Text("Subject")}
			from, _ := p.Header.Addresses("From")
			got.From = from[0].Name
			to, _ := p.Header.Addresses("To")
			for _, a := range to {
				got.To = append(got.To, a.Address.String())
			}
			var walk func(p *mime.Part)
			walk = func(p *mime.Part) {
				if len(p.Defects) > 0 {
					t.Errorf("message %d: %v", i, p.Defects)
				}
				if p.IsMultipart() {
					for _, c := range p.Parts {
						walk(c)
					}
					return
				}
				data, err := io.ReadAll(p.Decoded(bytes.NewReader(b)))
				if err != nil {
					t.Error(err)
				}
				mt := p.Type + "/" + p.Subtype
				got.Leaves = append(got.Leaves, leaf{mt, p.FileName(), digest(mt, data)})
			}
			walk(p)
			compare(t, files, i, got, want[i])
		}
	})
	t.Run("go-message", func(t *testing.T) {
		for i, b := range raw {
			e, err := message.Read(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			subject, err := e.Header.Text("Subject")
			if err != nil {
				t.Error(err)
			}
			got := want[i]
			got.Subject, got.Leaves = subject, nil
			err = e.Walk(func(_ []int, e *message.Entity, err error) error {
				if err != nil {
					return err
				}
				mt, params, err := e.Header.ContentType()
				if err != nil || strings.HasPrefix(mt, "multipart/") {
					return err
				}
				data, err := io.ReadAll(e.Body)
				_, disposition, _ := e.Header.ContentDisposition()
				name := disposition["filename"]
				if name == "" {
					name = params["name"]
				}
				got.Leaves = append(got.Leaves, leaf{mt, name, digest(mt, data)})
				return err
			})
			if err != nil {
				t.Errorf("message %d: %v", i, err)
			}
			compare(t, files, i, got, want[i])
		}
	})
	t.Run("enmime", func(t *testing.T) {
		for i, b := range raw {
			e, err := enmime.ReadEnvelope(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range e.Errors {
				if err.Severe {
					t.Errorf("message %d: %v", i, err)
				}
			}
			got := want[i]
			got.Subject, got.Leaves = e.GetHeader("Subject"), nil
			var walk func(p *enmime.Part)
			walk = func(p *enmime.Part) {
				for ; p != nil; p = p.NextSibling {
					if p.FirstChild != nil {
						walk(p.FirstChild)
						continue
					}
					got.Leaves = append(got.Leaves, leaf{p.ContentType, p.FileName, digest(p.ContentType, p.Content)})
				}
			}
			walk(e.Root)
			compare(t, files, i, got, want[i])
		}
	})
	t.Run("python", func(t *testing.T) {
		need(t, python3)
		script, err := filepath.Abs("python/messages.py")
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for line := range strings.Lines(run(t, t.TempDir(), python3, append([]string{script}, files...)...)) {
			var got struct {
				read
				Defects []string
			}
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatal(err, line)
			}
			if len(got.Defects) > 0 {
				t.Errorf("message %d: %q", i, got.Defects)
			}
			// Python 3.11 keeps the space between two encoded words of a phrase,
			// which RFC 2047 §6.2 says to drop.
			if squeeze := strings.NewReplacer(" ", ""); squeeze.Replace(got.From) == squeeze.Replace(want[i].From) {
				got.From = want[i].From
			}
			compare(t, files, i, got.read, want[i])
			i++
		}
		if i != len(files) {
			t.Errorf("%d messages read", i)
		}
	})
	t.Run("mailparser", func(t *testing.T) {
		need(t, "node", "node/node_modules/mailparser")
		dir, err := filepath.Abs("node")
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for line := range strings.Lines(run(t, dir, "node", append([]string{"parse.mjs"}, files...)...)) {
			var got struct {
				read
				Text, HTML string
			}
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatal(err, line)
			}
			// It joins texts, and gives the rest as attachments: what stands
			// alone is compared.
			w := want[i]
			var files2, texts []leaf
			for _, l := range w.Leaves {
				if l.Name == "" && strings.HasPrefix(l.Type, "text/") {
					texts = append(texts, l)
				} else {
					files2 = append(files2, l)
				}
			}
			if len(texts) > 0 && texts[0].Type == "text/plain" && (len(texts) == 1 || len(texts) == 2 && texts[1].Type == "text/html") && len(w.Leaves) > 0 && w.Leaves[0] == texts[0] {
				if d := digest("text/plain", []byte(got.Text)); d != texts[0].Sum {
					t.Errorf("message %d: text %q", i, got.Text)
				}
				binary := func(all []leaf) (b []leaf) {
					for _, l := range all {
						if !strings.HasPrefix(l.Type, "text/") {
							b = append(b, l)
						}
					}
					return b
				}
				got.Leaves, w.Leaves = binary(got.Leaves), binary(files2)
			} else {
				got.Leaves, w.Leaves = nil, nil
			}
			compare(t, files, i, got.read, w)
			i++
		}
		if i != len(files) {
			t.Errorf("%d messages read", i)
		}
	})
}

// doveadm runs Dovecot over mail at a location, "maildir:" or "mbox:" and a
// folder, with a configuration of its own and without a server.
func doveadm(t *testing.T, location string, args ...string) string {
	t.Helper()
	need(t, "doveadm")
	t.Setenv("USER", "ann")
	_, folder, _ := strings.Cut(location, ":")
	folder, _, _ = strings.Cut(folder, ":")
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		// Dovecot touches no mail as root.
		uid, gid = 65534, 65534
		err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, uid, gid))
		})
		if err = errors.Join(err, os.Chmod(filepath.Dir(filepath.Dir(folder)), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "dovecot.conf")
	write(t, conf, fmt.Sprintf("base_dir = %s\nlog_path = /dev/stderr\nstats_writer_socket_path =\nmail_location = %s\nssl = no\n"+
		"mail_uid = %d\nmail_gid = %d\nfirst_valid_uid = 0\nfirst_valid_gid = 0\n", dir, location, uid, gid))
	return run(t, dir, "doveadm", append([]string{"-c", conf}, args...)...)
}
