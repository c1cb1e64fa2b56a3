// Package spool holds one message while it is on its way: in memory up to a
// limit, then in a temporary file.
package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Spool is an io.Writer that can be read at any offset afterwards. The zero
// value keeps all in memory up to DefaultMemory octets. One goroutine writes;
// once writing is over, many may read.
type Spool struct {
	// Memory is how many octets stay in memory; 0 = DefaultMemory.
	Memory int
	// Dir is where the temporary file goes; "" = os.TempDir.
	Dir  string
	mem  []byte
	file *os.File
	size int64
}

// DefaultMemory is how much of a message stays in memory, in octets.
const DefaultMemory = 128 << 10

// Write appends p. After an error the spool can only be closed.
func (s *Spool) Write(p []byte) (int, error) {
	limit := s.Memory
	if limit == 0 {
		limit = DefaultMemory
	}
	if s.file == nil && len(s.mem)+len(p) <= limit {
		s.mem = append(s.mem, p...)
		s.size += int64(len(p))
		return len(p), nil
	}
	if s.file == nil {
		f, err := os.CreateTemp(s.Dir, "postrider-spool-*")
		if err != nil {
			return 0, fmt.Errorf("spool: %w", err)
		}
		// Unlinked at once: a killed process leaves nothing behind.
		os.Remove(f.Name())
		if _, err := f.Write(s.mem); err != nil {
			f.Close()
			return 0, fmt.Errorf("spool: %w", err)
		}
		s.file, s.mem = f, nil
	}
	n, err := s.file.Write(p)
	s.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("spool: %w", err)
	}
	return n, nil
}

// Size returns how many octets were written.
func (s *Spool) Size() int64 { return s.size }

// ReadAt implements io.ReaderAt.
func (s *Spool) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("spool: negative offset")
	}
	if s.file != nil {
		return s.file.ReadAt(p, off)
	}
	if off >= int64(len(s.mem)) {
		return 0, io.EOF
	}
	n := copy(p, s.mem[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Bytes returns the content while it is in memory, nil once it is in a file.
func (s *Spool) Bytes() []byte { return s.mem }

// Close gives memory and file back. It may be called more than once.
func (s *Spool) Close() error {
	s.mem, s.size = nil, 0
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}
