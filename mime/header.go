package mime

import (
	"bytes"
	"errors"
	"iter"
	"strings"
	"time"
	"unsafe"
)

// Errors of the methods that change a Header.
var (
	// ErrInjection says that a name or value has an octet that would break
	// out of its field: CR, LF, NUL, or in a name anything but the visible
	// ASCII characters other than the colon (RFC 5322 §2.2).
	ErrInjection = errors.New("mime: field would break the header")
	// ErrLineLength says that a value cannot be folded into lines of at
	// most 998 octets (RFC 5322 §2.1.1).
	ErrLineLength = errors.New("mime: field cannot be folded to 998 octets a line")
)

// Header is a header block as received: order, spelling, folding and line
// ends are kept, also of lines that are no field. The zero Header is empty
// and ready to use.
//
// A Header is a value: a copy made by assignment is independent of the
// original. Reading is safe from many goroutines, changing is not. A change
// costs time in proportion to the size of the block.
type Header struct {
	raw    []byte // the block, never written to once it is here
	text   string // a view of raw, so that names and values cost nothing
	fields []span // every line or field of raw in order
}

// span is one field in the block, or a line that is none; its colon is its
// end then.
type span struct{ start, colon, end uint32 }

func (s span) junk() bool { return s.colon == s.end }

// maxBlock is the most of a block that is looked at; spans are 32 bits wide.
const maxBlock = 1 << 30

// ParseHeader reads a raw block: fields with CRLF (or LF) line ends, with or
// without the empty line at its end and what follows it. It copies what it
// keeps and never fails: lines that are no field stay where they are, see
// [Header.Defects].
func ParseHeader(block []byte) Header {
	if len(block) > maxBlock {
		block = block[:maxBlock]
	}
	return newHeader(block[:blockEnd(block)])
}

// blockEnd returns the offset of the empty line in b, len(b) without one.
func blockEnd(b []byte) int {
	for i := 0; i < len(b); {
		if b[i] == '\n' || b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n' {
			return i
		}
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			break
		}
		i += j + 1
	}
	return len(b)
}

// newHeader indexes a block that has no empty line in it.
func newHeader(block []byte) Header {
	var h Header
	h.own(bytes.Clone(block))
	return h
}

// own makes raw, which nobody else may write to, the block of h.
func (h *Header) own(raw []byte) {
	h.text = unsafe.String(unsafe.SliceData(raw), len(raw))
	h.raw, h.fields = raw, nil
	if len(raw) > 0 {
		h.fields = index(make([]span, 0, fieldsOf(len(raw))), h.text, nil)
	}
}

// fieldsOf guesses how many fields a block has: those of real messages are
// about 60 octets long.
func fieldsOf(n int) int { return min(4+n/60, 64) }

// headerArena keeps the headers of one message together, so that each of its
// many short ones does not cost two pieces of memory.
type headerArena struct {
	octets []byte
	spans  []span
	more   int // octets of the last piece but the first
}

func (a *headerArena) header(h *Header, block []byte, ends []uint32) {
	if len(block) == 0 {
		return
	}
	if n := len(block); n > cap(a.octets)-len(a.octets) {
		size := n // the first is that of the message, which may have no parts
		if a.octets != nil {
			a.more = min(max(2*a.more, 256), 8<<10)
			size = max(n, a.more)
		}
		a.octets = make([]byte, 0, size)
	}
	start := len(a.octets)
	a.octets = append(a.octets, block...)
	h.raw = a.octets[start:len(a.octets):len(a.octets)]
	h.text = unsafe.String(unsafe.SliceData(h.raw), len(h.raw))
	if n := fieldsOf(len(block)); n > cap(a.spans)-len(a.spans) {
		if a.spans != nil {
			n = max(n, a.more/32)
		}
		a.spans = make([]span, 0, n)
	}
	start = len(a.spans)
	spans := index(a.spans[start:], h.text, ends)
	h.fields = spans[:len(spans):len(spans)]
	if start+len(spans) <= cap(a.spans) {
		a.spans = a.spans[:start+len(spans)]
	}
}

