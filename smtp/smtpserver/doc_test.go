package smtpserver

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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

// TestRepliesHaveTranscripts: each reply that stands in the code is expected
// word for word by a transcript of this package, so that a new one comes with
// its test.
func TestRepliesHaveTranscripts(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var transcripts strings.Builder
	replies := map[string]token.Position{}
	fset := token.NewFileSet()
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "_test.go") {
			if name != "doc_test.go" {
				transcripts.Write(src)
			}
			continue
		}
		f, err := parser.ParseFile(fset, name, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if r := replyIn(n); r != "" {
				replies[r] = fset.Position(n.Pos())
			}
			return true
		})
	}
	if len(replies) < 60 {
		t.Errorf("only %d replies found in the code", len(replies))
	}
	all := strings.ReplaceAll(transcripts.String(), " …", "")
	for r, pos := range replies {
		if !strings.Contains(all, r) {
			t.Errorf("%s: no transcript has %q", pos, r)
		}
	}
}

// replyIn returns the reply that a piece of code gives, as far as it is
// constant, "" when it gives none.
func replyIn(n ast.Node) string {
	text := func(e ast.Expr) string {
		for {
			b, ok := e.(*ast.BinaryExpr)
			if !ok {
				break
			}
			e = b.X
		}
		lit, ok := e.(*ast.BasicLit)
		if !ok {
			return ""
		}
		s, err := strconv.Unquote(lit.Value)
		if err != nil {
			return lit.Value // a number
		}
		return s
	}
	join := func(code, enhanced, words string) string {
		if code == "" {
			return ""
		}
		if enhanced != "" {
			words = enhanced + " " + words
		}
		return strings.TrimRight(code+" "+words, " ")
	}
	switch n := n.(type) {
	case *ast.CallExpr:
		sel, ok := n.Fun.(*ast.SelectorExpr)
		switch {
		case !ok:
		case (sel.Sel.Name == "reply" || sel.Sel.Name == "bad") && len(n.Args) == 3:
			return join(text(n.Args[0]), text(n.Args[1]), text(n.Args[2]))
		case sel.Sel.Name == "hangUp" && len(n.Args) == 1:
			return join("421", "4.7.0", text(n.Args[0]))
		}
	case *ast.AssignStmt: // code, text = 503, "…" of bdat
		if len(n.Lhs) == 2 && len(n.Rhs) == 2 {
			if id, ok := n.Lhs[0].(*ast.Ident); ok && id.Name == "code" {
				return join(text(n.Rhs[0]), "5.5.1", text(n.Rhs[1]))
			}
		}
	case *ast.CompositeLit: // of smtp.Error and smtp.Reply
		var code, enhanced, words string
		for _, e := range n.Elts {
			kv, ok := e.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			switch key, _ := kv.Key.(*ast.Ident); {
			case key == nil:
			case key.Name == "Code":
				code = text(kv.Value)
			case key.Name == "Text":
				words = text(kv.Value)
			case key.Name == "Enhanced":
				if c, ok := kv.Value.(*ast.CompositeLit); ok && len(c.Elts) == 3 {
					enhanced = text(c.Elts[0]) + "." + text(c.Elts[1]) + "." + text(c.Elts[2])
				}
			}
		}
		return join(code, enhanced, words)
	}
	return ""
}
