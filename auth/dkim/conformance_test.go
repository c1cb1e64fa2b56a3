package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/internal/canon"
	"github.com/postrider/postrider/internal/conformance"
)

// zone is a resolver over TXT records: a name to its text, or one of the
// words NXDOMAIN and SERVFAIL.
type zone map[string]string

func (z zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	name, absolute := strings.CutSuffix(strings.ToLower(name), ".")
	if !absolute {
		return nil, &net.DNSError{Err: "name is not absolute", Name: name}
	}
	switch txt, ok := z[name]; {
	case !ok || txt == "NXDOMAIN":
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	case txt == "SERVFAIL":
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	default:
		return []string{txt}, nil
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// TestConformance runs the verification matrix and the samples, each message
// in one Write, and once more an octet at a time.
func TestConformance(t *testing.T) {
	for _, set := range []string{"matrix", "samples"} {
		dir := conformance.Path(t, "dkim", set)
		var cases []struct {
			ID, Description, File string
			DNS                   zone
			Expect                []auth.Result
			Signatures            int
			Clock                 int64
		}
		readJSON(t, filepath.Join(dir, "cases.json"), &cases)
		passed := 0
		for _, c := range cases {
			ok := t.Run(set+"/"+c.ID, func(t *testing.T) {
				msg, err := os.ReadFile(filepath.Join(dir, c.File))
				if err != nil {
					t.Fatal(err)
				}
				v := &Verifier{Resolver: c.DNS}
				if c.Clock != 0 {
					v.Now = func() time.Time { return time.Unix(c.Clock, 0) }
				}
				var results [2][]Verification
				for i, size := range []int{len(msg), 1} {
					p := v.Begin(t.Context())
					for b := range slices.Chunk(msg, size) {
						p.Write(b)
					}
					if results[i], err = p.Results(); err != nil {
						t.Fatal(err)
					}
					p.Close()
				}
				got := results[0]
				if len(got) == 0 || c.Signatures != 0 && len(got) != c.Signatures {
					t.Fatalf("%d signatures, want %d", len(got), c.Signatures)
				}
				for i := range got {
					if got[i].Result != results[1][i].Result {
						t.Errorf("an octet at a time: %s, at once: %s", results[1][i].Result, got[i].Result)
					}
				}
				result := got[0].Result
				for _, r := range got {
					if r.Result == auth.Pass {
						result = auth.Pass
					}
				}
				if !slices.Contains(c.Expect, result) {
					t.Errorf("%s: %s (%v), want %v", c.Description, result, got[0].Err, c.Expect)
				}
				if (result == auth.Pass) != (len(got) > 0 && slices.ContainsFunc(got, func(v Verification) bool { return v.Err == nil })) {
					t.Errorf("error %v beside %s", got[0].Err, result)
				}
			})
			if ok {
				passed++
			}
		}
		t.Logf("dkim/%s: %d of %d", set, passed, len(cases))
	}
}

func TestCanonicalization(t *testing.T) {
	var cases []struct {
		Kind, Mode, In, Out, SHA256, Ref string
	}
	readJSON(t, conformance.Path(t, "dkim", "canonicalization.json"), &cases)
	passed := 0
	for _, c := range cases {
		ok := true
		switch c.Kind {
		case "header":
			block := []byte(c.In)
			fields, err := canon.Split(block)
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			for _, f := range fields {
				got = canon.AppendField(got, block[f.Start:f.End], c.Mode == "relaxed")
			}
			ok = string(got) == c.Out
		case "body":
			h := canon.NewBody(sha256.New(), c.Mode == "relaxed", -1)
			h.Write([]byte(c.In))
			sum, n := h.Sum()
			want := sha256.Sum256([]byte(c.Out))
			ok = [32]byte(sum) == want && n == int64(len(c.Out))
			if c.SHA256 != "" {
				ok = ok && base64.StdEncoding.EncodeToString(sum[:]) == c.SHA256
			}
		default:
			t.Errorf("kind %q", c.Kind)
		}
		if ok {
			passed++
		} else {
			t.Errorf("%s %s %q (%s)", c.Kind, c.Mode, c.In, c.Ref)
		}
	}
	t.Logf("dkim/canonicalization.json: %d of %d", passed, len(cases))
}

// referenceBody is RFC 6376 §3.4 word for word, slowly.
func referenceBody(body []byte, c Canonicalization) []byte {
	lines := bytes.Split(body, []byte(crlf))
	if c == Relaxed {
		for i, l := range lines {
			var out []byte
			for _, ch := range l {
				if ch == '\t' {
					ch = ' '
				}
				if ch == ' ' && len(out) > 0 && out[len(out)-1] == ' ' {
					continue
				}
				out = append(out, ch)
			}
			lines[i] = bytes.TrimSuffix(out, []byte(" "))
		}
	}
	for len(lines) > 0 && len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	out := bytes.Join(lines, []byte(crlf))
	if len(lines) > 0 || c == Simple {
		out = append(out, crlf...)
	}
	return out
}

func checkBody(t *testing.T, body []byte, sizes ...int) {
	t.Helper()
	for _, c := range []Canonicalization{Simple, Relaxed} {
		want := referenceBody(body, c)
		for _, limit := range []int64{-1, 0, 5, int64(len(want))} {
			text := want
			if limit >= 0 {
				text = want[:min(limit, int64(len(want)))]
			}
			sum := sha256.Sum256(text)
			for _, size := range sizes {
				h := canon.NewBody(sha256.New(), c == Relaxed, limit)
				for rest := body; len(rest) > 0; {
					n := min(size, len(rest))
					h.Write(rest[:n])
					rest = rest[n:]
				}
				if got, n := h.Sum(); [32]byte(got) != sum || n != int64(len(want)) {
					t.Fatalf("%s, l=%d, pieces of %d: %d octets canonical, want %d, of %q", c, limit, size, n, len(want), body)
				}
			}
		}
	}
}

func TestBodyPieces(t *testing.T) {
	// Every text of up to 7 octets over the alphabet that matters.
	const alphabet = "ab \t\r\n"
	var body []byte
	var walk func(depth int)
	walk = func(depth int) {
		checkBody(t, body, 1, 2, 7)
		if depth == 0 {
			return
		}
		for i := range len(alphabet) {
			if alphabet[i] == 'b' && depth > 2 {
				continue
			}
			body = append(body, alphabet[i])
			walk(depth - 1)
			body = body[:len(body)-1]
		}
	}
	depth := 5
	if testing.Short() {
		depth = 4
	}
	walk(depth)
	long := bytes.Repeat([]byte("Now is the time  for all good men\tto come.\r\n\r\n \r\n"+strings.Repeat("x", 300)+" y\r\n"), 40)
	checkBody(t, long, 1, 3, 8, 9, 77, 1024, 1<<20)
	checkBody(t, append(long, strings.Repeat("\r\n \t", 500)...), 1, 5, 1<<20)
}

func FuzzBody(f *testing.F) {
	f.Add([]byte(" C \r\nD \t E\r\n\r\n\r\n"), 3)
	f.Add([]byte("12345678 \r\n12345678\t\r\n   1234\r\r\n!! !\" \n"), 8)
	f.Fuzz(func(t *testing.T, body []byte, size int) {
		checkBody(t, body, max(1, min(size, 1<<16)), 1<<20)
	})
}
