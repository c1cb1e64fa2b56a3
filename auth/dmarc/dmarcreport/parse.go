package dmarcreport

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/postrider/postrider/mime"
)

// What makes a report unreadable.
var (
	ErrNoReport = errors.New("dmarcreport: no report found")
	// ErrFormat says that it is no XML, or not that of a report.
	ErrFormat = errors.New("dmarcreport: not a DMARC report")
	// ErrLimit says that it is larger than Limits allow.
	ErrLimit = errors.New("dmarcreport: report exceeds a limit")
)

// Limits bound what is read of a report. Zero is the default, negative means
// no limit.
type Limits struct {
	Packed  int64 // octets as they came, before decompression; 0 = 16 MiB
	Size    int64 // octets of XML; 0 = 64 MiB
	Records int   // 0 = 100,000
}

func (l Limits) or() Limits {
	l.Packed = orElse(l.Packed, 16<<20)
	l.Size = orElse(l.Size, 64<<20)
	l.Records = int(orElse(int64(l.Records), 100_000))
	return l
}

func orElse(n, standard int64) int64 {
	switch {
	case n == 0:
		return standard
	case n < 0 || n > 1<<40:
		return 1 << 40
	}
	return n
}

const (
	maxDepth = 32       // of elements
	maxValue = 16 << 10 // octets of one element's text; the rest is left out
	maxParts = 100      // of a message that are looked at
	maxList  = 1000     // signatures, reasons, … of one record, defects
)

// Read reads a report: XML, or XML within gzip or zip. The error wraps
// ErrFormat, ErrLimit, ErrNoReport or that of r.
func Read(r io.Reader, l Limits) (*Report, error) {
	l = l.or()
	b, err := readAll(r, l.Packed)
	if err != nil {
		return nil, err
	}
	return unpack(b, l, 2)
}

// ReadMessage reads the report that a message brings, the first one in it. The
// errors are those of Read, with ErrNoReport when no part holds a report.
func ReadMessage(r io.ReaderAt, size int64, l Limits) (*Report, error) {
	root, err := mime.Parse(r, size, mime.Limits{})
	if err != nil {
		return nil, err
	}
	n, failed := 0, error(ErrNoReport)
	var look func(p *mime.Part) *Report
	look = func(p *mime.Part) *Report {
		if n++; n > maxParts {
			return nil
		}
		for _, c := range p.Parts {
			if found := look(c); found != nil {
				return found
			}
		}
		if p.Message != nil {
			return look(p.Message)
		}
		if p.IsMultipart() || !mayHold(p) {
			return nil
		}
		found, err := Read(p.Decoded(r), l)
		if err != nil && (errors.Is(failed, ErrNoReport) || !errors.Is(err, ErrFormat)) {
			failed = err
		}
		return found
	}
	if found := look(root); found != nil {
		return found, nil
	}
	return nil, failed
}

// mayHold reports whether a part may be a report. Types are often wrong, names
// less so.
func mayHold(p *mime.Part) bool {
	switch p.Subtype {
	case "gzip", "x-gzip", "gzip-compressed", "x-gunzip", "zip", "x-zip", "x-zip-compressed", "x-zip-compress", "xml", "octet-stream":
		return true
	}
	name := strings.ToLower(p.FileName())
	return strings.HasSuffix(name, ".xml") || strings.HasSuffix(name, ".gz") || strings.HasSuffix(name, ".zip")
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(b)) > limit {
		return nil, ErrLimit
	}
	return b, err
}

// unpack looks at the first octets of b rather than at names and types, which
// are often wrong. layers is how many times it may be packed.
func unpack(b []byte, l Limits, layers int) (*Report, error) {
	gz, z := bytes.HasPrefix(b, []byte{0x1f, 0x8b}), bytes.HasPrefix(b, []byte("PK\x03\x04"))
	if (gz || z) && layers == 0 {
		return nil, fmt.Errorf("%w: packed again and again", ErrFormat)
	}
	switch {
	case gz:
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		// Some reporters forget the trailer, or write behind it.
		r.Multistream(false)
		inner, err := readAll(r, l.Size)
		if err != nil && (errors.Is(err, ErrLimit) || len(inner) == 0) {
			return nil, fmt.Errorf("%w: %w", pick(err), err)
		}
		return unpack(inner, l, layers-1)
	case z:
		return unzip(b, l, layers)
	}
	return parse(b, l)
}

func pick(err error) error {
	if errors.Is(err, ErrLimit) {
		return ErrLimit
	}
	return ErrFormat
}

// unzip takes the first file that is a report.
func unzip(b []byte, l Limits, layers int) (*Report, error) {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	failed := error(ErrNoReport)
	left := l.Size // for all files together
	for i, f := range z.File {
		if i == maxParts {
			break
		}
		if f.FileInfo().IsDir() || strings.HasPrefix(f.Name, "__MACOSX/") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			failed = fmt.Errorf("%w: %w", ErrFormat, err)
			continue
		}
		inner, err := readAll(r, left)
		r.Close()
		if errors.Is(err, ErrLimit) {
			return nil, err
		}
		left -= int64(len(inner))
		if err != nil {
			failed = fmt.Errorf("%w: %w", ErrFormat, err)
			continue
		}
		report, err := unpack(inner, l, layers-1)
		if err == nil {
			return report, nil
		}
		failed = err
	}
	return nil, failed
}

