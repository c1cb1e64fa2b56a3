package diskstore

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/postrider/postrider/internal/diskdb"
)

// memFile is a readFile in memory.
type memFile struct{ *bytes.Reader }

func (memFile) Close() error { return nil }

// TestFrameFile reads a file of frames in pieces of any length at any place,
// with the checksums of now and of the first stores, and then damaged.
func TestFrameFile(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 3*frameSize+12345)
	for i := range text {
		text[i] = byte(r.Uint32())
	}
	for name, l := range map[string]*layout{"now": {}, "first": {crc: true}} {
		t.Run(name, func(t *testing.T) {
			for i := 0; i < len(text); i += frameSize {
				b := text[i:min(i+frameSize, len(text))]
				l.add(b, len(b))
			}
			s := new(Store)
			l, err := s.decodeLayout(l.encode(), nil)
			if err != nil {
				t.Fatal(err)
			}
			file := bytes.Clone(text)
			f := &frameFile{f: memFile{bytes.NewReader(file)}, layout: l}
			check := func(off, n int) error {
				t.Helper()
				p := make([]byte, n)
				k, err := f.ReadAt(p, int64(off))
				if want := min(n, len(text)-off); err == nil && k != n || err == io.EOF && (k != want || k == n) {
					t.Fatalf("%d at %d: %d, %v", n, off, k, err)
				}
				if err == nil || err == io.EOF {
					if !bytes.Equal(p[:k], text[off:off+k]) {
						t.Fatalf("%d at %d: other octets", n, off)
					}
					return nil
				}
				return err
			}
			for _, step := range []int{1000, frameSize/2 + 1, frameSize - 300, frameSize, frameSize + 300, 2 * frameSize, len(text)} {
				for off := 0; off < len(text); off += step {
					if err := check(off, step); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 2000 {
				off := r.IntN(len(text))
				if err := check(off, 1+r.IntN(2*frameSize)); err != nil {
					t.Fatal(err)
				}
			}
			// One octet at the end of the second frame.
			file[2*frameSize-1] ^= 1
			f = &frameFile{f: memFile{bytes.NewReader(file)}, layout: l}
			for _, c := range []struct {
				off, n int
				bad    bool
			}{{0, frameSize, false}, {frameSize, frameSize - 1, true}, {frameSize, 10, true}, {2*frameSize - 10, 20, true}, {0, len(text), true}, {2 * frameSize, frameSize, false}} {
				if err := check(c.off, c.n); errors.Is(err, diskdb.ErrDamaged) != c.bad {
					t.Errorf("%d at %d of a damaged file: %v", c.n, c.off, err)
				}
			}
		})
	}
}
