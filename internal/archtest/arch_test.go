package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath, Dir                    string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports []string
	DepOnly, Standard                  bool
	Module                             *struct{ Path string }
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json"}, args...)...)
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func short(importPath string) (string, bool) {
	if importPath == Module {
		return ".", true
	}
	return strings.CutPrefix(importPath, Module+"/")
}

func isStd(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// TestImports holds each package's imports against the table.
func TestImports(t *testing.T) {
	pkgs := list(t, "./...")
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages only", len(pkgs))
	}
	for _, p := range pkgs {
		name, ok := short(p.ImportPath)
		if !ok {
			continue
		}
		r, ok := find(name)
		if !ok {
			t.Errorf("%s: no rule for this package: add it to the table in rules.go", name)
			continue
		}
		for _, imp := range p.Imports {
			o, ours := short(imp)
			switch {
			case isStd(imp):
			case ours:
				if !r.mayOurs(o) {
					t.Errorf("%s may not import %s", name, o)
				}
				if isKit(o) && !isKit(name) && !strings.HasPrefix(name, "examples/") {
					t.Errorf("%s imports the test kit %s outside tests", name, o)
				}
			case !r.mayThird(imp):
				t.Errorf("%s may not import %s", name, imp)
			}
			// What only our own tests import.
			ourTests := name == "internal/conformance" || name == "internal/pgtest"
			if imp == "testing" && !isKit(name) && !ourTests {
				t.Errorf("%s imports testing outside tests", name)
			}
		}
	}
}

// TestDependencies bounds what an importer of a light package compiles.
func TestDependencies(t *testing.T) {
	for root, allowed := range map[string]string{
		"./smtp":            "golang.org/x/net golang.org/x/text",
		"./imap":            "golang.org/x/net golang.org/x/text",
		"./pop3":            "",
		"./store":           "",
		"./mime":            "golang.org/x/net golang.org/x/text github.com/emersion/go-message",
		"./smtp/smtpclient": "golang.org/x/net golang.org/x/text golang.org/x/crypto golang.org/x/sys github.com/emersion/go-sasl",
		"./smtp/smtpserver": "golang.org/x/net golang.org/x/text golang.org/x/crypto golang.org/x/sys github.com/emersion/go-sasl",
		"./queue":           "golang.org/x/net golang.org/x/text github.com/emersion/go-message",
		"./auth/dkim":       "golang.org/x/net golang.org/x/text golang.org/x/crypto github.com/emersion/go-message",
		"./auth/verify":     "golang.org/x/net golang.org/x/text golang.org/x/crypto github.com/emersion/go-message",
	} {
		if _, err := os.Stat(filepath.Join("../..", root)); err != nil {
			t.Errorf("%s: %v", root, err)
			continue
		}
		for _, p := range list(t, "-deps", root) {
			if p.Module == nil || p.Module.Path == Module {
				continue
			}
			ok := false
			for m := range strings.FieldsSeq(allowed) {
				ok = ok || p.Module.Path == m
			}
			if !ok {
				t.Errorf("%s compiles %s", root, p.ImportPath)
			}
		}
	}
}

// TestNames keeps dumping grounds and stray folders out.
func TestNames(t *testing.T) {
	top := regexp.MustCompile(`^(smtp|mx|queue|mime|auth|pop3|imap|store|examples|internal|go\.mod|go\.sum|doc\.go|README\.md|LICENSE|CONTRIBUTING\.md|CHANGELOG\.md|SECURITY\.md|\..*)$`)
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !top.MatchString(e.Name()) {
			t.Errorf("%s does not belong at the top of the module", e.Name())
		}
	}
	bad := regexp.MustCompile(`^(core|common|util|utils|types|model|models|helpers|misc|base|shared)(\.go)?$`)
	err = filepath.WalkDir("../..", func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if bad.MatchString(d.Name()) {
			t.Errorf("%s: a name that accepts anything", p)
		}
		if strings.HasSuffix(p, ".go") {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if n := strings.Count(string(b), "\n"); n > 1000 {
				t.Errorf("%s has %d lines; 1,000 is the limit", p, n)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestState keeps init functions out: state belongs to values.
func TestState(t *testing.T) {
	initFunc := regexp.MustCompile(`(?m)^func init\(\)`)
	for _, p := range list(t, "./...") {
		for _, f := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			if initFunc.Match(b) {
				t.Errorf("%s/%s has an init function", p.ImportPath, f)
			}
		}
	}
}

// TestRulesBite shows that the table refuses what it is meant to refuse.
func TestRulesBite(t *testing.T) {
	for _, c := range []struct {
		pkg, imp string
		ours, ok bool
	}{
		{"smtp", "smtp/smtpserver", true, false},
		{"smtp", "internal/lineio", true, true},
		{"auth/login", "internal/lineio", true, false},
		{"auth/dkim", "auth/login", true, false},
		{"auth/verify", "auth/spf", true, true},
		{"imap/imapserver", "store/memstore", true, false},
		{"imap/imapserver", "smtp", true, false},
		{"queue", "mx", true, false},
		{"queue/memqueue", "store", true, false},
		{"examples/journey", "internal/netserve", true, false},
		{"examples/journey", "mx/mxtest", true, true},
		{"examples/journey", "examples/internal/page", true, true},
		{"smtp", "github.com/miekg/dns", false, false},
		{"mx/resolver", "github.com/miekg/dns", false, true},
	} {
		r, found := find(c.pkg)
		if !found {
			t.Fatalf("no rule for %s", c.pkg)
		}
		got := r.mayThird(c.imp)
		if c.ours {
			got = r.mayOurs(c.imp)
		}
		if got != c.ok {
			t.Errorf("%s importing %s: allowed %v, want %v", c.pkg, c.imp, got, c.ok)
		}
	}
}
