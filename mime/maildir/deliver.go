package maildir

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrKeyword says that a flag cannot be kept: it is no keyword, or there are 26
// others.
var ErrKeyword = errors.New("maildir: keyword cannot be kept")

// Options are for Deliver; the zero one delivers a new message.
type Options struct {
	// Flags are as in Message. A message with flags goes into cur. Keywords
	// are written to the file of Dovecot's name for them: do not do that while
	// a server has the folder open.
	Flags []string
	// Date is when the message was delivered first; zero = now.
	Date time.Time
	// Seen says that a mail reader has taken notice of the message, although
	// it has no flags: it goes into cur.
	Seen bool
}

// Deliver adds a message and returns its key. The file is written in tmp,
// synced, moved, and the folder synced: when Deliver returns nil the message
// survives a crash, and when it fails it is not there. Line ends become LF, as
// is the custom.
func (d Dir) Deliver(r io.Reader, o Options) (key string, err error) {
	info, err := d.info(o.Flags)
	if err != nil {
		return "", err
	}
	now := time.Now()
	name := fmt.Sprintf("%d.M%06dP%d_%s.%s", now.Unix(), now.Nanosecond()/1000, os.Getpid(), rand.Text()[:13], host())
	tmp := filepath.Join(string(d), "tmp", name)
	size, wire, err := write(tmp, r, o.Date)
	if err != nil {
		return "", fmt.Errorf("maildir: %w", err)
	}
	key = fmt.Sprintf("%s,S=%d,W=%d", name, size, wire)
	sub, file := "new", key
	if info != "" || o.Seen {
		sub, file = "cur", key+":2,"+info
	}
	dir := filepath.Join(string(d), sub)
	if err := os.Rename(tmp, filepath.Join(dir, file)); err != nil {
		return "", fmt.Errorf("maildir: %w", errors.Join(err, os.Remove(tmp)))
	}
	if err := syncDir(dir); err != nil {
		return "", fmt.Errorf("maildir: %w", errors.Join(err, os.Remove(filepath.Join(dir, file))))
	}
	return key, nil
}

// write writes the file and removes it when it cannot; wire is the size with
// CRLF line ends.
func write(name string, r io.Reader, date time.Time) (size, wire int64, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, 0, err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
		if err == nil && !date.IsZero() {
			err = os.Chtimes(name, date, date)
		}
		if err != nil {
			os.Remove(name)
		}
	}()
	w := bufio.NewWriterSize(f, 32<<10)
	br := bufio.NewReaderSize(r, 32<<10)
	cr := false
	for {
		b, err := br.ReadSlice('\n')
		if len(b) > 0 {
			end := b[len(b)-1]
			if cr && (end != '\n' || len(b) > 1) {
				w.WriteByte('\r')
				size, wire = size+1, wire+1
			}
			cr = false
			switch {
			case end == '\n':
				b = b[:len(b)-1]
				if n := len(b); n > 0 && b[n-1] == '\r' {
					b = b[:n-1]
				}
				w.Write(b)
				w.WriteByte('\n')
				size, wire = size+int64(len(b))+1, wire+int64(len(b))+2
			case end == '\r':
				cr = true
				b = b[:len(b)-1]
				fallthrough
			default:
				w.Write(b)
				size, wire = size+int64(len(b)), wire+int64(len(b))
			}
		}
		if err == nil || errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != io.EOF {
			return 0, 0, err
		}
		break
	}
	if cr {
		w.WriteByte('\r')
		size, wire = size+1, wire+1
	}
	if err := w.Flush(); err != nil {
		return 0, 0, err
	}
	return size, wire, f.Sync()
}

// info returns the letters of flags.
func (d Dir) info(flags []string) (string, error) {
	var set []byte
	var wanted []string
next:
	for _, f := range flags {
		for _, l := range letters {
			if strings.EqualFold(f, l.flag) {
				set = append(set, l.letter)
				continue next
			}
		}
		if !isKeyword(f) {
			return "", fmt.Errorf("%w: %q", ErrKeyword, f)
		}
		wanted = append(wanted, f)
	}
	if len(wanted) > 0 {
		names, err := d.keywords()
		if err != nil {
			return "", err
		}
		known := len(names)
		for _, k := range wanted {
			i := slices.IndexFunc(names, func(s string) bool { return strings.EqualFold(s, k) })
			if i < 0 {
				if i = len(names); i > 25 {
					return "", fmt.Errorf("%w: %q is one too many", ErrKeyword, k)
				}
				names = append(names, k)
			}
			set = append(set, byte('a'+i))
		}
		if len(names) > known {
			if err := d.writeKeywords(names); err != nil {
				return "", fmt.Errorf("maildir: %w", err)
			}
		}
	}
	slices.Sort(set)
	return string(slices.Compact(set)), nil
}

func (d Dir) writeKeywords(names []string) error {
	f, err := os.CreateTemp(filepath.Join(string(d), "tmp"), "keywords-*")
	if err != nil {
		return err
	}
	for i, k := range names {
		if k != "" {
			_, err = f.WriteString(strconv.Itoa(i) + " " + k + "\n")
			if err != nil {
				break
			}
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(string(d), keywordsFile))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(string(d))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// host returns the name of this host as a name of a file has it.
func host() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "localhost"
	}
	return strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`).Replace(h)
}
