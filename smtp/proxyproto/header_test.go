package proxyproto

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// v2 builds a version 2 header from its fields.
func v2(command, family byte, rest string) string {
	return signature2 + string([]byte{command, family, byte(len(rest) >> 8), byte(len(rest))}) + rest
}

const four = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x12\x67\x00\x19"

var six = "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" + "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x02" + "\x12\x67\x00\x19"

func TestReadHeader(t *testing.T) {
	v4 := Header{Source: ap("192.0.2.1:4711"), Destination: ap("198.51.100.2:25")}
	v6 := Header{Source: ap("[2001:db8::1]:4711"), Destination: ap("[2001:db8::2]:25")}
	tlv := v4
	tlv.TLVs = []TLV{{TypeAuthority, []byte("mx.example")}, {TypeNoOp, []byte{}}}
	for _, tt := range []struct {
		in   string
		want Header
	}{
		{"PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n", v4},
		{"PROXY TCP6 2001:db8::1 2001:db8::2 4711 25\r\n", v6},
		{"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 4711 25\r\n", v4},
		{"PROXY UNKNOWN\r\n", Header{}},
		{"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", Header{}},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 0 65535\r\n", Header{Source: ap("192.0.2.1:0"), Destination: ap("198.51.100.2:65535")}},
		{v2(0x21, 0x11, four), v4},
		{v2(0x21, 0x21, six), v6},
		{v2(0x21, 0x11, four+"\x02\x00\x0amx.example\x04\x00\x00"), tlv},
		{v2(0x20, 0x11, four), Header{}},
		{v2(0x20, 0x00, ""), Header{}},
		{v2(0x20, 0x00, "what a LOCAL carries is skipped"), Header{}},
		{v2(0x21, 0x00, ""), Header{}},
		{v2(0x21, 0x31, strings.Repeat("x", 216)), Header{}},
	} {
		r := bufio.NewReader(strings.NewReader(tt.in + "EHLO x\r\n"))
		h, err := ReadHeader(r)
		if err != nil || !reflect.DeepEqual(h, tt.want) {
			t.Errorf("%q: %+v, %v; want %+v", tt.in, h, err, tt.want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "EHLO x\r\n" {
			t.Errorf("%q: %q is left", tt.in, rest)
		}
	}
	if v, ok := tlv.Get(TypeAuthority); string(v) != "mx.example" || !ok {
		t.Errorf("Get: %q, %v", v, ok)
	}
	if _, ok := tlv.Get(TypeSSL); ok {
		t.Error("Get finds what is not there")
	}
}

func TestReadHeaderMalformed(t *testing.T) {
	for _, in := range []string{
		"EHLO x\r\n", "PROXY\r\n", "PROXY \r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\n", "PROXY TCP4 192.0.2.1 198.51.100.2 4711\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.2 4711 25 \r\n", "PROXY TCP4 2001:db8::1 2001:db8::2 4711 25\r\n", "PROXY TCP6 192.0.2.1 198.51.100.2 4711 25\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 -1 25\r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 025 25\r\n",
		"PROXY TCP4 192.0.2.01 198.51.100.2 25 25\r\n", "PROXY TCP4 mx.example 198.51.100.2 25 25\r\n", "PROXY TCP6 fe80::1%eth0 2001:db8::2 4711 25\r\n",
		"PROXY UDP4 192.0.2.1 198.51.100.2 25 25\r\n", "PROXY  TCP4 192.0.2.1 198.51.100.2 25 25\r\n", "PROXYTCP4 192.0.2.1 198.51.100.2 25 25\r\n",
		"PROXY UNKNOWNx\r\n", "PROXY " + strings.Repeat("x", 200) + "\r\n", "PROXY UNKNOWN " + strings.Repeat("x", 200) + "\r\n",
		"\r\n\r\n\x00\r\nQUIX\n!!!!", v2(0x11, 0x11, four), v2(0x22, 0x11, four), v2(0x21, 0x41, four), v2(0x21, 0x11, four[:11]), v2(0x21, 0x21, four),
		v2(0x21, 0x31, four), v2(0x21, 0x11, four+"\x01"), v2(0x21, 0x11, four+"\x01\x00\x02x"), v2(0x21, 0x11, four+strings.Repeat("\x04\x00\x00", 2000)),
	} {
		if h, err := ReadHeader(bufio.NewReader(strings.NewReader(in))); !errors.Is(err, ErrHeader) {
			t.Errorf("%q: %+v, %v", in, h, err)
		}
	}
	for _, whole := range []string{"PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n", v2(0x21, 0x21, six)} {
		for i := range len(whole) {
			want := io.ErrUnexpectedEOF
			if i == 0 {
				want = io.EOF
			}
			if _, err := ReadHeader(bufio.NewReader(strings.NewReader(whole[:i]))); !errors.Is(err, want) {
				t.Errorf("%q cut at %d: %v, want %v", whole, i, err, want)
			}
		}
	}
}

func TestAppendErrors(t *testing.T) {
	h := Header{Source: ap("192.0.2.1:1"), Destination: ap("192.0.2.2:2")}
	if _, err := h.Append(nil, 3); err == nil {
		t.Error("version 3")
	}
	for range 3 {
		h.TLVs = append(h.TLVs, TLV{TypeNoOp, make([]byte, 2000)})
	}
	if _, err := h.Append(nil, 2); err == nil {
		t.Error("6,000 octets of TLVs")
	}
	h.TLVs = []TLV{{TypeNoOp, make([]byte, 70000)}}
	if _, err := h.Append(nil, 2); err == nil {
		t.Error("a TLV whose length does not fit")
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n"))
	f.Add([]byte("PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 1 2\r\nEHLO"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2(0x21, 0x11, four+"\x02\x00\x0amx.example")))
	f.Add([]byte(v2(0x21, 0x21, six)))
	f.Add([]byte(v2(0x20, 0x00, "")))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		h, err := ReadHeader(r)
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(r)
		if !bytes.HasSuffix(in, rest) {
			t.Fatalf("%q leaves %q", in, rest)
		}
		for version := 1; version <= 2; version++ {
			b, err := h.Append(nil, version)
			if err != nil {
				t.Fatalf("%+v: %v", h, err)
			}
			again, err := ReadHeader(bufio.NewReader(bytes.NewReader(b)))
			want := h
			if version == 1 || !h.Source.IsValid() {
				want.TLVs = nil
			}
			if err != nil || !reflect.DeepEqual(again, want) {
				t.Fatalf("%q: %+v, then %q: %+v, %v", in, h, b, again, err)
			}
		}
	})
}

func BenchmarkReadHeader(b *testing.B) {
	for name, in := range map[string]string{"v1": "PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n", "v2": v2(0x21, 0x11, four)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			src := strings.NewReader("")
			r := bufio.NewReader(src)
			for b.Loop() {
				src.Reset(in)
				r.Reset(src)
				if _, err := ReadHeader(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
