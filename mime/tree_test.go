package mime_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	stdmime "mime"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message"

	"github.com/postrider/postrider/mime"
)

// treeNode is what a random part was made of.
type treeNode struct {
	mediaType   string
	name        string
	description string
	body        string // of a leaf: as it must be read, with CRLF when it is text
	parts       []*treeNode
	message     bool
}

var treeWords = []string{"alpha", "Grüße", "日本語", "a=b", "--x", "From", ".", "", " ", "\t", "=?x?=", "𝕏", "\u00a0", "long-long-long-long-long-long-word", "..", "\"q\"", "\\", "%41", "'"}

func treeText(r *rand.Rand, n int, sep string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(sep[r.IntN(len(sep)):][:1])
		}
		b.WriteString(treeWords[r.IntN(len(treeWords))])
	}
	return b.String()
}

// randomTree makes a tree and the Content to be written for it.
func randomTree(r *rand.Rand, depth int) (*treeNode, mime.Content) {
	n := &treeNode{}
	var c mime.Content
	add := func(name, value string) {
		if err := c.Header.Add(name, value); err != nil {
			panic(err)
		}
	}
	if depth < 4 && r.IntN(3) == 0 || depth == 0 && r.IntN(3) > 0 {
		n.mediaType = "multipart/" + []string{"mixed", "alternative", "related", "digest", "x-other"}[r.IntN(5)]
		add("Content-Type", n.mediaType+"; x=\"y z\"")
		for range 1 + r.IntN(4) {
			t, p := randomTree(r, depth+1)
			n.parts = append(n.parts, t)
			c.Parts = append(c.Parts, p)
		}
		return n, c
	}
	n.description = strings.Join(strings.Fields(treeText(r, r.IntN(4), " ")), " ")
	if n.description != "" && !strings.Contains(n.description, "=?") {
		add("Content-Description", n.description)
	} else {
		n.description = ""
	}
	n.name = strings.Join(strings.Fields(treeText(r, r.IntN(5), " ")), " ")
	disposition := ""
	if n.name != "" {
		// As the standard library writes it, another hand than ours.
		disposition = stdmime.FormatMediaType("attachment", map[string]string{"filename": n.name})
		add("Content-Disposition", disposition)
	}
	var raw string
	switch r.IntN(4) {
	case 0, 1:
		n.mediaType = "text/" + []string{"plain", "html", "x-y"}[r.IntN(3)]
		add("Content-Type", n.mediaType+"; charset=utf-8")
		raw = treeText(r, r.IntN(200), "  \n\n\t ")
		n.body = strings.ReplaceAll(raw, "\n", "\r\n")
		if raw != "" && !strings.HasSuffix(raw, "\n") {
			n.body += "\r\n"
		}
	case 2:
		n.mediaType = "application/octet-stream"
		add("Content-Type", n.mediaType)
		b := make([]byte, r.IntN(3000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		raw = string(b)
		n.body = raw
	default:
		n.mediaType, n.message = "message/rfc822", true
		add("Content-Type", n.mediaType)
		inner := &mime.Message{From: []mime.Address{ann}, Date: time.Unix(1e9, 0), MessageID: fmt.Sprint(r.Uint64(), "@x"),
			Subject: n.name, Text: treeText(r, r.IntN(50), " \n")}
		var b bytes.Buffer
		if _, err := inner.WriteTo(&b); err != nil {
			panic(err)
		}
		raw = b.String()
		n.body = raw
	}
	c.Body = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(raw)), nil }
	return n, c
}

