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
// once writing is over, many may read. After Close it fails with os.ErrClosed.
type Spool struct {
	// Memory is how many octets stay in memory; 0 = DefaultMemory, negative =
	// none.
	Memory int
	// Dir is where the temporary file goes; "" = os.TempDir.
	Dir    string
	mem    []byte
	file   *os.File
	path   string // to be removed at Close; "" = done
	size   int64
	closed bool
}

// DefaultMemory is how much of a message stays in memory, in octets.
const DefaultMemory = 128 << 10

var errOffset = errors.New("spool: negative offset")

// Write appends p. After an error the spool can only be closed.
func (s *Spool) Write(p []byte) (int, error) {
	if s.closed {
		return 0, fmt.Errorf("spool: %w", os.ErrClosed)
	}
	if s.file == nil {
		limit := s.Memory
		if limit == 0 {
			limit = DefaultMemory
		}
		if len(s.mem)+len(p) <= limit {
			s.mem = append(s.mem, p...)
			s.size += int64(len(p))
			return len(p), nil
		}
		if err := s.spill(); err != nil {
			return 0, fmt.Errorf("spool: %w", err)
		}
	}
	n, err := s.file.Write(p)
	s.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("spool: %w", err)
	}
	return n, nil
}

// spill moves what is in memory to a file.
func (s *Spool) spill() error {
	f, err := os.CreateTemp(s.Dir, "postrider-spool-*")
	if err != nil {
		return err
	}
	// Unlinked at once where the system can: a killed process leaves nothing
	// behind. Elsewhere Close does it.
	if os.Remove(f.Name()) != nil {
		s.path = f.Name()
	}
	s.file = f
	if _, err := f.Write(s.mem); err != nil {
		return err
	}
	s.mem = nil
	return nil
}

// Size returns how many octets were written.
func (s *Spool) Size() int64 { return s.size }

// ReadAt implements io.ReaderAt.
func (s *Spool) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case s.closed:
		return 0, fmt.Errorf("spool: %w", os.ErrClosed)
	case off < 0:
		return 0, errOffset
	case s.file != nil:
		return s.file.ReadAt(p, off)
	case off >= int64(len(s.mem)):
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
	s.closed, s.mem, s.size = true, nil, 0
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	err := f.Close()
	if s.path != "" {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}
