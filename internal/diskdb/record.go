package diskdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrDamaged: a record is not what was written.
var ErrDamaged = errors.New("damaged record")

// A record is its version, its content and a CRC-32C of both.
const recordVersion = 1

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Writer appends values to a record.
type Writer struct{ B []byte }

// Record begins a record; size is a hint in octets.
func Record(size int) *Writer { return &Writer{append(make([]byte, 0, size+8), recordVersion)} }

// Seal ends the record and returns it.
func (w *Writer) Seal() []byte {
	w.B = binary.BigEndian.AppendUint32(w.B, castagnoli(w.B))
	return w.B
}

// Uint appends a number in as many octets as it needs.
func (w *Writer) Uint(v uint64) { w.B = binary.AppendUvarint(w.B, v) }

// Int is Uint for what may be negative.
func (w *Writer) Int(v int64) { w.B = binary.AppendVarint(w.B, v) }

// Octet appends one octet.
func (w *Writer) Octet(v byte) { w.B = append(w.B, v) }

// Fixed appends a number in eight octets.
func (w *Writer) Fixed(v uint64) { w.B = binary.BigEndian.AppendUint64(w.B, v) }

// Text appends a string with its length.
func (w *Writer) Text(s string) {
	w.Uint(uint64(len(s)))
	w.B = append(w.B, s...)
}

// Bytes appends octets with their length.
func (w *Writer) Bytes(b []byte) {
	w.Uint(uint64(len(b)))
	w.B = append(w.B, b...)
}

// Reader takes values out of a record. Its first error stays.
type Reader struct {
	B   []byte
	err error
}

// Unseal returns a Reader of what is in a record.
func Unseal(b []byte) (Reader, error) {
	if len(b) < 5 {
		return Reader{}, fmt.Errorf("%w: %d octets", ErrDamaged, len(b))
	}
	end := len(b) - 4
	if castagnoli(b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		return Reader{}, fmt.Errorf("%w: checksum", ErrDamaged)
	}
	if b[0] != recordVersion {
		return Reader{}, fmt.Errorf("%w: version %d", ErrDamaged, b[0])
	}
	return Reader{B: b[1:end]}, nil
}

// Fail says that a value is out of range.
func (r *Reader) Fail() {
	if r.err == nil {
		r.err = fmt.Errorf("%w: it ends early, or has a value out of range", ErrDamaged)
	}
	r.B = nil
}

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// End reports what went wrong; a record has nothing behind its values.
func (r *Reader) End() error {
	if r.err == nil && len(r.B) > 0 {
		r.Fail()
	}
	return r.err
}

// Uint reads what Writer.Uint wrote.
func (r *Reader) Uint() uint64 {
	if len(r.B) > 0 && r.B[0] < 0x80 {
		v := r.B[0]
		r.B = r.B[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.B)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.B = r.B[n:]
	return v
}

// Uint32 reads a number that must fit.
func (r *Reader) Uint32() uint32 {
	v := r.Uint()
	if v > 1<<32-1 {
		r.Fail()
		return 0
	}
	return uint32(v)
}

// Int reads what Writer.Int wrote.
func (r *Reader) Int() int64 {
	u := r.Uint()
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

// Size reads a length or a size: not negative as an int64.
func (r *Reader) Size() int64 {
	v := r.Uint()
	if v > 1<<62 {
		r.Fail()
		return 0
	}
	return int64(v)
}

// Take returns the next n octets, which belong to the record.
func (r *Reader) Take(n uint64) []byte {
	if n > uint64(len(r.B)) {
		r.Fail()
		return nil
	}
	v := r.B[:n]
	r.B = r.B[n:]
	return v
}

// Octet reads one octet.
func (r *Reader) Octet() byte {
	if b := r.Take(1); b != nil {
		return b[0]
	}
	return 0
}

// Fixed reads what Writer.Fixed wrote.
func (r *Reader) Fixed() uint64 {
	if b := r.Take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Text reads what Writer.Text wrote.
func (r *Reader) Text() string { return string(r.Take(r.Uint())) }

// Bytes reads what Writer.Bytes wrote; they belong to the record.
func (r *Reader) Bytes() []byte { return r.Take(r.Uint()) }

// Count reads how many values follow, each of at least one octet: what a
// record says must not cost more than it is long.
func (r *Reader) Count() int {
	n := r.Uint()
	if n > uint64(len(r.B)) {
		r.Fail()
		return 0
	}
	return int(n)
}