// parse reads XML. What is not well-formed is mended, if that helps.
func parse(b []byte, l Limits) (*Report, error) {
	if int64(len(b)) > l.Size {
		return nil, ErrLimit
	}
	// Byte order marks, and the UTF-16 they tell of.
	if bytes.HasPrefix(b, []byte("\xef\xbb\xbf")) || bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
		decoded, _, err := transform.Bytes(unicode.BOMOverride(transform.Nop), b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		b = decoded
	}
	report, err := decode(b, l, false)
	if err == nil || !errors.Is(err, ErrFormat) {
		return report, err
	}
	report, again := decode(mend(b), l, true)
	if again != nil {
		return nil, err
	}
	report.defect("XML is not well-formed: %v", err)
	return report, nil
}

// charset lets encoding/xml read other encodings than UTF-8.
func charset(label string, in io.Reader) (io.Reader, error) {
	if strings.HasPrefix(strings.ToLower(label), "utf-16") {
		return in, nil // decoded already, by its byte order mark
	}
	e, err := htmlindex.Get(strings.TrimSpace(label))
	if err != nil {
		return in, nil // most of it is ASCII all the same
	}
	return e.NewDecoder().Reader(in), nil
}

// decode reads the tokens. encoding/xml expands no entities but those of XML
// itself and reads no DTD; depth and length are bounded here.
// cut says that a report whose end is missing will do.
func decode(b []byte, l Limits, cut bool) (*Report, error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	d.CharsetReader = charset
	p := &parser{report: &Report{}, limits: l}
	for {
		t, err := d.Token()
		if err == io.EOF || err != nil && cut && d.InputOffset() >= int64(len(b)) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			if len(p.path) == maxDepth || p.outer == maxDepth {
				return nil, fmt.Errorf("%w: nested too deep", ErrLimit)
			}
			p.start(t)
		case xml.EndElement:
			p.end()
			if len(p.report.Records) > l.Records {
				return nil, fmt.Errorf("%w: too many records", ErrLimit)
			}
			if len(p.path) == 0 && p.seen.root {
				// What stands behind the root does not matter.
				return p.done()
			}
		case xml.CharData:
			if n := min(len(t), maxValue-len(p.text)); n > 0 {
				p.text = append(p.text, t[:n]...)
			}
		}
	}
	return p.done()
}

// mend makes text of what cannot be a tag or an entity: "a < b", "AT&T",
// "<someone@example.org>".
func mend(b []byte) []byte {
	out := make([]byte, 0, len(b)+64)
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '<':
			if isTag(b[i:]) {
				out = append(out, '<')
			} else {
				out = append(out, "&lt;"...)
			}
		case '&':
			if isEntity(b[i:]) {
				out = append(out, '&')
			} else {
				out = append(out, "&amp;"...)
			}
		default:
			if b[i] < ' ' && b[i] != '\t' && b[i] != '\r' && b[i] != '\n' {
				out = append(out, ' ')
			} else {
				out = append(out, b[i])
			}
		}
	}
	return out
}

// isTag reports whether b begins with a tag whose name is made of the
// characters that the names of elements are made of.
func isTag(b []byte) bool {
	const longest = 1024
	b = b[:min(len(b), longest)]
	if bytes.HasPrefix(b, []byte("<?")) || bytes.HasPrefix(b, []byte("<!")) {
		return true
	}
	i := 1
	if i < len(b) && b[i] == '/' {
		i++
	}
	begin := i
	for i < len(b) && (b[i]|0x20 >= 'a' && b[i]|0x20 <= 'z' || b[i] >= '0' && b[i] <= '9' && i > begin || b[i] == '_' || b[i] == ':' || b[i] == '-' && i > begin) {
		i++
	}
	if i == begin || i == len(b) {
		return false
	}
	if b[i] == '>' || bytes.HasPrefix(b[i:], []byte("/>")) {
		return true
	}
	if b[i] != ' ' && b[i] != '\t' && b[i] != '\r' && b[i] != '\n' {
		return false
	}
	end := bytes.IndexAny(b[i:], "<>")
	return end >= 0 && b[i+end] == '>' && (len(bytes.TrimSpace(b[i:i+end])) == 0 || bytes.IndexByte(b[i:i+end], '=') > 0)
}

func isEntity(b []byte) bool {
	end := bytes.IndexByte(b[:min(len(b), 12)], ';')
	if end < 2 {
		return false
	}
	switch name := string(b[1:end]); name {
	case "lt", "gt", "amp", "quot", "apos":
		return true
	default:
		return name[0] == '#' && len(name) > 1 && !strings.ContainsFunc(name[1:], func(r rune) bool {
			return (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'f') && r != 'x'
		})
	}
}
