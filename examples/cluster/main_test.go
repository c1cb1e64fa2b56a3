package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/examples/internal/page"
	"github.com/postrider/postrider/internal/conformance"
)

// TestMain makes the test binary a node when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "node" {
		main()
		return
	}
	os.Exit(m.Run())
}

// skipWithout skips the test when there is no PostgreSQL.
func skipWithout(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, errNoPostgres) && os.Getenv(conformance.Require) == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestShow goes through the proof and looks at what it prints.
func TestShow(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	// A machine that is busy with other tests needs more time for a sign of
	// life.
	err = prove(ctx, page.New(out, false, ""), 4*time.Second, false)
	text, rerr := os.ReadFile(out.Name())
	if rerr != nil {
		t.Fatal(rerr)
	}
	if err != nil {
		t.Logf("%s", text)
	}
	skipWithout(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "IDLE") || strings.Contains(line, "lease") { // measured, not asserted
			t.Log(strings.TrimSpace(line))
		}
	}
}

func TestNodeArguments(t *testing.T) {
	if _, err := parseNode([]string{"-name", "b", "stray"}); err == nil {
		t.Error("a stray argument is taken")
	}
	c, err := parseNode([]string{"-name", "b", "-lease", "1s"})
	if err != nil || c.name != "b" || c.lease != time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	c.cert, c.key = "none.pem", "none.pem"
	if _, err := newNode(t.Context(), c); err == nil {
		t.Error("a node starts without a certificate")
	}
}

// Without PostgreSQL it is said what to do.
func TestNoPostgres(t *testing.T) {
	for _, word := range []string{"apt-get", envDSN} {
		if !strings.Contains(errNoPostgres.Error(), word) {
			t.Errorf("%q does not say %s", errNoPostgres, word)
		}
	}
}
