package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// ErrHeader is what a malformed or missing header is reported with.
var ErrHeader = errors.New("proxyproto: malformed header")

// Header is what a proxy says of a connection.
type Header struct {
	// Source and Destination are the ends of the connection that the proxy
	// took. Both are zero when it speaks for itself (a health check), or
	// knows no IP addresses: then the connection's own count.
	Source, Destination netip.AddrPort
	// TLVs are the additions of version 2, in order: type and value.
	TLVs []TLV
}

// TLV is one addition of version 2.
type TLV struct {
	Type  uint8
	Value []byte
}

// Types of TLVs.
const (
	TypeALPN      = 0x01
	TypeAuthority = 0x02 // the host name of SNI
	TypeCRC32C    = 0x03
	TypeNoOp      = 0x04
	TypeUniqueID  = 0x05
	TypeSSL       = 0x20
	TypeNetNS     = 0x30
)

const (
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
	maxLine1   = 107 // octets of a version 1 header with its CRLF
	// maxLength2 bounds what follows a version 2 header's first 16 octets:
	// the format allows 65,535, and no proxy sends more than a certificate's
	// names.
	maxLength2 = 4096
)

// ReadHeader reads a header from r, and nothing behind it. Its error wraps
// ErrHeader when there is something else, and is r's otherwise.
func ReadHeader(r *bufio.Reader) (Header, error) {
	b, err := r.Peek(1)
	if err != nil {
		return Header{}, err
	}
	switch b[0] {
	case 'P':
		return readV1(r)
	case signature2[0]:
		return readV2(r)
	}
	return Header{}, fmt.Errorf("%w: neither version 1 nor 2", ErrHeader)
}

// readV1 reads "PROXY TCP4 192.0.2.1 192.0.2.2 4711 25\r\n".
func readV1(r *bufio.Reader) (Header, error) {
	var line [maxLine1]byte
	n := 0
	for {
		c, err := r.ReadByte()
		if err != nil {
			return Header{}, noEOF(err)
		}
		line[n] = c
		n++
		if c == '\n' {
			break
		}
		if n == len(line) || n <= len("PROXY ") && c != "PROXY "[n-1] {
			return Header{}, fmt.Errorf("%w: no version 1 line", ErrHeader)
		}
	}
	s, ok := strings.CutSuffix(string(line[:n]), "\r\n")
	if !ok {
		return Header{}, fmt.Errorf("%w: line does not end with CRLF", ErrHeader)
	}
	if s == "PROXY UNKNOWN" || strings.HasPrefix(s, "PROXY UNKNOWN ") {
		return Header{}, nil
	}
	f := strings.Split(s, " ")
	if len(f) != 6 || f[0] != "PROXY" || f[1] != "TCP4" && f[1] != "TCP6" {
		return Header{}, fmt.Errorf("%w: %q", ErrHeader, s)
	}
	var h Header
	for i, ap := range []*netip.AddrPort{&h.Source, &h.Destination} {
		a, err := netip.ParseAddr(f[2+i])
		if err != nil || a.Zone() != "" || a.Is4() != (f[1] == "TCP4") {
			return Header{}, fmt.Errorf("%w: address %q", ErrHeader, f[2+i])
		}
		port, err := strconv.ParseUint(f[4+i], 10, 16)
		if err != nil || len(f[4+i]) > 1 && f[4+i][0] == '0' {
			return Header{}, fmt.Errorf("%w: port %q", ErrHeader, f[4+i])
		}
		*ap = netip.AddrPortFrom(a.Unmap(), uint16(port))
	}
	return h, nil
}

