package mime

import (
	"slices"

	"github.com/emersion/go-message"
)

// GoMessage returns the header as go-message has it, for code that is built
// on that library. Lines that are no field are left out, since it cannot hold
// them; everything else keeps its order, spelling and folding.
func (h *Header) GoMessage() message.Header {
	var raw [][]byte
	for f := range h.Fields() {
		raw = append(raw, f.Raw)
	}
	var m message.Header
	for _, r := range slices.Backward(raw) { // AddRaw puts a field on top
		m.AddRaw(slices.Clone(r))
	}
	return m
}

// FromGoMessage returns a go-message header as a Header. The error is that of
// a field that cannot be written.
func FromGoMessage(m message.Header) (Header, error) {
	var block []byte
	for f := m.Fields(); f.Next(); {
		raw, err := f.Raw()
		if err != nil {
			return Header{}, err
		}
		block = append(block, raw...)
	}
	return ParseHeader(block), nil
}
