package maildir

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Dir is the path of a Maildir.
type Dir string

// Message is one message of a Dir.
type Message struct {
	// Key is the unique part of the name of its file; it stays when flags
	// change.
	Key string
	// New says that no mail reader has taken notice of it.
	New bool
	// Flags are IMAP flags (\Seen, \Answered, \Flagged, \Draft, \Deleted),
	// $Forwarded, and keywords.
	Flags []string
	// Date is when it was delivered.
	Date time.Time
	// Size is that of the file, in octets. What Open gives is longer when
	// lines end in LF.
	Size int64

	dir  Dir
	path string
}

// The letters of flags, in the order in which they must be.
var letters = [...]struct {
	letter byte
	flag   string
}{
	{'D', `\Draft`}, {'F', `\Flagged`}, {'P', "$Forwarded"}, {'R', `\Answered`}, {'S', `\Seen`}, {'T', `\Deleted`},
}

// keywordsFile names the keywords of the letters a to z.
const keywordsFile = "dovecot-keywords"

// Make makes the folder and its parts, as far as they are missing.
func (d Dir) Make() error {
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(string(d), sub), 0o700); err != nil {
			return fmt.Errorf("maildir: %w", err)
		}
	}
	return nil
}

// Folder returns a folder of the Maildir++ layout, where folders stand in the
// top one with a "." before their name: Folder("Archive.2024"). Names are in
// the modified UTF-7 of IMAP as a rule.
func (d Dir) Folder(name string) Dir { return Dir(filepath.Join(string(d), "."+name)) }

// Folders lists the names of the folders of the Maildir++ layout, sorted.
func (d Dir) Folders() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, fmt.Errorf("maildir: %w", err)
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), ".")
		if !ok || name == "" || !e.IsDir() {
			continue
		}
		if fi, err := os.Stat(filepath.Join(string(d), e.Name(), "cur")); err == nil && fi.IsDir() {
			names = append(names, name)
		}
	}
	return names, nil
}

// Messages yields the messages in no certain order, those in new before those
// in cur. It holds the names of those in new, and no others. A message that goes
// away meanwhile is left out, one whose flags change is yielded once. The
// error is the last thing that is yielded.
func (d Dir) Messages() iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		keywords, err := d.keywords()
		if err != nil {
			yield(nil, err)
			return
		}
		seen := map[string]bool{}
		for _, sub := range []string{"new", "cur"} {
			for m, err := range d.list(sub, keywords) {
				if err != nil {
					yield(nil, err)
					return
				}
				if sub == "new" {
					seen[m.Key] = true
				} else if seen[m.Key] {
					continue
				}
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}

func (d Dir) list(sub string, keywords []string) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		dir := filepath.Join(string(d), sub)
		f, err := os.Open(dir)
		if err != nil {
			yield(nil, fmt.Errorf("maildir: %w", err))
			return
		}
		defer f.Close()
		for {
			entries, err := f.ReadDir(1024)
			for _, e := range entries {
				// Others than files could block, or lead elsewhere.
				if strings.HasPrefix(e.Name(), ".") || !e.Type().IsRegular() {
					continue
				}
				fi, err := e.Info()
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					yield(nil, fmt.Errorf("maildir: %w", err))
					return
				}
				m := &Message{New: sub == "new", Date: fi.ModTime(), Size: fi.Size(), dir: d, path: filepath.Join(dir, e.Name())}
				m.Key, m.Flags = parseName(e.Name(), keywords)
				if !yield(m, nil) {
					return
				}
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("maildir: %w", err))
				return
			}
		}
	}
}

// parseName divides the name of a file.
func parseName(name string, keywords []string) (key string, flags []string) {
	key, info, _ := strings.Cut(name, ":")
	// "2," comes before flags; "1," was for experiments.
	info, ok := strings.CutPrefix(info, "2,")
	if !ok {
		return key, nil
	}
	info, _, _ = strings.Cut(info, ",")
	for _, l := range letters {
		if strings.IndexByte(info, l.letter) >= 0 {
			flags = append(flags, l.flag)
		}
	}
	for i, k := range keywords {
		if k != "" && strings.IndexByte(info, byte('a'+i)) >= 0 && !slices.Contains(flags, k) {
			flags = append(flags, k)
		}
	}
	return key, flags
}

// keywords reads the names of the letters a to z; "" = none.
func (d Dir) keywords() ([]string, error) {
	f, err := os.Open(filepath.Join(string(d), keywordsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("maildir: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("maildir: %w", err)
	}
	return parseKeywords(string(b)), nil
}

func parseKeywords(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		number, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 0 || n > 25 || !isKeyword(name) {
			continue
		}
		for len(names) <= n {
			names = append(names, "")
		}
		names[n] = name
	}
	return names
}

// isKeyword reports whether s can be a keyword: an atom of IMAP, roughly.
func isKeyword(s string) bool {
	return s != "" && len(s) <= 200 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' })
}

// Open opens the message, with CRLF line ends however they are in the file. It
// finds a file whose flags have changed; the error wraps [fs.ErrNotExist] when
// the message is gone.
func (m *Message) Open() (io.ReadCloser, error) {
	f, err := os.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		for _, sub := range []string{"cur", "new"} {
			for other, err2 := range m.dir.list(sub, nil) {
				if err2 != nil {
					break
				}
				if other.Key == m.Key {
					f, err = os.Open(other.path)
					break
				}
			}
			if err == nil {
				break
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("maildir: %w", err)
	}
	return &crlfReader{f: f, br: bufio.NewReaderSize(f, 16<<10)}, nil
}

// crlfReader gives a file CRLF line ends.
type crlfReader struct {
	f   *os.File
	br  *bufio.Reader
	out []byte
	buf []byte
	cr  bool
}

func (c *crlfReader) Close() error { return c.f.Close() }

func (c *crlfReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(c.out) == 0 {
		b, err := c.br.Peek(1)
		if len(b) == 0 {
			return 0, err
		}
		b, _ = c.br.Peek(c.br.Buffered())
		n := len(b)
		c.buf = c.buf[:0]
		for len(b) > 0 {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				c.buf = append(c.buf, b...)
				c.cr = b[len(b)-1] == '\r'
				break
			}
			c.buf = append(c.buf, b[:i]...)
			if i > 0 {
				c.cr = b[i-1] == '\r'
			}
			if !c.cr {
				c.buf = append(c.buf, '\r')
			}
			c.buf = append(c.buf, '\n')
			c.cr = false
			b = b[i+1:]
		}
		c.br.Discard(n)
		c.out = c.buf
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}
