package arc

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/internal/canon"
	"github.com/postrider/postrider/internal/conformance"
)

// zone is a resolver over TXT records.
type zone map[string]string

func (z zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	name, absolute := strings.CutSuffix(strings.ToLower(name), ".")
	if !absolute {
		return nil, &net.DNSError{Err: "name is not absolute", Name: name}
	}
	switch txt, ok := z[name]; {
	case !ok:
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	case txt == "SERVFAIL":
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	default:
		return []string{txt}, nil
	}
}

// scenario is a document of the suite.
type scenario struct {
	description, domain, selector, key string
	dns                                zone
	cases                              []suiteCase
}

type suiteCase struct {
	name string
	tags map[string]string // description, message, cv, …
}

// readSuite reads as much of YAML as the suite uses.
func readSuite(t *testing.T, name string) (out []scenario) {
	t.Helper()
	b, err := os.ReadFile(conformance.Path(t, "arc", name))
	if err != nil {
		t.Fatal(err)
	}
	for doc := range strings.SplitSeq("\n"+string(b), "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		s := scenario{dns: zone{}}
		section := ""
		lines := strings.Split(doc, "\n")
		for i := 0; i < len(lines); i++ {
			l := lines[i]
			text := strings.TrimLeft(l, " ")
			if text == "" || text[0] == '#' {
				continue
			}
			indent := len(l) - len(text)
			key, value, ok := strings.Cut(text, ":")
			if !ok {
				t.Fatalf("%s: %q", name, l)
			}
			value = strings.TrimSpace(value)
			if value == "|" || value == ">-" {
				kind := value
				var block []string
				for i+1 < len(lines) {
					next := lines[i+1]
					if rest := strings.TrimLeft(next, " "); rest != "" && len(next)-len(rest) <= indent {
						break
					}
					block = append(block, next[min(len(next), indent+2):])
					i++
				}
				value = strings.TrimRight(strings.Join(block, "\n"), "\n") + "\n"
				if value == "\n" {
					value = ""
				}
				if kind == ">-" {
					value = strings.TrimSpace(strings.ReplaceAll(value, "\n", " "))
				}
			}
			switch {
			case indent == 0 && value == "":
				section = key
			case indent == 0:
				switch key {
				case "description":
					s.description = value
				case "domain":
					s.domain = value
				case "sel":
					s.selector = value
				case "privatekey":
					s.key = value
				default:
					t.Fatalf("%s: %q", name, l)
				}
			case section == "txt-records":
				s.dns[key] = value
			case section == "tests" && indent == 2:
				s.cases = append(s.cases, suiteCase{key, map[string]string{}})
			case section == "tests":
				s.cases[len(s.cases)-1].tags[key] = value
			default:
				t.Fatalf("%s: %q", name, l)
			}
		}
		out = append(out, s)
	}
	return out
}

