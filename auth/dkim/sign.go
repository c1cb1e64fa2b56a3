package dkim

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/auth/internal/canon"
	"github.com/postrider/postrider/smtp"
)

// ErrNoFrom is the error of a message without a From field: RFC 6376 §5.4
// wants it signed.
var ErrNoFrom = errors.New("dkim: message without From")

// SignOptions say how to sign. Domain, Selector and Key are required.
type SignOptions struct {
	Domain   string // d=; for DMARC that of From, or one it aligns with
	Selector string // s=
	// Key is RSA of at least 1024 bits (2048 are recommended) or Ed25519; it
	// may be in hardware.
	Key crypto.Signer
	// Header and Body are the canonicalizations; "" = Relaxed.
	Header, Body Canonicalization
	// Identity is i=, an address in Domain or below it; "" = not given.
	Identity string
	// Fields are the header fields to sign where the message has them, all
	// of a name; nil = DefaultFields. From is always signed.
	Fields []string
	// Oversign are fields of which one more than there are is signed, so that
	// none can be added later; nil = DefaultOversign. From always is.
	Oversign []string
	// Lifetime sets x= to that long after now; 0 = the signature does not
	// expire.
	Lifetime time.Duration
	// BodyHash is the Sum of a Prehash with the canonicalization Body: what is
	// written behind the header does not matter then. nil = hash the body.
	BodyHash []byte
}

// wish is a name that is to be signed: all fields of it that there are, and
// one more when it is over-signed.
type wish struct {
	name string
	over bool
}

// defaults are the wishes of who has none; never changed.
var defaults = [...]wish{
	{"From", true}, {"Sender", false}, {"Reply-To", true}, {"To", true}, {"Cc", true}, {"Subject", true}, {"Date", true},
	{"Message-ID", true}, {"In-Reply-To", false}, {"References", false},
	{"MIME-Version", true}, {"Content-Type", true}, {"Content-Transfer-Encoding", true},
	{"Content-Disposition", false}, {"Content-ID", false}, {"Content-Description", false},
	{"Resent-From", false}, {"Resent-Sender", false}, {"Resent-To", false}, {"Resent-Cc", false}, {"Resent-Date", false}, {"Resent-Message-ID", false},
	{"List-Id", false}, {"List-Help", false}, {"List-Unsubscribe", false}, {"List-Unsubscribe-Post", false},
	{"List-Subscribe", false}, {"List-Post", false}, {"List-Owner", false}, {"List-Archive", false},
	{"Disposition-Notification-To", false}, {"TLS-Required", false}, {"Autocrypt", false},
}

// DefaultFields returns the header fields that are signed when SignOptions
// does not say: those that RFC 6376 §5.4.1 recommends and what mail programs
// show or act upon.
func DefaultFields() []string {
	var names []string
	for _, w := range defaults {
		names = append(names, w.name)
	}
	return names
}

// DefaultOversign returns the header fields that nothing may be added to when
// SignOptions does not say.
func DefaultOversign() []string {
	var names []string
	for _, w := range defaults {
		if w.over {
			names = append(names, w.name)
		}
	}
	return names
}

// wishes returns what o asks for.
func (o *SignOptions) wishes() []wish {
	if o.Fields == nil && o.Oversign == nil {
		return defaults[:]
	}
	fields, oversign := o.Fields, o.Oversign
	if fields == nil {
		fields = DefaultFields()
	}
	if oversign == nil {
		oversign = DefaultOversign()
	}
	wishes := make([]wish, 0, len(fields)+len(oversign)+1)
	if !listed("From", fields) {
		wishes = append(wishes, wish{"From", true})
	}
	for _, name := range fields {
		wishes = append(wishes, wish{name, strings.EqualFold(name, "From") || listed(name, oversign)})
	}
	for _, name := range oversign {
		if !strings.EqualFold(name, "From") && !listed(name, fields) {
			wishes = append(wishes, wish{name, true})
		}
	}
	return wishes
}

func listed(name string, list []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
}

// Signer makes the signatures of one message: write the message to it, then
// call Signature. It is not for concurrent use.
type Signer struct {
	plans []plan
	head  canon.Block
	found []canon.Field
	err   error
	sums  []*canon.Body // one per body canonicalization in use
	field string
	ended bool
}

