package dkim

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/internal/canon"
	"github.com/postrider/postrider/internal/dnserr"
)

// Resolver looks up key records; *net.Resolver is one. See package auth for
// how its errors are read.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Cached is what a Resolver may be as well: one that can say at once what it
// knows already. It spares a lookup its goroutine.
type Cached interface {
	// CachedTXT is LookupTXT without waiting; known is false when the DNS
	// would have to be asked.
	CachedTXT(name string) (txt []string, known bool, err error)
}

// Verifier verifies the signatures of messages. It may be used from several
// goroutines at once.
type Verifier struct {
	Resolver Resolver // may be Cached; nil = net.DefaultResolver
	// MaxSignatures is how many signatures of a message are looked at, from
	// the top (RFC 6376 §6.1 lets a verifier choose); 0 = 5, negative = no
	// limit.
	MaxSignatures int
	// Skew is how far the clocks of signer and verifier may be apart when t=
	// and x= are held against the time; 0 = 5 min, negative = none.
	Skew time.Duration
	// ReportWeak verifies what is otherwise refused unseen (PermError):
	// rsa-sha1, and RSA keys under 1024 bits (RFC 8301). What would pass is
	// Policy then, with ErrAlgorithm or ErrKeyWeak. It never passes.
	ReportWeak bool
	// Now is the time to hold t= and x= against; nil = time.Now.
	Now func() time.Time
}

// Verification is what became of one signature.
type Verification struct {
	// Result is Pass, Fail (the message or the signature was changed),
	// Policy (good, but not counted), TempError (no key for now) or
	// PermError (broken signature or key, or none), as in RFC 8601 §2.7.1.
	Result auth.Result
	// Err says why Result is not Pass; it wraps one of the errors of this
	// package. Its text may come from the DNS: see Reason.
	Err error
	// Signature is never nil; after a syntax error it is incomplete.
	Signature *Signature
	// Key is nil when none was found.
	Key *Record
	// Unsigned is the number of octets of the canonical body that l= leaves
	// out. Whoever wants can add anything there, so Result is Policy then.
	Unsigned int64
}

// Reason returns why the result is not Pass in a few public words, "" after
// Pass.
func (v *Verification) Reason() string {
	for _, err := range [...]error{ErrSyntax, ErrAlgorithm, ErrExpired, ErrFuture, ErrKeyMissing, ErrKeyRevoked,
		ErrKeyUnfit, ErrKeyWeak, ErrKeyLookup, ErrBodyHash, ErrBodyPartial, ErrSignature} {
		if errors.Is(v.Err, err) {
			return strings.TrimPrefix(err.Error(), "dkim: ")
		}
	}
	return ""
}

// MethodResult returns v for an Authentication-Results field
// (RFC 8601 §2.7.1, RFC 6008).
func (v *Verification) MethodResult() auth.MethodResult {
	m := auth.MethodResult{Method: "dkim", Result: v.Result, Reason: v.Reason()}
	if v.Key != nil && v.Key.Testing {
		m.Comment = "testing"
	}
	s := v.Signature
	add := func(name, value string) {
		if value != "" {
			m.Props = append(m.Props, auth.Property{Type: "header", Name: name, Value: value})
		}
	}
	m.Props = make([]auth.Property, 0, 5)
	add("d", s.Domain)
	if s.Domain != "" && s.Identity != "@"+s.Domain {
		add("i", s.Identity)
	}
	add("s", s.Selector)
	add("a", s.Algorithm)
	add("b", s.prefix())
	return m
}

// Begin begins one message. Keys are looked up concurrently as soon as the
// header has ended, under ctx, whose deadline bounds them: a key that has not
// come by then is a TempError.
func (v *Verifier) Begin(ctx context.Context) *Pass {
	ctx, cancel := context.WithCancel(ctx)
	p := &Pass{v: v, ctx: ctx, cancel: cancel}
	p.checks, p.keys, p.sums = p.checkRoom[:0], p.keyRoom[:0], p.sumRoom[:0]
	return p
}

// Pass verifies one message: write the message to it, call Results, and Close
// in any case. It is not for concurrent use.
type Pass struct {
	v      *Verifier
	ctx    context.Context
	cancel context.CancelFunc
	head   canon.Block
	fields []canon.Field
	checks []check
	keys   []lookup
	sums   []bodySum
	wg     sync.WaitGroup
	err    error
	parsed bool
	ended  bool
	out    []Verification

	// Room for as many as most messages have.
	checkRoom [2]check
	keyRoom   [2]lookup
	sumRoom   [2]bodySum
}

