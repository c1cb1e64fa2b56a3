package arc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/internal/canon"
	"github.com/postrider/postrider/internal/dnserr"
)

// Resolver looks up key records; *net.Resolver is one. See package auth for
// how its errors are read.
type Resolver = dkim.Resolver

// Verifier validates the chains of messages. It may be used from several
// goroutines at once.
type Verifier struct {
	Resolver Resolver // nil = net.DefaultResolver
	// Skew is how far the clocks of a sealer and the verifier may be apart
	// when t= and x= of signatures are held against the time; 0 = 5 min,
	// negative = none.
	Skew time.Duration
	// Now is the time to hold t= and x= against; nil = time.Now.
	Now func() time.Time
}

// Bounds of the work on one message, whatever its header says.
const (
	maxSums   = 4 // different hashes of the body; older signatures with others do not hold
	atOnce    = 8 // lookups
	allFields = 3 * MaxSets
)

// Begin begins one message. Keys are looked up from the end of the header on,
// under ctx, whose deadline bounds them: those of the newest set first, and
// more only when its seal holds, so that nobody can make a message of forged
// sets that asks for a hundred names.
func (v *Verifier) Begin(ctx context.Context) *Pass {
	ctx, cancel := context.WithCancel(ctx)
	return &Pass{v: v, ctx: ctx, cancel: cancel}
}

// BeginWith is Begin for a message that is written to d as well: each piece is
// written to d first, and d.Results is called first. A body that d hashes is not
// hashed again.
func (v *Verifier) BeginWith(ctx context.Context, d *dkim.Pass) *Pass {
	p := v.Begin(ctx)
	p.dkim = d
	return p
}

// Pass validates the chain of one message: write the message to it, call
// Result, and Close in any case. It is not for concurrent use.
type Pass struct {
	v      *Verifier
	ctx    context.Context
	cancel context.CancelFunc
	dkim   *dkim.Pass // nil, or one that hashes the body too
	head   canon.Block
	fields []canon.Field
	sets   []set // the oldest first
	sums   []*canon.Body
	parsed bool
	chain  *Chain
	err    error

	// The goroutine of wg writes what follows.
	wg     sync.WaitGroup
	keys   map[string]*lookup
	sealed error // what is wrong with the newest signature or a seal
	held   int   // how many of the newest signatures hold, their body aside
}

// set is three fields of the header.
type set struct {
	instance int
	results  int // index in fields, and so on; -1 = not seen
	message  int
	seal     int
	payload  string // of the results
	ams, as  *signature
	amsErr   error // an older signature may be broken
	sum      int   // index in sums, noSum or sharedSum
}

const (
	noSum     = -1
	sharedSum = -2 // that of Pass.dkim
)

// lookup is one key record; txt and err are valid once it was fetched.
type lookup struct {
	txt []string
	err error
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
		for _, sum := range p.sums {
			sum.Write(b)
		}
	}
	return n, nil
}

// headerEnds finds the chain and sends for its keys.
func (p *Pass) headerEnds() {
	p.parsed = true
	if p.err = p.collect(); p.err != nil || len(p.sets) == 0 {
		return
	}
	for i := range slices.Backward(p.sets) {
		p.wantBody(&p.sets[i])
	}
	if p.ctx.Err() == nil { // else it is closed: nothing is begun
		p.wg.Go(p.check)
	}
}

// collect reads the sets of the header.
func (p *Pass) collect() (err error) {
	if p.head.Large {
		return dkim.ErrHeader
	}
	block := p.head.Buf
	if p.fields, err = canon.Split(block); err != nil {
		return err
	}
	p.sets, err = collect(block, p.fields)
	return err
}

