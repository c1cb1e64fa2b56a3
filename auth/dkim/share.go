package dkim

// BodyHash returns the SHA-256 of the whole body in a canonical form, which
// others may need too, such as a verifier of ARC: ok from the end of the header
// on when a signature of the message has it hashed, and sum once Results was
// called.
func (p *Pass) BodyHash(c Canonicalization) (sum []byte, ok bool) {
	for i := range p.sums {
		if b := &p.sums[i]; !b.sha1 && b.Limit < 0 && b.Relaxed == (c == Relaxed) {
			return b.Digest, true
		}
	}
	return nil, false
}
