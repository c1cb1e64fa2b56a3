package diskdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// blobFooter is how long the end of a file of values is, which tells the
// database what the file holds.
const blobFooter = 38

// Open keeps the database from a panic, which it has where a file of values
// vanished while it ran, or its end is damaged. What else of the file is damaged it tells.
func (t tables) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := t.FS.Open(name, o...)
	if !strings.HasSuffix(name, ".blob") {
		return f, err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is gone", ErrDamaged, name)
	}
	if err == nil {
		if err = checkBlob(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return f, err
}

// checkBlob looks at the end of a file of values: it begins with a checksum of
// the rest.
func checkBlob(f vfs.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < blobFooter {
		return fmt.Errorf("%w: %d octets", ErrDamaged, info.Size())
	}
	var b [blobFooter]byte
	if _, err := f.ReadAt(b[:], info.Size()-blobFooter); err != nil {
		return err
	}
	sum := castagnoli(b[4:])
	sum = (sum>>15 | sum<<17) + 0xa282ead8 // as LevelDB masked them
	if binary.LittleEndian.Uint32(b[:]) != sum {
		return fmt.Errorf("%w: checksum of its end", ErrDamaged)
	}
	return nil
}
