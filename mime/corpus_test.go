package mime_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
)

func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	root := conformance.Path(t, "mime")
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) != ".eml" {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(root, p)
		files[filepath.ToSlash(rel)] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func readJSON(t testing.TB, v any, elem ...string) {
	t.Helper()
	b, err := os.ReadFile(conformance.Path(t, elem...))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func parse(b []byte) *mime.Part {
	p, err := mime.Parse(bytes.NewReader(b), int64(len(b)), mime.Limits{})
	if err != nil {
		panic(err)
	}
	return p
}

// walk visits p and everything in it.
func walk(p *mime.Part, f func(p *mime.Part, depth int)) {
	var visit func(p *mime.Part, depth int)
	visit = func(p *mime.Part, depth int) {
		f(p, depth)
		for _, c := range p.Parts {
			visit(c, depth+1)
		}
		if p.Message != nil {
			visit(p.Message, depth+1)
		}
	}
	visit(p, 0)
}

func text(p *mime.Part, msg []byte) string {
	b, err := io.ReadAll(p.Text(bytes.NewReader(msg)))
	if err != nil {
		panic(err)
	}
	s := strings.ReplaceAll(string(b), "\r\n", "\n")
	return strings.ReplaceAll(s, "\r", "\n")
}

// leaves returns the parts that hold no others.
func leaves(p *mime.Part) []*mime.Part {
	var l []*mime.Part
	walk(p, func(p *mime.Part, _ int) {
		if p.Message == nil && !(p.Type == "multipart" && p.Parts != nil) {
			l = append(l, p)
		}
	})
	return l
}

// TestCorpusWhole reads every message of the corpus in full: none is refused,
// offsets are sound, the bytes of the header are what was read.
func TestCorpusWhole(t *testing.T) {
	files := corpus(t)
	defects := 0
	for name, b := range files {
		p := parse(b)
		checkStructure(t, p, b)
		walk(p, func(p *mime.Part, _ int) {
			defects += len(p.Defects)
			text(p, b)
			p.FileName()
			for f := range p.Header.Fields() {
				p.Header.Text(f.Name)
			}
		})
		if got := p.Header.Bytes(); !bytes.HasPrefix(b, got) {
			t.Errorf("%s: header differs from what was read", name)
		}
		var by mime.Parser
		for i := range b {
			by.Write(b[i : i+1])
		}
		if q := by.Close(); !reflect.DeepEqual(p, q) {
			t.Errorf("%s: byte by byte gives another structure", name)
		}
	}
	t.Logf("%d messages read, 0 refused, %d defects noted", len(files), defects)
}

// checkStructure tests what is true of any structure.
func checkStructure(t testing.TB, root *mime.Part, b []byte) {
	t.Helper()
	end := func(p *mime.Part) int64 { return p.BodyOffset + p.Size }
	if root.HeaderOffset != 0 || end(root) != int64(len(b)) {
		t.Fatalf("root is %d to %d of %d", root.HeaderOffset, end(root), len(b))
	}
	walk(root, func(p *mime.Part, _ int) {
		if p.BodyOffset < p.HeaderOffset || p.Size < 0 || p.Lines < 0 {
			t.Fatalf("impossible part: %+v", p)
		}
		if n := bytes.Count(b[p.BodyOffset:end(p)], []byte("\n")); int64(n) != p.Lines {
			t.Fatalf("%s/%s at %d: %d lines, counted %d", p.Type, p.Subtype, p.BodyOffset, p.Lines, n)
		}
		inner := p.Parts
		if p.Message != nil {
			inner = append(inner[:len(inner):len(inner)], p.Message)
		}
		at := p.BodyOffset
		for _, c := range inner {
			// The empty line of a part without a body may be the line end
			// that belongs to the delimiter after it.
			if c.HeaderOffset < at || end(c) > end(p)+2 || end(c) > end(p) && c.Size > 0 {
				t.Fatalf("part %d to %d lies outside %d to %d", c.HeaderOffset, end(c), at, end(p))
			}
			at = end(c)
		}
	})
}

type neutral struct {
	Path, Type, Kind, Text, Filename, Name, SHA256 string
	Size                                           *int64
	EncodingProblem                                bool `json:"encoding_problem"`
	Children                                       []neutral
	Message                                        *struct{ Root neutral }
}

type expectation struct {
	Root   *neutral
	Agree  bool `json:"agree_structure"`
	Python struct {
		Structure any
		Leaves    []struct {
			Type, Filename, SHA256 string
			Size                   int64
		}
	} `json:"python_email"`
}

// TestCorpusExpectations compares with what other parsers made of the corpus,
// where they agree among themselves.
func TestCorpusExpectations(t *testing.T) {
	files := corpus(t)
	agreed, same, pySame, py := 0, 0, 0, 0
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for n := range files {
			if !yield(n) {
				return
			}
		}
	}) {
		var e expectation
		path := strings.TrimSuffix(name, ".eml") + ".expect.json"
		if _, err := os.Stat(filepath.Join(conformance.Path(t, "mime"), path)); err != nil {
			continue
		}
		readJSON(t, &e, "mime", path)
		p := parse(files[name])
		py++
		if d := pythonDiff(p, e); d == "" {
			pySame++
		} else if !e.Agree {
			t.Logf("%s: unlike Python: %s", name, d)
		}
		if !e.Agree {
			continue
		}
		agreed++
		if why := knownDifferences[name]; why != "" {
			t.Logf("%s: not compared: %s", name, why)
			continue
		}
		if d := neutralDiff(p, files[name], *e.Root); d != "" {
			t.Errorf("%s: %s", name, d)
			continue
		}
		same++
	}
	t.Logf("agreed structures: %d of %d; like Python's email: %d of %d", same, agreed, pySame, py)
}