// check is one signature on its way.
type check struct {
	out   Verification
	field int // index in fields
	sum   int // index in sums
	key   int // index in keys
}

// bodySum is one hash of the body, shared by the signatures that want it.
type bodySum struct {
	*canon.Body
	sha1 bool
}

// lookup is one key record being fetched; txt and err are valid after the
// wait.
type lookup struct {
	name string // absolute
	txt  []string
	err  error
}

// Write takes the next piece of the message. It neither fails nor waits for
// the DNS.
func (p *Pass) Write(b []byte) (int, error) {
	n := len(b)
	if !p.head.Done {
		b = p.head.Write(b)
		if p.head.Done {
			p.headerEnds()
		}
	}
	if len(b) > 0 {
		for i := range p.sums {
			p.sums[i].Write(b)
		}
	}
	return n, nil
}

// Header returns the header of the message without the empty line, once Write
// has seen all of it; nil before, or when it is too large. It must not be
// changed.
func (p *Pass) Header() []byte {
	if !p.head.Done {
		return nil
	}
	return p.head.Buf
}

// End ends the message and returns its header, which need not have been
// followed by an empty line; nil when it is too large. Write must not be
// called again. Results ends the message too.
func (p *Pass) End() []byte {
	if !p.parsed {
		p.headerEnds()
	}
	return p.head.Buf
}

// headerEnds finds the signatures and sends for their keys.
func (p *Pass) headerEnds() {
	p.parsed = true
	if p.head.Large {
		p.err = ErrHeader
		return
	}
	if p.fields, p.err = canon.Split(p.head.Buf); p.err != nil {
		return
	}
	limit := p.v.MaxSignatures
	if limit == 0 {
		limit = 5
	}
	for i, f := range p.fields {
		if !f.Is(p.head.Buf, FieldName) {
			continue
		}
		if len(p.checks) == limit {
			break
		}
		p.checks = append(p.checks, p.begin(i))
	}
	var resolver Resolver = net.DefaultResolver
	if p.v.Resolver != nil {
		resolver = p.v.Resolver
	}
	cached, _ := resolver.(Cached)
	for i := range p.keys {
		k := &p.keys[i]
		if k.err = p.ctx.Err(); k.err != nil {
			continue // closed: nothing is begun
		}
		if cached != nil && k.cached(cached) {
			continue
		}
		p.wg.Go(func() { k.ask(p.ctx, resolver) })
	}
}

// ask fetches the key.
func (k *lookup) ask(ctx context.Context, r Resolver) {
	defer k.recovered()
	k.txt, k.err = r.LookupTXT(ctx, k.name)
}

// cached takes the key if it is known already.
func (k *lookup) cached(c Cached) (known bool) {
	defer k.recovered()
	k.txt, known, k.err = c.CachedTXT(k.name)
	return known
}

// recovered makes a panic of the resolver a failed lookup.
func (k *lookup) recovered() {
	if r := recover(); r != nil {
		k.err = fmt.Errorf("dkim: resolver panicked: %v", r)
	}
}

// begin parses one signature and says what it needs.
func (p *Pass) begin(i int) check {
	f := p.fields[i]
	raw := p.head.Buf[f.Start:f.End]
	colon := bytes.IndexByte(raw, ':')
	c := check{field: i, sum: -1}
	s, err := ParseSignature(string(raw[colon+1:]))
	c.out.Signature = s
	s.from, s.to = s.from+colon+1, s.to+colon+1
	sha1sum := false
	if err == errSHA1 && p.v.ReportWeak {
		sha1sum, err = true, nil
	}
	if err == nil {
		err = p.v.checkTime(s)
	}
	if size := sha256.Size; err == nil && (sha1sum && len(s.BodyHash) != sha1.Size || !sha1sum && len(s.BodyHash) != size) {
		err = fmt.Errorf("%w: bh= has %d octets", ErrSyntax, len(s.BodyHash))
	}
	if err != nil {
		c.out.Result, c.out.Err = auth.PermError, err
		return c
	}
	c.sum = slices.IndexFunc(p.sums, func(b bodySum) bool {
		return b.Relaxed == (s.Body == Relaxed) && b.Limit == s.BodyLength && b.sha1 == sha1sum
	})
	if c.sum < 0 {
		c.sum = len(p.sums)
		h := sha256.New()
		if sha1sum {
			h = sha1.New()
		}
		p.sums = append(p.sums, bodySum{Body: canon.NewBody(h, s.Body == Relaxed, s.BodyLength), sha1: sha1sum})
	}
	name := RecordName(s.Selector, s.Domain) + "."
	c.key = slices.IndexFunc(p.keys, func(k lookup) bool { return k.name == name })
	if c.key < 0 {
		c.key = len(p.keys)
		p.keys = append(p.keys, lookup{name: name})
	}
	return c
}

