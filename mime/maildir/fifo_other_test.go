//go:build !unix

package maildir_test

import "testing"

// makeFIFO makes nothing: there are none here.
func makeFIFO(*testing.T, string) {}