// collect finds the sets and checks the structure of the chain
// (RFC 8617 §5.2 steps 1 to 3). The sets come back, as far as they could be
// told, beside an error too.
func collect(block []byte, fields []canon.Field) ([]set, error) {
	var sets []set
	var first error
	fail := func(n int, kind string, err error) {
		if first == nil {
			first = &Error{n, kind, err}
		}
	}
	found := 0
	for i, f := range fields {
		kind := fieldKind(block, f)
		if kind == "" {
			continue
		}
		if found++; found > allFields {
			fail(0, kind, fmt.Errorf("%w: more than %d sets", ErrStructure, MaxSets))
			break
		}
		value := string(block[f.Name:f.End])
		value = value[strings.IndexByte(value, ':')+1:]
		n, payload := 0, ""
		var tags []canon.Tag
		if kind == ResultsField {
			n, payload = cutInstance(value)
		} else {
			var err error
			if tags, err = parseTags(value); err != nil {
				fail(0, kind, err)
				continue
			}
			n = instanceOf(tags)
		}
		if n == 0 {
			fail(0, kind, fmt.Errorf("%w: no instance", ErrStructure))
			continue
		}
		for len(sets) < n {
			sets = append(sets, set{instance: len(sets) + 1, results: -1, message: -1, seal: -1, sum: noSum})
		}
		s := &sets[n-1]
		where := &s.results
		switch at := f.End - f.Start - len(value); kind {
		case ResultsField:
			s.payload = payload
		case SignatureField:
			where = &s.message
			s.ams, s.amsErr = parse(tags, at, false)
		case SealField:
			where = &s.seal
			var err error
			if s.as, err = parse(tags, at, true); err != nil {
				fail(n, kind, err)
			}
		}
		if *where >= 0 {
			fail(n, kind, fmt.Errorf("%w: twice", ErrStructure))
		}
		*where = i
	}
	if len(sets) == 0 {
		return nil, first
	}
	newest := &sets[len(sets)-1]
	if newest.as != nil && newest.as.status == auth.Fail {
		return sets, &Error{newest.instance, SealField, ErrMarked}
	}
	if first != nil {
		return sets, first
	}
	for i := range sets {
		if err := sets[i].check(); err != nil {
			return sets, err
		}
	}
	if newest.amsErr != nil {
		return sets, &Error{newest.instance, SignatureField, newest.amsErr}
	}
	return sets, nil
}

// fieldKind returns which of the three fields f is, "" when none.
func fieldKind(block []byte, f canon.Field) string {
	if f.Name-f.Start < len(SealField) || block[f.Start]|0x20 != 'a' {
		return ""
	}
	for _, name := range [...]string{ResultsField, SignatureField, SealField} {
		if f.Is(block, name) {
			return name
		}
	}
	return ""
}

// check is RFC 8617 §5.2 step 3 for one set.
func (s *set) check() error {
	for _, f := range [...]struct {
		name string
		i    int
	}{{ResultsField, s.results}, {SignatureField, s.message}, {SealField, s.seal}} {
		if f.i < 0 {
			return &Error{s.instance, f.name, fmt.Errorf("%w: missing", ErrStructure)}
		}
	}
	want := auth.Pass
	if s.instance == 1 {
		want = auth.None
	}
	if s.as.status != want {
		return &Error{s.instance, SealField, fmt.Errorf("%w: cv=%.40q", ErrStructure, string(s.as.status))}
	}
	return nil
}

// wantBody has the body hashed for a signature, unless it is hashed already.
func (p *Pass) wantBody(s *set) {
	if s.amsErr != nil {
		return
	}
	if p.dkim != nil && s.ams.length < 0 {
		if _, ok := p.dkim.BodyHash(s.ams.body()); ok {
			s.sum = sharedSum
			return
		}
	}
	s.sum = slices.IndexFunc(p.sums, func(b *canon.Body) bool {
		return b.Relaxed == s.ams.relaxedBody && b.Limit == s.ams.length
	})
	if s.sum == noSum && len(p.sums) < maxSums {
		s.sum = len(p.sums)
		p.sums = append(p.sums, canon.NewBody(sha256.New(), s.ams.relaxedBody, s.ams.length))
	}
}

// check does all that needs no body: the newest signature, the seals from the
// newest down, and then the older signatures (RFC 8617 §5.2 steps 4 to 6).
func (p *Pass) check() {
	newest := &p.sets[len(p.sets)-1]
	p.keys = make(map[string]*lookup, 2)
	p.fetch(newest.as, newest.ams)
	c := checker{p: p, used: make([]bool, len(p.fields))}
	if p.sealed = c.seal(newest); p.sealed != nil {
		return
	}
	if p.sealed = c.message(newest); p.sealed != nil {
		return
	}
	p.held = 1
	var more []*signature
	for i := range slices.Backward(p.sets[:len(p.sets)-1]) {
		more = append(more, p.sets[i].as)
		if p.sets[i].sum != noSum {
			more = append(more, p.sets[i].ams)
		}
	}
	p.fetch(more...)
	for i := range slices.Backward(p.sets[:len(p.sets)-1]) {
		if p.sealed = c.seal(&p.sets[i]); p.sealed != nil {
			return
		}
	}
	for i := range slices.Backward(p.sets[:len(p.sets)-1]) {
		if p.sets[i].sum == noSum || c.message(&p.sets[i]) != nil {
			return
		}
		p.held++
	}
}