func compareTree(p *mime.Part, n *treeNode, b []byte) error {
	if got := p.Type + "/" + p.Subtype; got != n.mediaType {
		return fmt.Errorf("%s, want %s", got, n.mediaType)
	}
	if p.Defects != nil {
		return fmt.Errorf("%v", p.Defects)
	}
	if len(p.Parts) != len(n.parts) || (p.Message != nil) != n.message {
		return fmt.Errorf("%d parts, want %d", len(p.Parts), len(n.parts))
	}
	if n.parts != nil && p.Params["x"] != "y z" {
		return fmt.Errorf("%v", p.Params)
	}
	for i, c := range n.parts {
		if err := compareTree(p.Parts[i], c, b); err != nil {
			return err
		}
	}
	if n.parts != nil {
		return nil
	}
	if got := p.DispositionParams["filename"]; got != n.name {
		return fmt.Errorf("name %q, want %q", got, n.name)
	}
	if got := mime.DecodeText(p.Description); got != n.description {
		return fmt.Errorf("description %q, want %q", got, n.description)
	}
	got, _ := io.ReadAll(p.Decoded(bytes.NewReader(b)))
	if string(got) != n.body {
		return fmt.Errorf("body %q, want %q", got, n.body)
	}
	return nil
}

// compareGoMessage reads the same with go-message.
func compareGoMessage(e *message.Entity, n *treeNode) error {
	t, _, err := e.Header.ContentType()
	if err != nil || t != n.mediaType {
		return fmt.Errorf("go-message: %s %v, want %s", t, err, n.mediaType)
	}
	if r := e.MultipartReader(); r != nil {
		for _, c := range n.parts {
			p, err := r.NextPart()
			if err != nil {
				return fmt.Errorf("go-message: %w", err)
			}
			if err := compareGoMessage(p, c); err != nil {
				return err
			}
		}
		if _, err := r.NextPart(); err != io.EOF {
			return fmt.Errorf("go-message: more parts: %v", err)
		}
		return nil
	}
	b, err := io.ReadAll(e.Body)
	if err != nil {
		return fmt.Errorf("go-message: %w", err)
	}
	if string(b) != n.body {
		return fmt.Errorf("go-message: body %q, want %q", b, n.body)
	}
	return nil
}

// TestRandomTrees builds random trees and reads them back, by Parse, as a
// Stream, after an Edit that changed nothing of them, and with go-message.
func TestRandomTrees(t *testing.T) {
	parts := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		tree, c := randomTree(r, 0)
		m := &mime.Message{From: []mime.Address{ann}, Subject: treeText(r, r.IntN(20), " "), Parts: []mime.Content{c},
			Allow: mime.Allow{EightBit: seed%2 == 1}}
		b := write(t, m)
		p := parse(b)
		for range p.All() {
			parts++
		}
		if err := compareTree(p, tree, b); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, b)
		}
		if got, want := strings.Fields(p.Header.Text("Subject")), strings.Fields(m.Subject); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Fatalf("seed %d: subject %q, want %q", seed, got, want)
		}
		checkStream(t, bytes.NewReader(b), b, mime.Limits{}, false)
		if d, err := p.Check(bytes.NewReader(b)); d != nil || err != nil {
			t.Fatalf("seed %d: %v %v\n%s", seed, d, err, b)
		}
		e, err := message.Read(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("seed %d: go-message: %v\n%s", seed, err, b)
		}
		if err := compareGoMessage(e, tree); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, b)
		}
		// One part is replaced: all others stay.
		edit := mime.Edit{Root: p, Message: bytes.NewReader(b)}
		var nodes []*treeNode
		var all []*mime.Part
		var pair func(q *mime.Part, n *treeNode)
		pair = func(q *mime.Part, n *treeNode) {
			if n.parts == nil && q != p {
				all, nodes = append(all, q), append(nodes, n)
			}
			for i := range n.parts {
				pair(q.Parts[i], n.parts[i])
			}
		}
		pair(p, tree)
		if len(all) == 0 {
			continue
		}
		i := r.IntN(len(all))
		fresh, content := randomTree(r, 3)
		edit.Replace(all[i], content)
		*nodes[i] = *fresh
		var out bytes.Buffer
		if _, err := edit.WriteTo(&out); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := compareTree(parse(out.Bytes()), tree, out.Bytes()); err != nil {
			t.Fatalf("seed %d: edited: %v\n%s", seed, err, out.Bytes())
		}
	}
	t.Logf("%d parts in 400 trees", parts)
}