// index splits a block into spans, which it adds to fields. Folded lines
// belong to the field before. ends are where its lines end, as far as that is
// known.
func index(fields []span, s string, ends []uint32) []span {
	i := 0
	n := 0 // of ends that were used
	lineEnd := func(i int) int {
		if n < len(ends) {
			n++
			return min(int(ends[n-1]), len(s))
		}
		return lineEnd(s, i)
	}
	if strings.HasPrefix(s, "\ufeff") {
		// A byte order mark is no part of the first name.
		fields = append(fields, span{0, 3, 3})
		i = 3
	}
	for i < len(s) {
		end := lineEnd(i)
		colon := colonOf(s, i, end)
		if colon < 0 {
			fields = append(fields, span{uint32(i), uint32(end), uint32(end)})
			i = end
			continue
		}
		for end < len(s) && (s[end] == ' ' || s[end] == '\t') {
			end = lineEnd(end)
		}
		fields = append(fields, span{uint32(i), uint32(colon), uint32(end)})
		i = end
	}
	return fields
}

func lineEnd(s string, i int) int {
	if j := strings.IndexByte(s[i:], '\n'); j >= 0 {
		return i + j + 1
	}
	return len(s)
}

// colonOf returns where the name of the field in s[i:end] ends, -1 when that
// line is no field. White space before the colon is the obsolete syntax of
// RFC 5322 §4.5; 8-bit octets in a name are put up with.
func colonOf(s string, i, end int) int {
	start := i
	for i < end && isNameByte(s[i]) {
		i++
	}
	if i == start {
		return -1
	}
	for i < end && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	if i < end && s[i] == ':' {
		return i
	}
	return -1
}

func isNameByte(c byte) bool { return nameByte[c] }

var nameByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c > ' ' && c != ':' && c != 0x7f
	}
	return t
}()

// Field is one field of a header.
type Field struct {
	// Name is as it was spelled, without the colon.
	Name string
	// Raw is all of the field with its line ends; it must not be written to.
	Raw []byte
	// Value is the text after the colon, unfolded and without surrounding
	// white space, but not decoded.
	Value string
}

func (h *Header) name(s span) string {
	return trimRightSpace(h.text[s.start:s.colon])
}

// value returns the text after the colon with its folds.
func (h *Header) value(s span) string {
	return h.text[s.colon+1 : s.end]
}

func (h *Header) field(s span) Field {
	return Field{
		Name:  h.name(s),
		Raw:   h.raw[s.start:s.end:s.end],
		Value: unfold(h.value(s)),
	}
}

// is reports whether s is a field of that name.
func (h *Header) is(s span, name string) bool {
	if s.junk() || int(s.colon-s.start) < len(name) {
		return false
	}
	return equalFold(h.name(s), name)
}

// find returns the index of the first field of that name from i on, or -1.
func (h *Header) find(name string, i int) int {
	for ; i < len(h.fields); i++ {
		if h.is(h.fields[i], name) {
			return i
		}
	}
	return -1
}

// Len returns the number of fields.
func (h *Header) Len() int {
	n := 0
	for _, s := range h.fields {
		if !s.junk() {
			n++
		}
	}
	return n
}

// Fields yields the fields in the order of the block.
func (h *Header) Fields() iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for _, s := range h.fields {
			if !s.junk() && !yield(h.field(s)) {
				return
			}
		}
	}
}

// All yields the fields of that name, in order. The case of ASCII letters in
// names never matters.
func (h *Header) All(name string) iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for i := h.find(name, 0); i >= 0; i = h.find(name, i+1) {
			if !yield(h.field(h.fields[i])) {
				return
			}
		}
	}
}

// Get returns the value of the first field of that name as [Field.Value] has
// it, "" when there is none.
func (h *Header) Get(name string) string {
	if i := h.find(name, 0); i >= 0 {
		return unfold(h.value(h.fields[i]))
	}
	return ""
}

// Has reports whether there is a field of that name.
func (h *Header) Has(name string) bool { return h.find(name, 0) >= 0 }

// Text returns the value of the first field of that name with its encoded
// words (RFC 2047) decoded to UTF-8, "" when there is none.
func (h *Header) Text(name string) string {
	if i := h.find(name, 0); i >= 0 {
		return DecodeText(strings.Trim(h.value(h.fields[i]), " \t\r\n"))
	}
	return ""
}

// Addresses returns the mailboxes of all fields of that name, those in groups
// too (RFC 5322 §3.4). What can be read is returned also when the error is
// not nil; it then wraps [ErrAddress] and speaks of the first that could not.
func (h *Header) Addresses(name string) ([]Address, error) {
	var list []Address
	var first error
	for i := h.find(name, 0); i >= 0; i = h.find(name, i+1) {
		var err error
		list, err = appendAddresses(list, unfold(h.value(h.fields[i])))
		if first == nil {
			first = err
		}
	}
	return list, first
}