// checkTime holds t= and x= against the clock (RFC 6376 §3.5).
func (v *Verifier) checkTime(s *Signature) error {
	if s.Time.IsZero() && s.Expires.IsZero() {
		return nil
	}
	skew := v.Skew
	if skew == 0 {
		skew = 5 * time.Minute
	}
	skew = max(skew, 0)
	now := time.Now()
	if v.Now != nil {
		now = v.Now()
	}
	switch {
	case !s.Expires.IsZero() && now.Add(-skew).After(s.Expires):
		return ErrExpired
	case s.Time.After(now.Add(skew)):
		return ErrFuture
	}
	return nil
}

// Results ends the message, waits for the keys, and returns what became of
// each signature, from the top of the header down; none for a message that is
// not signed. The only error is ErrHeader. Calls after the first return the
// same; a call after Close reports keys that had not come as TempError.
func (p *Pass) Results() ([]Verification, error) {
	if p.ended {
		return p.out, p.err
	}
	p.ended = true
	p.End()
	for i := range p.sums {
		p.sums[i].Sum()
	}
	p.wg.Wait()
	p.cancel()
	if p.err != nil {
		return nil, p.err
	}
	// On the stack, for all but large headers.
	var textRoom [4096]byte
	var usedRoom [64]bool
	text, used := textRoom[:0], append(usedRoom[:0], make([]bool, len(p.fields))...)
	p.out = make([]Verification, len(p.checks))
	for i := range p.checks {
		c := &p.checks[i]
		if c.sum >= 0 {
			clear(used)
			used[c.field] = true
			text = p.signed(text[:0], c, used)
			c.out.Result, c.out.Err = c.finish(&p.keys[c.key], p.sums[c.sum], text, p.v.ReportWeak)
		}
		p.out[i] = c.out
	}
	return p.out, nil
}

// Close ends the lookups and waits for them; it is needed when Results is not
// called, and does no harm when it was.
func (p *Pass) Close() error {
	p.cancel()
	p.wg.Wait()
	return nil
}

// signed appends what the signature was made over (RFC 6376 §3.7).
func (p *Pass) signed(dst []byte, c *check, used []bool) []byte {
	s := c.out.Signature
	block := p.head.Buf
	dst = canon.Select(dst, block, p.fields, used, s.Fields, s.Header == Relaxed)
	f := p.fields[c.field]
	raw := block[f.Start:f.End]
	// The signature's own field comes last, with b= empty and without its
	// line end. It is put together behind dst first.
	end := len(dst)
	dst = append(append(dst, raw[:s.from]...), raw[s.to:]...)
	own := dst[end:]
	dst = canon.AppendField(dst, own, s.Header == Relaxed)
	return append(dst[:end], dst[end+len(own):len(dst)-len(crlf)]...)
}

// finish judges a signature whose key has come.
func (c *check) finish(key *lookup, body bodySum, signed []byte, weak bool) (auth.Result, error) {
	s := c.out.Signature
	if err := c.findKey(key, weak); err != nil {
		if errors.Is(err, ErrKeyLookup) {
			return auth.TempError, err
		}
		return auth.PermError, err
	}
	if subtle.ConstantTimeCompare(body.Digest, s.BodyHash) != 1 || s.BodyLength > body.N {
		return auth.Fail, ErrBodyHash
	}
	if err := verifyKey(c.out.Key.PublicKey, body.sha1, signed, s.Signature); err != nil {
		return auth.Fail, err
	}
	if s.BodyLength >= 0 && body.N > s.BodyLength {
		c.out.Unsigned = body.N - s.BodyLength
		return auth.Policy, ErrBodyPartial
	}
	if body.sha1 {
		return auth.Policy, errSHA1
	}
	if k, ok := c.out.Key.PublicKey.(*rsa.PublicKey); ok {
		if err := checkRSA(k); err != nil {
			return auth.Policy, err
		}
	}
	return auth.Pass, nil
}

