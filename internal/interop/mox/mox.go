//go:build mox

// Package mox pins the mox server that is built for the tests, apart from the
// modules that they themselves need.
package mox

import _ "github.com/mjl-/mox"
