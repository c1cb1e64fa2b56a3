// Package conformance finds the shared test suites and corpora, which are
// not part of this module.
package conformance

import (
	"os"
	"path/filepath"
	"testing"
)

// Require is the environment variable that turns a missing suite or program
// into a failure; .ci/run sets it.
const Require = "POSTRIDER_REQUIRE"

// Path returns the path of a file or folder of the conformance data:
// $POSTRIDER_CONFORMANCE, else shared/conformance beside the module root. It
// skips the test, saying so, when the data is not there.
func Path(tb testing.TB, elem ...string) string {
	tb.Helper()
	dir := os.Getenv("POSTRIDER_CONFORMANCE")
	if dir == "" {
		root := moduleRoot(tb)
		dir = filepath.Join(filepath.Dir(root), "shared", "conformance")
	}
	p := filepath.Join(append([]string{dir}, elem...)...)
	if _, err := os.Stat(p); err != nil {
		if os.Getenv(Require) != "" {
			tb.Fatalf("conformance data required but absent: %v", err)
		}
		tb.Skipf("conformance data absent (set POSTRIDER_CONFORMANCE): %v", err)
	}
	return p
}

func moduleRoot(tb testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && len(b) > 0 {
			// A nested module (internal/interop) is not the root.
			if filepath.Base(filepath.Dir(dir)) != "internal" {
				return dir
			}
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Skip("conformance data absent: no go.mod above the test")
		}
		dir = up
	}
}