// verifyKey holds a signature against what was signed.
func verifyKey(key crypto.PublicKey, sha1sum bool, signed, signature []byte) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		h := crypto.SHA256
		var digest []byte
		if sha1sum {
			sum := sha1.Sum(signed)
			h, digest = crypto.SHA1, sum[:]
		} else {
			sum := sha256.Sum256(signed)
			digest = sum[:]
		}
		if k.N.BitLen() < minRSA {
			if !verifyShort(k, h, digest, signature) {
				return ErrSignature
			}
			return nil
		}
		if err := rsa.VerifyPKCS1v15(k, h, digest, signature); err != nil {
			return fmt.Errorf("%w: %w", ErrSignature, err)
		}
	case ed25519.PublicKey:
		digest := sha256.Sum256(signed)
		if !ed25519.Verify(k, digest[:], signature) {
			return ErrSignature
		}
	}
	return nil
}

// verifyShort is RSASSA-PKCS1-v1_5 (RFC 8017 §8.2.2) for the short keys that
// crypto/rsa refuses, so that they can be reported.
func verifyShort(k *rsa.PublicKey, h crypto.Hash, digest, signature []byte) bool {
	info := sha256Info
	if h == crypto.SHA1 {
		info = sha1Info
	}
	size := (k.N.BitLen() + 7) / 8
	tail := len(info) + len(digest)
	if len(signature) != size || size < tail+11 {
		return false
	}
	want := bytes.Repeat([]byte{0xff}, size)
	want[0], want[1], want[size-tail-1] = 0, 1, 0
	copy(want[size-tail:], info)
	copy(want[size-len(digest):], digest)
	n := new(big.Int).SetBytes(signature)
	if n.Cmp(k.N) >= 0 {
		return false
	}
	got := n.Exp(n, big.NewInt(int64(k.E)), k.N).FillBytes(make([]byte, size))
	return bytes.Equal(got, want)
}

// The DigestInfo before the digest (RFC 8017 §9.2).
const (
	sha256Info = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
	sha1Info   = "\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14"
)

// findKey reads the records that came and takes the first that is a key for
// this signature; several are not forbidden (RFC 6376 §6.1.2).
func (c *check) findKey(k *lookup, weak bool) error {
	switch {
	case dnserr.NotFound(k.err):
		return ErrKeyMissing
	case k.err != nil:
		return fmt.Errorf("%w: %w", ErrKeyLookup, k.err)
	case len(k.txt) == 0:
		return ErrKeyMissing
	}
	var first error
	for _, txt := range k.txt {
		r, err := parseRecord(txt)
		if err == nil || weak && errors.Is(err, ErrKeyWeak) {
			c.out.Key = r
			if err = r.fits(c.out.Signature); err == nil {
				return nil
			}
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// fits reports, as nil, that the key may be used for a signature.
func (r *Record) fits(s *Signature) error {
	var ok bool
	switch r.PublicKey.(type) {
	case *rsa.PublicKey:
		ok = s.Algorithm == RSASHA256 || s.Algorithm == rsaSHA1
	case ed25519.PublicKey:
		ok = s.Algorithm == Ed25519SHA256
	}
	switch {
	case !ok:
		return fmt.Errorf("%w: its type is not that of a=%s", ErrKeyUnfit, s.Algorithm)
	case r.Hashes != nil && !slices.Contains(r.Hashes, s.hashName()):
		return fmt.Errorf("%w: h= does not allow %s", ErrKeyUnfit, s.hashName())
	case r.Services != nil && !slices.Contains(r.Services, "*") && !slices.Contains(r.Services, "email"):
		return fmt.Errorf("%w: s= does not allow e-mail", ErrKeyUnfit)
	case r.Strict && s.identityDomain() != s.Domain:
		return fmt.Errorf("%w: t=s and i= in a subdomain", ErrKeyUnfit)
	}
	return nil
}
