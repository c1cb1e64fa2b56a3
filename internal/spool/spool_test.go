package spool

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
)

func TestSpool(t *testing.T) {
	for _, c := range []struct {
		name   string
		memory int
		file   bool
	}{
		{"in memory", 0, false},
		{"in a file from the middle on", 1000, true},
		{"in a file", -1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := &Spool{Memory: c.memory, Dir: dir}
			var want []byte
			for i := range 50 {
				piece := bytes.Repeat([]byte{byte(i)}, i*3)
				if n, err := s.Write(piece); n != len(piece) || err != nil {
					t.Fatal(n, err)
				}
				want = append(want, piece...)
			}
			if s.Size() != int64(len(want)) || (s.Bytes() == nil) != c.file {
				t.Errorf("Size %d, in memory %v", s.Size(), s.Bytes() != nil)
			}
			got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()+10))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d octets of %d, %v", len(got), len(want), err)
			}
			b := make([]byte, 10)
			if n, err := s.ReadAt(b, s.Size()-4); n != 4 || !errors.Is(err, io.EOF) {
				t.Errorf("ReadAt over the end: %d, %v", n, err)
			}
			if n, err := s.ReadAt(b, s.Size()+4); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("ReadAt behind the end: %d, %v", n, err)
			}
			if _, err := s.ReadAt(b, -1); err == nil {
				t.Error("ReadAt before the beginning")
			}
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Error(err)
			}
			if _, err := s.Write(b); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Write after Close: %v", err)
			}
			if _, err := s.ReadAt(b, 0); !errors.Is(err, os.ErrClosed) {
				t.Errorf("ReadAt after Close: %v", err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("%v was left behind", left[0].Name())
			}
		})
	}
}

func TestNoPlace(t *testing.T) {
	s := &Spool{Memory: -1, Dir: t.TempDir() + "/gone"}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Fatal("no error without a place for the file")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