// fetch looks up the keys of signatures, each once and a few at a time.
func (p *Pass) fetch(list ...*signature) {
	var names []string
	for _, s := range list {
		if name := s.name(); p.keys[name] == nil {
			p.keys[name] = new(lookup)
			names = append(names, name)
		}
	}
	var resolver Resolver = net.DefaultResolver
	if p.v.Resolver != nil {
		resolver = p.v.Resolver
	}
	var wg sync.WaitGroup
	free := make(chan struct{}, atOnce)
	for _, name := range names {
		k := p.keys[name]
		free <- struct{}{}
		wg.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					k.err = fmt.Errorf("arc: resolver panicked: %v", r)
				}
				<-free
			}()
			k.txt, k.err = resolver.LookupTXT(p.ctx, name)
		})
	}
	wg.Wait()
}

// checker holds signatures against the header.
type checker struct {
	p     *Pass
	used  []bool
	text  []byte
	seals [][sha256.Size]byte // what each seal was made over
}

// seal verifies the seal of a set.
func (c *checker) seal(s *set) error {
	if c.seals == nil {
		c.seals = sealed(c.p.head.Buf, c.p.fields, c.p.sets)
	}
	if err := c.verify(s.as, c.seals[s.instance-1]); err != nil {
		return &Error{s.instance, SealField, err}
	}
	return nil
}

// sealed returns the hashes of what the seals of a chain were made over
// (RFC 8617 §5.1.1): all that came before it and its own set. Each field is
// read once.
func sealed(block []byte, fields []canon.Field, sets []set) [][sha256.Size]byte {
	out := make([][sha256.Size]byte, len(sets))
	all := sha256.New()
	var text []byte
	for i := range sets {
		s := &sets[i]
		text = text[:0]
		for _, f := range [...]int{s.results, s.message} {
			text = canon.AppendField(text, block[fields[f].Start:fields[f].End], true)
		}
		all.Write(text)
		raw := block[fields[s.seal].Start:fields[s.seal].End]
		if i < len(sets)-1 {
			upTo, err := all.(hash.Cloner).Clone()
			if err != nil {
				continue // it has no reason to fail; the seal does then
			}
			text = appendUnsigned(text[:0], raw, s.as, true)
			upTo.Write(text)
			upTo.Sum(out[i][:0])
			text = canon.AppendField(text[:0], raw, true)
			all.Write(text)
			continue
		}
		all.Write(appendUnsigned(text[:0], raw, s.as, true))
		all.Sum(out[i][:0])
	}
	return out
}

// appendUnsigned appends the canonical form of a signature's own field: with
// b= empty and without its line end (RFC 6376 §3.7).
func appendUnsigned(dst, raw []byte, s *signature, relaxed bool) []byte {
	own := make([]byte, 0, len(raw))
	own = append(append(own, raw[:s.from]...), raw[s.to:]...)
	return bytes.TrimSuffix(canon.AppendField(dst, own, relaxed), []byte(canon.CRLF))
}

// message verifies the signature of a set, the hash of the body aside.
func (c *checker) message(s *set) error {
	p := c.p
	fail := func(err error) error { return &Error{s.instance, SignatureField, err} }
	if s.amsErr != nil {
		return fail(s.amsErr)
	}
	skew := p.v.Skew
	if skew == 0 {
		skew = 5 * time.Minute
	}
	now := time.Now()
	if p.v.Now != nil {
		now = p.v.Now()
	}
	if err := s.ams.checkTime(now, max(skew, 0)); err != nil {
		return fail(err)
	}
	clear(c.used)
	c.used[s.message] = true
	block := p.head.Buf
	c.text = canon.Select(c.text[:0], block, p.fields, c.used, s.ams.fields, s.ams.relaxedHeader)
	f := p.fields[s.message]
	c.text = appendUnsigned(c.text, block[f.Start:f.End], s.ams, s.ams.relaxedHeader)
	if err := c.verify(s.ams, sha256.Sum256(c.text)); err != nil {
		return fail(err)
	}
	return nil
}