// readV2 reads the binary form.
func readV2(r *bufio.Reader) (Header, error) {
	var fixed [16]byte
	for i := range fixed {
		c, err := r.ReadByte()
		if err != nil {
			return Header{}, noEOF(err)
		}
		if i < len(signature2) && c != signature2[i] {
			return Header{}, fmt.Errorf("%w: no version 2 signature", ErrHeader)
		}
		fixed[i] = c
	}
	length := int(binary.BigEndian.Uint16(fixed[14:]))
	if fixed[12]>>4 != 2 {
		return Header{}, fmt.Errorf("%w: version %d", ErrHeader, fixed[12]>>4)
	}
	command := fixed[12] & 15
	if command > 1 {
		return Header{}, fmt.Errorf("%w: command %d", ErrHeader, command)
	}
	if length > maxLength2 {
		return Header{}, fmt.Errorf("%w: %d octets", ErrHeader, length)
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(r, b); err != nil {
		return Header{}, noEOF(err)
	}
	if command == 0 { // LOCAL: the rest is to be skipped
		return Header{}, nil
	}
	var h Header
	size := 0
	switch fixed[13] {
	case 0x11, 0x12: // IPv4, with TCP or UDP
		if size = 12; length >= size {
			h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[0:4])), binary.BigEndian.Uint16(b[8:]))
			h.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[10:]))
		}
	case 0x21, 0x22: // IPv6
		if size = 36; length >= size {
			h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[0:16])).Unmap(), binary.BigEndian.Uint16(b[32:]))
			h.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[16:32])).Unmap(), binary.BigEndian.Uint16(b[34:]))
		}
	case 0x31, 0x32: // Unix sockets
		size = 216
	case 0x00: // unspecified
	default:
		return Header{}, fmt.Errorf("%w: family 0x%02x", ErrHeader, fixed[13])
	}
	if length < size {
		return Header{}, fmt.Errorf("%w: %d octets are too few", ErrHeader, length)
	}
	for b = b[size:]; len(b) > 0; {
		if len(b) < 3 || len(b) < 3+int(binary.BigEndian.Uint16(b[1:])) {
			return Header{}, fmt.Errorf("%w: cut TLV", ErrHeader)
		}
		n := 3 + int(binary.BigEndian.Uint16(b[1:]))
		h.TLVs = append(h.TLVs, TLV{b[0], b[3:n:n]})
		b = b[n:]
	}
	return h, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Get returns the value of the first TLV of a type.
func (h Header) Get(typ uint8) ([]byte, bool) {
	for _, t := range h.TLVs {
		if t.Type == typ {
			return t.Value, true
		}
	}
	return nil, false
}

var errLong = errors.New("proxyproto: header too long")

// Append appends h in version 1, which has no TLVs, or 2. Without addresses
// it is UNKNOWN or LOCAL.
func (h Header) Append(b []byte, version int) ([]byte, error) {
	local := !h.Source.IsValid() || !h.Destination.IsValid()
	four := !local && h.Source.Addr().Unmap().Is4() && h.Destination.Addr().Unmap().Is4()
	if version == 1 {
		if local {
			return append(b, "PROXY UNKNOWN\r\n"...), nil
		}
		family, text := "TCP4", func(a netip.Addr) string { return a.Unmap().String() }
		if !four {
			family, text = "TCP6", func(a netip.Addr) string { return netip.AddrFrom16(a.As16()).String() }
		}
		return fmt.Appendf(b, "PROXY %s %s %s %d %d\r\n", family, text(h.Source.Addr()), text(h.Destination.Addr()),
			h.Source.Port(), h.Destination.Port()), nil
	}
	if version != 2 {
		return b, fmt.Errorf("proxyproto: no version %d", version)
	}
	var rest bytes.Buffer
	command, family := byte(0x21), byte(0)
	switch {
	case local:
		command = 0x20
	case four:
		family = 0x11
		s, d := h.Source.Addr().Unmap().As4(), h.Destination.Addr().Unmap().As4()
		rest.Write(s[:])
		rest.Write(d[:])
	default:
		family = 0x21
		s, d := h.Source.Addr().As16(), h.Destination.Addr().As16()
		rest.Write(s[:])
		rest.Write(d[:])
	}
	if !local {
		rest.Write(binary.BigEndian.AppendUint16(nil, h.Source.Port()))
		rest.Write(binary.BigEndian.AppendUint16(nil, h.Destination.Port()))
		for _, t := range h.TLVs {
			if len(t.Value) > maxLength2 {
				return b, errLong
			}
			rest.WriteByte(t.Type)
			rest.Write(binary.BigEndian.AppendUint16(nil, uint16(len(t.Value))))
			rest.Write(t.Value)
		}
	}
	if rest.Len() > maxLength2 {
		return b, errLong
	}
	b = append(b, signature2...)
	b = append(b, command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(rest.Len()))
	return append(b, rest.Bytes()...), nil
}