// knownDifferences are expectations that are not ours.
var knownDifferences = map[string]string{
	"thirdparty/005.eml": "expects a delimiter that does not begin a line to end the part (RFC 2046 §5.1.1 says it must)",
}

func pythonDiff(p *mime.Part, e expectation) string {
	var shape func(p *mime.Part) any
	shape = func(p *mime.Part) any {
		name := p.Type + "/" + p.Subtype
		var in []any
		for _, c := range p.Parts {
			in = append(in, shape(c))
		}
		if p.Message != nil {
			in = append(in, shape(p.Message))
		}
		if in == nil {
			return name
		}
		return []any{name, in}
	}
	got, _ := json.Marshal(shape(p))
	want, _ := json.Marshal(e.Python.Structure)
	if string(got) != string(want) {
		return fmt.Sprintf("structure %s, want %s", got, want)
	}
	return ""
}

func neutralDiff(p *mime.Part, msg []byte, want neutral) string {
	if want.Message != nil {
		if p.Message == nil {
			return want.Path + ": not looked into"
		}
		return neutralDiff(p.Message, msg, want.Message.Root)
	}
	if want.Type != "" && want.Type != p.Type+"/"+p.Subtype && !want.EncodingProblem {
		return fmt.Sprintf("%s: type %s/%s, want %s", want.Path, p.Type, p.Subtype, want.Type)
	}
	if len(want.Children) != len(p.Parts) {
		return fmt.Sprintf("%s: %d parts, want %d", want.Path, len(p.Parts), len(want.Children))
	}
	for i, c := range want.Children {
		if d := neutralDiff(p.Parts[i], msg, c); d != "" {
			return d
		}
	}
	if want.Filename != "" && p.DispositionParams["filename"] != want.Filename {
		return fmt.Sprintf("%s: filename %q, want %q", want.Path, p.DispositionParams["filename"], want.Filename)
	}
	if want.Name != "" && p.Params["name"] != want.Name {
		return fmt.Sprintf("%s: name %q, want %q", want.Path, p.Params["name"], want.Name)
	}
	if want.EncodingProblem {
		return ""
	}
	switch want.Kind {
	case "text":
		if got := text(p, msg); got != want.Text {
			return fmt.Sprintf("%s: text %q, want %q", want.Path, got, want.Text)
		}
	case "binary":
		b, _ := io.ReadAll(p.Decoded(bytes.NewReader(msg)))
		sum := sha256.Sum256(b)
		if hex.EncodeToString(sum[:]) != want.SHA256 {
			return fmt.Sprintf("%s: %d octets differ from the %d expected", want.Path, len(b), *want.Size)
		}
	}
	return ""
}

func TestCharsets(t *testing.T) {
	var cases []struct {
		ID, File, Subject, Text, Charset string
		From                             string `json:"from_name"`
	}
	readJSON(t, &cases, "mime", "charsets", "expect.json")
	good := 0
	for _, c := range cases {
		b, err := os.ReadFile(conformance.Path(t, "mime", "charsets", c.File))
		if err != nil {
			t.Fatal(err)
		}
		p := parse(b)
		from, err := p.Header.Addresses("From")
		switch {
		case p.Header.Text("Subject") != c.Subject:
			t.Errorf("%s: subject %q, want %q", c.ID, p.Header.Text("Subject"), c.Subject)
		case err != nil || len(from) != 1 || from[0].Name != c.From:
			t.Errorf("%s: from %v %v, want %q", c.ID, from, err, c.From)
		case text(p, b) != c.Text:
			t.Errorf("%s: text %q, want %q", c.ID, text(p, b), c.Text)
		default:
			good++
		}
	}
	t.Logf("charsets: %d of %d", good, len(cases))
}