// verify holds a signature against the hash of what it was made over, with the
// first record that is a key for it.
func (c *checker) verify(s *signature, digest [sha256.Size]byte) error {
	k := c.p.keys[s.name()]
	switch {
	case k == nil, dnserr.NotFound(k.err), k.err == nil && len(k.txt) == 0:
		return dkim.ErrKeyMissing
	case k.err != nil:
		return fmt.Errorf("%w: %w", dkim.ErrKeyLookup, k.err)
	}
	var first error
	for _, txt := range k.txt {
		r, err := dkim.ParseRecord(txt)
		if err == nil {
			if err = fits(r, s.algorithm); err == nil {
				return verify(r.PublicKey, digest[:], s.signature)
			}
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// fits reports, as nil, that a key may be used for a signature.
func fits(r *dkim.Record, algorithm string) error {
	ok := false
	switch r.PublicKey.(type) {
	case *rsa.PublicKey:
		ok = algorithm == dkim.RSASHA256
	case ed25519.PublicKey:
		ok = algorithm == dkim.Ed25519SHA256
	}
	switch {
	case !ok:
		return fmt.Errorf("%w: its type is not that of a=%s", dkim.ErrKeyUnfit, algorithm)
	case r.Hashes != nil && !slices.Contains(r.Hashes, "sha256"):
		return fmt.Errorf("%w: h= does not allow sha256", dkim.ErrKeyUnfit)
	case r.Services != nil && !slices.Contains(r.Services, "*") && !slices.Contains(r.Services, "email"):
		return fmt.Errorf("%w: s= does not allow e-mail", dkim.ErrKeyUnfit)
	}
	return nil
}

func verify(key crypto.PublicKey, digest, signature []byte) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if err := rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, signature); err != nil {
			return fmt.Errorf("%w: %w", dkim.ErrSignature, err)
		}
		return nil
	case ed25519.PublicKey:
		if ed25519.Verify(k, digest, signature) {
			return nil
		}
	}
	return dkim.ErrSignature
}

// Result ends the message, waits for the keys, and returns what became of its
// chain, never nil. The only error is dkim.ErrHeader, beside a chain that
// failed. Calls after the first return the same; one after Close says Fail
// when keys had not come.
func (p *Pass) Result() (*Chain, error) {
	if p.chain == nil {
		if !p.parsed {
			p.headerEnds()
		}
		for _, sum := range p.sums {
			sum.Sum()
		}
		p.wg.Wait()
		p.cancel()
		p.chain = p.judge()
	}
	if errors.Is(p.err, dkim.ErrHeader) {
		return p.chain, dkim.ErrHeader
	}
	return p.chain, nil
}

// judge puts together what was found out.
func (p *Pass) judge() *Chain {
	c := &Chain{Result: auth.None}
	switch {
	case p.err != nil:
		c.Result, c.Err = auth.Fail, p.err
		return c
	case len(p.sets) == 0:
		return c
	}
	for i := range p.sets {
		s := &p.sets[i]
		out := Set{Instance: s.instance, Domain: s.as.domain, Selector: s.as.selector, Status: s.as.status, Time: s.as.time}
		if a, err := auth.Parse(s.payload); err == nil {
			out.Results = a
		}
		c.Sets = append(c.Sets, out)
	}
	newest := len(p.sets) - 1
	switch {
	case p.sealed != nil:
		c.Err = p.sealed
	case p.keys == nil:
		c.Err = &Error{newest + 1, SealField, fmt.Errorf("%w: %w", dkim.ErrKeyLookup, context.Canceled)}
	default:
		if err := p.body(&p.sets[newest]); err != nil {
			c.Err = &Error{newest + 1, SignatureField, err}
		}
	}
	if c.Err != nil {
		c.Result = auth.Fail
		return c
	}
	c.Result = auth.Pass
	oldest := newest
	for oldest > newest+1-p.held && p.body(&p.sets[oldest-1]) == nil {
		oldest--
	}
	if oldest > 0 {
		c.OldestPass = oldest + 1
	}
	return c
}

// body holds a signature against the body.
func (p *Pass) body(s *set) error {
	if s.sum == sharedSum {
		if sum, _ := p.dkim.BodyHash(s.ams.body()); subtle.ConstantTimeCompare(sum, s.ams.bodyHash) != 1 {
			return dkim.ErrBodyHash
		}
		return nil
	}
	b := p.sums[s.sum]
	switch {
	case subtle.ConstantTimeCompare(b.Digest, s.ams.bodyHash) != 1 || s.ams.length > b.N:
		return dkim.ErrBodyHash
	case s.ams.length >= 0 && s.ams.length < b.N:
		return dkim.ErrBodyPartial
	}
	return nil
}

// Close ends the lookups and waits for them; it is needed when Result is not
// called, and does no harm when it was.
func (p *Pass) Close() error {
	p.cancel()
	p.wg.Wait()
	return nil
}
