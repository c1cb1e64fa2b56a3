package spf

import (
	"net/netip"
	"slices"
)

// span is all addresses from one to another, both included, of one family.
type span struct{ from, to netip.Addr }

// ranges is a set of addresses. The operations want it normal: in order,
// IPv4 first, with nothing that overlaps or touches.
type ranges []span

func spanOf(p netip.Prefix) span {
	p = p.Masked()
	return span{p.Addr(), last(p)}
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	from := p.Bits()
	if p.Addr().Is4() {
		from += 96
	}
	for i := from; i < 128; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		a = a.Unmap()
	}
	return a
}

func everything() ranges {
	return ranges{spanOf(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), spanOf(netip.PrefixFrom(netip.IPv6Unspecified(), 0))}
}

func (r *ranges) normalize() {
	s := *r
	slices.SortFunc(s, func(a, b span) int { return a.from.Compare(b.from) })
	out := s[:0]
	for _, next := range s {
		if n := len(out); n > 0 && out[n-1].from.BitLen() == next.from.BitLen() {
			// Next of the last address is invalid, and less than any.
			if after := out[n-1].to.Next(); !after.IsValid() || next.from.Compare(after) <= 0 {
				if next.to.Compare(out[n-1].to) > 0 {
					out[n-1].to = next.to
				}
				continue
			}
		}
		out = append(out, next)
	}
	*r = out
}

// minus returns r without what other has.
func (r ranges) minus(other ranges) ranges {
	var out ranges
	j := 0
	for _, s := range r {
		for j < len(other) && other[j].to.Compare(s.from) < 0 {
			j++
		}
		from, done := s.from, false
		for k := j; k < len(other) && other[k].from.Compare(s.to) <= 0; k++ {
			if other[k].from.Compare(from) > 0 {
				out = append(out, span{from, other[k].from.Prev()})
			}
			if from = other[k].to.Next(); !from.IsValid() || from.Compare(s.to) > 0 {
				done = true
				break
			}
		}
		if !done {
			out = append(out, span{from, s.to})
		}
	}
	return out
}

// covers reports whether all of p is in r.
func (r ranges) covers(p netip.Prefix) bool {
	s := spanOf(p)
	for _, o := range r {
		if o.from.BitLen() == s.from.BitLen() && o.from.Compare(s.from) <= 0 && s.to.Compare(o.to) <= 0 {
			return true
		}
	}
	return false
}

// prefixes returns the fewest prefixes that have exactly what r has.
func (r ranges) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range r {
		for from := s.from; from.IsValid() && from.Compare(s.to) <= 0; {
			bits := from.BitLen()
			end := from
			for bits > 0 {
				p := netip.PrefixFrom(from, bits-1)
				if p.Masked().Addr() != from || last(p).Compare(s.to) > 0 {
					break
				}
				bits--
				end = last(p)
			}
			out = append(out, netip.PrefixFrom(from, bits))
			from = end.Next()
		}
	}
	return out
}