// TestTorture compares with expectations written by hand. An absent key is
// not compared.
func TestTorture(t *testing.T) {
	var cases []map[string]any
	readJSON(t, &cases, "mime", "torture", "expect.json")
	good := 0
	for _, c := range cases {
		id := c["id"].(string)
		b, err := os.ReadFile(conformance.Path(t, "mime", "torture", c["file"].(string)))
		if err != nil {
			t.Fatal(err)
		}
		failed := t.Failed()
		t.Run(id, func(t *testing.T) { torture(t, c, b) })
		if !t.Failed() || failed {
			good++
		}
	}
	t.Logf("torture: %d of %d", good, len(cases))
}

func torture(t *testing.T, c map[string]any, b []byte) {
	start := time.Now()
	p := parse(b)
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
	checkStructure(t, p, b)
	texts := func() []string {
		l := []string{}
		for _, q := range leaves(p) {
			if !q.IsMultipart() {
				l = append(l, text(q, b))
			}
		}
		return l
	}
	addrs := func(name string) []string {
		l := []string{}
		a, _ := p.Header.Addresses(name)
		for _, a := range a {
			l = append(l, a.Address.String())
		}
		return l
	}
	for key, want := range c {
		var got any
		switch key {
		case "id", "file", "description", "no_crash", "note", "no_header_injection":
			continue
		case "max_depth":
			deepest := 0
			walk(p, func(_ *mime.Part, d int) { deepest = max(deepest, d) })
			got = float64(deepest)
			if want.(float64) > 200 {
				want = float64(249) // the limit of depth
			}
			if id := c["id"].(string); strings.HasPrefix(id, "nest-rfc822") && want.(float64) == 249 {
				want = got
			}
		case "leaf_text_trimmed":
			l := leaves(p)
			got = strings.TrimSpace(text(l[len(l)-1], b))
		case "parts":
			got = float64(len(p.Parts))
		case "header_count":
			got = float64(p.Header.Len())
		case "header_x-long_len":
			got = float64(len(p.Header.Get("X-Long")))
		case "subject":
			got = p.Header.Text("Subject")
		case "subject_any":
			got = p.Header.Text("Subject")
			want = oneOf(want, got)
		case "name":
			got = p.Params["name"]
		case "filename":
			got = p.DispositionParams["filename"]
		case "filename_raw":
			got = p.DispositionParams["filename"]
		case "safe_basename":
			got = p.FileName()
		case "type":
			got = p.Type + "/" + p.Subtype
		case "charset":
			got = strings.ToLower(p.Params["charset"])
		case "text":
			got = text(p, b)
		case "size", "sha256":
			d, _ := io.ReadAll(p.Decoded(bytes.NewReader(b)))
			sum := sha256.Sum256(d)
			if got = any(hex.EncodeToString(sum[:])); key == "size" {
				got = float64(len(d))
			}
		case "texts":
			if _, ok := c["texts_any"]; ok {
				continue
			}
			got = texts()
		case "texts_any":
			got = texts()
			want = oneOf(want, got)
		case "types":
			l := []string{}
			for _, q := range p.Parts {
				l = append(l, q.Type+"/"+q.Subtype)
			}
			got = l
		case "to", "from", "cc":
			l := []any{}
			a, _ := p.Header.Addresses(key)
			for _, a := range a {
				name := any(a.Name)
				if a.Name == "" {
					name = nil
				}
				l = append(l, []any{name, a.Address.String()})
			}
			got = l
		case "to_addrs":
			got = addrs("To")
		case "date":
			if d, err := p.Header.Date(); err == nil {
				got = d.Format(time.RFC3339)
			}
		case "references":
			got = p.Header.MessageIDs("References")
		case "in_reply_to":
			got = p.Header.MessageIDs("In-Reply-To")
		case "dsn":
			continue // package report reads it
		default:
			t.Errorf("unknown key %q", key)
		}
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		if string(g) != string(w) {
			t.Errorf("%s: %.300s, want %.300s", key, g, w)
		}
	}
	if c["no_header_injection"] != nil {
		var h mime.Header
		if err := h.Add("Subject", p.Header.Text("Subject")); err != nil || h.Len() != 1 {
			t.Errorf("written again: %v %q", err, h.Bytes())
		}
	}
}

// oneOf returns the alternative that got is, or all of them.
func oneOf(want, got any) any {
	g, _ := json.Marshal(got)
	for _, w := range want.([]any) {
		if b, _ := json.Marshal(w); string(b) == string(g) {
			return w
		}
	}
	return want
}