// plan is one signature to be made.
type plan struct {
	SignOptions
	algorithm string
	body      *canon.Body
}

// NewSigner returns a Signer for one message. Several options make several
// signatures (RSA and Ed25519, say) in the same pass; the first ends up on
// top. Errors are about the options and wrap ErrSyntax, ErrAlgorithm or
// ErrKeyWeak.
func NewSigner(opts ...SignOptions) (*Signer, error) {
	if len(opts) == 0 {
		return nil, errors.New("dkim: nothing to sign with")
	}
	s := &Signer{plans: make([]plan, len(opts))}
	for i, o := range opts {
		p, err := s.plan(o)
		if err != nil {
			return nil, err
		}
		s.plans[i] = p
	}
	return s, nil
}

func (s *Signer) plan(o SignOptions) (plan, error) {
	p := plan{SignOptions: o}
	if o.Key == nil {
		return p, errors.New("dkim: no key")
	}
	var err error
	if p.algorithm, err = algorithmOf(o.Key.Public()); err != nil {
		return p, err
	}
	if p.Domain, err = smtp.ParseDomain(o.Domain); err != nil || p.Domain[0] == '[' {
		return p, fmt.Errorf("%w: domain %q", ErrSyntax, o.Domain)
	}
	if p.Selector, err = smtp.ParseDomain(o.Selector); err != nil || p.Selector[0] == '[' {
		return p, fmt.Errorf("%w: selector %q", ErrSyntax, o.Selector)
	}
	if o.Identity != "" {
		check := Signature{Domain: p.Domain}
		if err := check.setIdentity(o.Identity); err != nil {
			return p, err
		}
		p.Identity = check.Identity
	}
	if p.Header == "" {
		p.Header = Relaxed
	}
	if p.Body == "" {
		p.Body = Relaxed
	}
	if !p.Header.known() || !p.Body.known() {
		return p, fmt.Errorf("%w: canonicalization %s/%s", ErrAlgorithm, p.Header, p.Body)
	}
	for _, list := range [][]string{o.Fields, o.Oversign} {
		for _, name := range list {
			if !isFieldName(name) {
				return p, fmt.Errorf("%w: field name %q", ErrSyntax, name)
			}
		}
	}
	if o.BodyHash != nil {
		if len(o.BodyHash) != sha256.Size {
			return p, fmt.Errorf("%w: body hash of %d octets", ErrSyntax, len(o.BodyHash))
		}
		return p, nil
	}
	for _, b := range s.sums {
		if b.Relaxed == (p.Body == Relaxed) {
			p.body = b
		}
	}
	if p.body == nil {
		p.body = canon.NewBody(sha256.New(), p.Body == Relaxed, -1)
		s.sums = append(s.sums, p.body)
	}
	return p, nil
}

// isFieldName is field-name of RFC 5322 §3.6.8; a semicolon, which it allows,
// would end h=.
func isFieldName(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' || s[i] == ';' {
			return false
		}
	}
	return s != "" && len(s) < 70
}

// Write takes the next piece of the message. It never fails: what is wrong is
// said by Signature.
func (s *Signer) Write(p []byte) (int, error) {
	n := len(p)
	if !s.head.Done {
		p = s.head.Write(p)
	}
	if len(p) > 0 {
		for _, b := range s.sums {
			b.Write(p)
		}
	}
	return n, nil
}

// Signature ends the message and returns its DKIM-Signature field, folded and
// with the final CRLF; several fields when there are several options. The
// message must be sent with it in front and not be changed in any way. The
// error is ErrNoFrom, ErrHeader, or that of the key. Calls after the first
// return the same.
func (s *Signer) Signature() (string, error) {
	if !s.ended {
		s.ended = true
		s.field, s.err = s.sign()
	}
	return s.field, s.err
}