// Date returns the time of the first Date field as [ParseDate] reads it; the
// error wraps [ErrDate], also when there is no such field.
func (h *Header) Date() (time.Time, error) { return ParseDate(h.Get("Date")) }

// MessageIDs returns the message identifiers in all fields of that name
// (Message-ID, In-Reply-To, References …) without their angle brackets. Text
// that is none is left out, unless it is all there is: one without brackets.
func (h *Header) MessageIDs(name string) []string {
	var ids []string
	for i := h.find(name, 0); i >= 0; i = h.find(name, i+1) {
		ids = appendMessageIDs(ids, unfold(h.value(h.fields[i])))
	}
	return ids
}

// Defects returns the lines of the block that are no field, with their offset
// in the block. The separator line of an mbox file ("From …") in first place
// is among them.
func (h *Header) Defects() []Defect {
	var d []Defect
	for _, s := range h.fields {
		if s.junk() {
			d = append(d, Defect{int64(s.start), DefectHeaderLine, "header line without a field name and colon"})
		}
	}
	return d
}

// Bytes returns the block without the empty line. Of a header that was not
// changed it is exactly what was read, line ends included; fields that were
// added end in CRLF.
func (h *Header) Bytes() []byte { return bytes.Clone(h.raw) }

// Add puts a field at the end. See [Header.Set] for how value is written.
func (h *Header) Add(name, value string) error {
	f, err := appendField(nil, name, value)
	if err != nil {
		return err
	}
	h.splice(len(h.fields), len(h.fields), f)
	return nil
}

// Prepend puts a field before all others, where trace fields belong. See
// [Header.Set] for how value is written.
func (h *Header) Prepend(name, value string) error {
	f, err := appendField(nil, name, value)
	if err != nil {
		return err
	}
	at := 0
	for at < len(h.fields) && h.fields[at].junk() {
		at++ // stay behind the separator line of an mbox file
	}
	h.splice(at, at, f)
	return nil
}

// Set replaces the first field of that name and removes the others; without
// one it adds the field at the end.
//
// The field is folded at white space to lines of at most 78 columns where it
// can be and 998 octets always, else the error is [ErrLineLength]. Text that
// is not ASCII is written as encoded words (RFC 2047), except in fields with
// a syntax of their own, such as addresses and message identifiers, where it
// stands as UTF-8 (RFC 6532): use [Address.String] for names in those. CR, LF
// or NUL give [ErrInjection]; nothing is changed then.
func (h *Header) Set(name, value string) error {
	f, err := appendField(nil, name, value)
	if err != nil {
		return err
	}
	i := h.find(name, 0)
	if i < 0 {
		h.splice(len(h.fields), len(h.fields), f)
		return nil
	}
	h.del(name, i+1)
	h.splice(i, i+1, f)
	return nil
}

// Del removes all fields of that name.
func (h *Header) Del(name string) { h.del(name, 0) }

func (h *Header) del(name string, from int) {
	if h.find(name, from) < 0 {
		return
	}
	raw := make([]byte, 0, len(h.raw))
	for i, s := range h.fields {
		if i < from || !h.is(s, name) {
			raw = append(raw, h.raw[s.start:s.end]...)
		}
	}
	h.own(raw)
}

// splice replaces the spans from i up to j by the octets of whole fields.
func (h *Header) splice(i, j int, f []byte) {
	a, b := len(h.raw), len(h.raw)
	if i < len(h.fields) {
		a = int(h.fields[i].start)
	}
	if j < len(h.fields) {
		b = int(h.fields[j].start)
	}
	raw := make([]byte, 0, len(h.raw)+len(f)+2)
	raw = append(raw, h.raw[:a]...)
	if a > 0 && raw[a-1] != '\n' && (a != 3 || string(raw) != "\ufeff") {
		raw = append(raw, "\r\n"...)
	}
	raw = append(raw, f...)
	h.own(append(raw, h.raw[b:]...))
}

// unfold removes the line ends of a folded value and surrounding white space.
func unfold(s string) string {
	s = trimFolds(s)
	if strings.IndexByte(s, '\n') < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for {
		i := strings.IndexByte(s, '\n')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		j := i
		if j > 0 && s[j-1] == '\r' {
			j--
		}
		b.WriteString(s[:j])
		s = s[i+1:]
	}
}

// trimFolds removes surrounding white space and line ends.
func trimFolds(s string) string {
	white := func(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
	for len(s) > 0 && white(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && white(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func trimRightSpace(s string) string {
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// equalFold compares without regard to the case of ASCII letters.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}
