package smtpserver

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocumentedCodes holds the table of replies in doc.go to the code: each
// code that the server gives by itself is in it, and no other.
func TestDocumentedCodes(t *testing.T) {
	given := map[string]bool{}
	call := regexp.MustCompile(`(?:\.(?:reply|bad)\(|Code: |\.Code = )([2-5]\d\d)\b`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(src), -1) {
			given[m[1]] = true
		}
	}
	given["451"] = true // of smtp.ReplyFor
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^//\t([2-5]\d\d)(?: ([2-5]\d\d))?  `).FindAllStringSubmatch(string(doc), -1) {
		documented = append(documented, m[1])
		if m[2] != "" {
			documented = append(documented, m[2])
		}
	}
	for code := range given {
		if !slices.Contains(documented, code) {
			t.Errorf("%s is given but not documented", code)
		}
	}
	for _, code := range documented {
		if !given[code] {
			t.Errorf("%s is documented but not given", code)
		}
	}
}