func (s *Signer) sign() (string, error) {
	block := s.head.Buf
	if s.head.Large {
		return "", ErrHeader
	}
	fields, err := canon.Split(block)
	if err != nil {
		return "", err
	}
	s.found = fields
	if s.count("From") == 0 {
		return "", ErrNoFrom
	}
	now := time.Now()
	for _, b := range s.sums {
		b.Sum()
	}
	// On the stack, for all but large headers.
	var outRoom [2048]byte
	var textRoom [4096]byte
	var usedRoom [64]bool
	var namesRoom [64]string
	out, text, used := outRoom[:0], textRoom[:0], append(usedRoom[:0], make([]bool, len(fields))...)
	for i := range s.plans {
		p := &s.plans[i]
		names := s.names(namesRoom[:0], p)
		start := len(out)
		bh := p.BodyHash
		if bh == nil {
			bh = p.body.Digest
		}
		out = p.appendField(out, names, bh, now)
		clear(used)
		text = canon.Select(text[:0], block, fields, used, names, p.Header == Relaxed)
		text = canon.AppendField(text, out[start:], p.Header == Relaxed)
		text = text[:len(text)-len(crlf)]
		signature, err := p.sign(text)
		if err != nil {
			return "", fmt.Errorf("dkim: signing with %s: %w", RecordName(p.Selector, p.Domain), err)
		}
		out = appendFolded(out, start, base64.StdEncoding.EncodeToString(signature))
		out = append(out, crlf...)
	}
	return string(out), nil
}

// sign signs the hash of data; Ed25519 signs that hash as its message
// (RFC 8463 §3).
func (p *plan) sign(data []byte) ([]byte, error) {
	digest := sha256.Sum256(data)
	if p.algorithm == Ed25519SHA256 {
		return p.Key.Sign(nil, digest[:], crypto.Hash(0))
	}
	return p.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
}

// count returns how many fields of a name the message has.
func (s *Signer) count(name string) int {
	n := 0
	for _, f := range s.found {
		if f.Is(s.head.Buf, name) {
			n++
		}
	}
	return n
}

// names appends h= to dst: each name as often as there are fields, and once
// more when it is over-signed.
func (s *Signer) names(dst []string, p *plan) []string {
	for _, w := range p.wishes() {
		n := s.count(w.name)
		if w.over {
			n++
		}
		for ; n > 0 && len(dst) < maxNames; n-- {
			dst = append(dst, w.name)
		}
	}
	return dst
}

// appendField appends the field up to and with "b=", which is what is signed.
func (p *plan) appendField(out []byte, names []string, bh []byte, now time.Time) []byte {
	line := len(out)
	out = append(out, FieldName+": v=1; a="...)
	out = append(out, p.algorithm...)
	tag := func(text string) {
		// Each tag comes with the space before it; a new line begins where it
		// would not fit with the semicolon behind it.
		out = append(out, ';')
		if len(out)-line+len(text)+1 > lineLength {
			out = append(out, crlf...)
			line = len(out)
		}
		out = append(out, text...)
	}
	tag(" c=" + string(p.Header) + "/" + string(p.Body))
	tag(" d=" + p.Domain)
	tag(" s=" + p.Selector)
	if p.Identity != "" {
		tag(" i=" + canon.EncodeQP(p.Identity))
	}
	tag(" t=" + strconv.FormatInt(now.Unix(), 10))
	if p.Lifetime > 0 {
		tag(" x=" + strconv.FormatInt(now.Add(p.Lifetime).Unix(), 10))
	}
	for i, name := range names {
		if i == 0 {
			tag(" h=" + name)
			continue
		}
		out = append(out, ':')
		if len(out)-line+len(name)+1 > lineLength {
			out = append(out, crlf...)
			line = len(out)
			out = append(out, ' ')
		}
		out = append(out, name...)
	}
	tag(" bh=" + base64.StdEncoding.EncodeToString(bh))
	tag(" b=")
	return out
}

// lineLength is where lines are folded (RFC 5322 §2.1.1).
const lineLength = 78

// appendFolded appends s to the field that begins at start, breaking lines
// anywhere.
func appendFolded(out []byte, start int, s string) []byte {
	line := start
	if i := bytes.LastIndexByte(out[start:], '\n'); i >= 0 {
		line = start + i + 1
	}
	for len(s) > 0 {
		n := min(len(s), max(1, lineLength-(len(out)-line)))
		out = append(out, s[:n]...)
		if s = s[n:]; len(s) > 0 {
			out = append(out, crlf...)
			line = len(out)
			out = append(out, ' ')
		}
	}
	return out
}