func wire(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

// validate verifies a message at once and an octet at a time.
func validate(t *testing.T, v *Verifier, msg []byte) *Chain {
	t.Helper()
	var chains [2]*Chain
	for i, size := range []int{max(1, len(msg)), 1} {
		p := v.Begin(t.Context())
		for b := range slices.Chunk(msg, size) {
			p.Write(b)
		}
		var err error
		if chains[i], err = p.Result(); err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	if fmt.Sprint(chains[0].Result, chains[0].Err, chains[0].OldestPass, chains[0]) != fmt.Sprint(chains[1].Result, chains[1].Err, chains[1].OldestPass, chains[1]) {
		t.Errorf("at once %+v, an octet at a time %+v", chains[0], chains[1])
	}
	return chains[0]
}

// TestConformance runs the validation part of the suite, which is of a draft of
// December 2016.
func TestConformance(t *testing.T) {
	total, passed := 0, 0
	for _, s := range readSuite(t, "arc-draft-validation-tests.yml") {
		for _, c := range s.cases {
			total++
			ok := t.Run(c.name, func(t *testing.T) {
				want := auth.Result(strings.ToLower(strings.TrimSpace(c.tags["cv"])))
				if want == "" {
					// In the draft a validator had nothing to say about a
					// chain in which somebody said cv=fail; by RFC 8617 §5.2
					// steps 2 and 3 it has failed.
					want = auth.Fail
				}
				if c.name == "ams_fields_c_na" {
					// The suite takes c= for relaxed/relaxed then. By RFC 8617
					// §4.1.2 it means what it means in RFC 6376 §3.5, where
					// it is simple/simple.
					want = auth.Fail
				}
				got := validate(t, &Verifier{Resolver: s.dns}, wire(c.tags["message"]))
				if got.Result != want || (got.Err != nil) != (want == auth.Fail) {
					t.Errorf("%s: %s (%v), want %s", c.tags["description"], got.Result, got.Err, want)
				}
				if got.Result == auth.Pass && (len(got.Sets) == 0 || got.Sets[0].Results == nil) {
					t.Errorf("%+v", got)
				}
			})
			if ok {
				passed++
			}
		}
	}
	if total < 100 {
		t.Errorf("only %d cases were read", total)
	}
	t.Logf("arc/arc-draft-validation-tests.yml: %d of %d", passed, total)
}

// TestSamples validates real messages.
func TestSamples(t *testing.T) {
	dir := conformance.Path(t, "arc", "samples")
	b, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		ID, File string
		DNS      zone
		Expect   []auth.Result
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		msg, err := os.ReadFile(filepath.Join(dir, c.File))
		if err != nil {
			t.Fatal(err)
		}
		if got := validate(t, &Verifier{Resolver: c.DNS}, msg); !slices.Contains(c.Expect, got.Result) {
			t.Errorf("%s: %s (%v), want %v", c.ID, got.Result, got.Err, c.Expect)
		}
	}
	t.Logf("arc/samples: %d cases", len(cases))
}

var space = regexp.MustCompile(`\s+`)

// tagsOf returns the tags of a field without white space.
func tagsOf(t *testing.T, value string) map[string]string {
	t.Helper()
	list, err := canon.ParseTags(value)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, tag := range list {
		out[tag.Name] = space.ReplaceAllString(tag.Value, "")
	}
	return out
}

// TestConformanceSealing runs the sealing part of the suite. Its fields have
// their tags in the order of the alphabet, while RFC 8617 §4.1.2 and §4.1.3 want
// the instance first, so our signatures are over other octets: b= is compared
// for the suite's own fields, all else for ours.
func TestConformanceSealing(t *testing.T) {
	total, passed := 0, 0
	for _, s := range readSuite(t, "arc-draft-sign-tests.yml") {
		key, err := dkim.ParsePrivateKey([]byte(s.key))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s.cases {
			total++
			ok := t.Run(c.name, func(t *testing.T) {
				msg := wire(c.tags["message"])
				p, err := NewSealer(SealOptions{Domain: s.domain, Selector: s.selector, Key: key,
					Fields: strings.Split(c.tags["sig-headers"], ":"), Oversign: []string{}})
				if err != nil {
					t.Fatal(err)
				}
				stamp, err := strconv.ParseInt(c.tags["t"], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				p.now = func() time.Time { return time.Unix(stamp, 0) }
				p.Write(msg)
				got, err := p.Seal(Collect(msg, c.tags["srv-id"]))
				if err != nil {
					t.Fatal(err)
				}
				v := &Verifier{Resolver: s.dns}
				if chain := validate(t, v, append([]byte(got), msg...)); chain.Result != auth.Pass || len(chain.Sets) != 1 {
					t.Errorf("what we seal does not validate: %v", chain.Err)
				}
				fields := strings.Split(regexp.MustCompile(`\r\nARC-`).ReplaceAllString(got, "\x00ARC-"), "\x00")
				if len(fields) != 3 {
					t.Fatalf("%d fields", len(fields))
				}
				_, aar, _ := strings.Cut(fields[2], ":")
				if got, want := space.ReplaceAllString(aar, ""), space.ReplaceAllString(c.tags["AAR"], ""); got != want {
					t.Errorf("%s, want %s", got, want)
				}
				theirs := "ARC-Seal: " + strings.TrimSpace(c.tags["AS"]) + "\nARC-Message-Signature: " + strings.TrimSpace(c.tags["AMS"]) +
					"\nARC-Authentication-Results: " + strings.TrimSpace(c.tags["AAR"]) + "\n"
				for i, name := range []string{"AS", "AMS"} {
					_, value, _ := strings.Cut(fields[i], ":")
					mine, want := tagsOf(t, value), tagsOf(t, c.tags[name])
					delete(mine, "b")
					b := want["b"]
					delete(want, "b")
					if fmt.Sprint(mine) != fmt.Sprint(want) {
						t.Errorf("%s: %v, want %v", name, mine, want)
					}
					if again := resign(t, theirs, name, msg, key.(*rsa.PrivateKey)); again != b {
						t.Errorf("%s: b=%s, want %s", name, again, b)
					}
				}
			})
			if ok {
				passed++
			}
		}
	}
	t.Logf("arc/arc-draft-sign-tests.yml: %d of %d", passed, total)
}

// resign makes the signature of a field of the suite, whose lines were folded
// inside of b= only when they were printed.
func resign(t *testing.T, set, name string, msg []byte, key *rsa.PrivateKey) string {
	t.Helper()
	set = regexp.MustCompile(`b=[^;]*`).ReplaceAllStringFunc(set, func(s string) string { return space.ReplaceAllString(s, "") })
	block := append(wire(regexp.MustCompile(`\n([^A])`).ReplaceAllString(set, "\n $1")), msg...)
	end := strings.Index(string(block), "\r\n\r\n") + 2
	block = block[:end]
	fields, err := canon.Split(block)
	if err != nil {
		t.Fatal(err)
	}
	sets, err := collect(block, fields)
	if err != nil || len(sets) != 1 {
		t.Fatal(err)
	}
	digest := sealed(block, fields, sets)[0]
	if name == "AMS" {
		m := sets[0].ams
		text := canon.Select(nil, block, fields, make([]bool, len(fields)), m.fields, true)
		f := fields[sets[0].message]
		digest = sha256.Sum256(append(text, appendUnsigned(nil, block[f.Start:f.End], m, true)...))
	}
	b, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}
