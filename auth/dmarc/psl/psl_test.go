package psl

import (
	"bufio"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/idna"

	"github.com/postrider/postrider/internal/conformance"
)

// TestVectors runs the vectors of the list's publisher, checkPublicSuffix(a, b).
func TestVectors(t *testing.T) {
	f, err := os.Open(conformance.Path(t, "dmarc", "psl", "test_psl.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line := regexp.MustCompile(`^checkPublicSuffix\((null|'[^']*'), (null|'[^']*')\);`)
	checks, passed := 0, 0
	for s := bufio.NewScanner(f); s.Scan(); {
		m := line.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		checks++
		domain, want := strings.Trim(m[1], "'"), strings.Trim(m[2], "'")
		domain, err := idna.ToASCII(domain)
		if err != nil {
			t.Fatal(err)
		}
		want, err = idna.ToASCII(want)
		if err != nil {
			t.Fatal(err)
		}
		if want == "null" {
			// The vectors have no answer for a suffix, or for what begins with a
			// dot; here that is the domain itself, which is its own organization.
			want = strings.ToLower(domain)
		}
		if got := Organizational(domain); got != want {
			t.Errorf("%s: %q, want %q", domain, got, want)
			continue
		}
		passed++
	}
	t.Logf("dmarc/psl/test_psl.txt: %d of %d", passed, checks)
	if checks < 70 {
		t.Errorf("only %d vectors found", checks)
	}
}

func TestOrganizational(t *testing.T) {
	for domain, want := range map[string]string{
		"a.b.example.co.uk": "example.co.uk",
		"Example.ORG.":      "example.org",
		"co.uk":             "co.uk",
		"":                  "",
		"..":                ".",
	} {
		if got := Organizational(domain); got != want {
			t.Errorf("%q: %q, want %q", domain, got, want)
		}
	}
}
