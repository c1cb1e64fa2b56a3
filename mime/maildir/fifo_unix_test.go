//go:build unix

package maildir_test

import (
	"syscall"
	"testing"
)

// makeFIFO makes what would block whoever opens it.
func makeFIFO(t *testing.T, name string) {
	t.Helper()
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
}
