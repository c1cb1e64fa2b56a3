package arc

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/internal/canon"
	"github.com/postrider/postrider/smtp"
)

// Why a message is not sealed.
var (
	// ErrUnknown is a message whose chain is not what the results say: it has
	// one and they have no arc result, or the other way round.
	ErrUnknown = errors.New("arc: the results do not fit the chain of the message")
	// ErrLimit is a chain of MaxSets sets already.
	ErrLimit = errors.New("arc: the chain is at its limit")
)

// SealOptions say how to seal. Domain, Selector and Key are required.
type SealOptions struct {
	Domain   string // d=: whose word it is
	Selector string // s=
	// Key is RSA of at least 1024 bits (2048 are recommended) or Ed25519,
	// which RFC 8617 does not know; it may be in hardware.
	Key crypto.Signer
	// Header and Body are the canonicalizations of the signature; "" =
	// Relaxed.
	Header, Body dkim.Canonicalization
	// Fields are the header fields to sign where the message has them, all
	// of a name; nil = DefaultFields. From is always signed.
	// Authentication-Results and the fields of ARC must not be among them
	// (RFC 8617 §4.1.2).
	Fields []string
	// Oversign are fields of which one more than there are is signed, so that
	// none can be added on the way to the next host; nil =
	// dkim.DefaultOversign.
	Oversign []string
	// BodyHash is the Sum of a dkim.Prehash with the canonicalization Body:
	// what is written behind the header does not matter then. nil = hash the
	// body.
	BodyHash []byte
}

// DefaultFields returns the header fields that are signed when SealOptions
// does not say: those of dkim.DefaultFields, and DKIM signatures
// (RFC 8617 §4.1.2).
func DefaultFields() []string {
	return append(dkim.DefaultFields(), dkim.FieldName)
}

// Sealer makes the set of one message: write the message to it as it will be
// sent, then call Seal. Everything else, a DKIM signature above all, has to be
// done before (RFC 8617 §5.1). It is not for concurrent use.
type Sealer struct {
	o      SealOptions
	alg    string
	head   canon.Block
	body   *canon.Body // nil = BodyHash is given
	now    func() time.Time
	fields []canon.Field
}

// NewSealer returns a Sealer for one message. Errors are about the options and
// wrap those of package dkim.
func NewSealer(o SealOptions) (*Sealer, error) {
	s := &Sealer{o: o, now: time.Now, alg: dkim.RSASHA256}
	if o.Key == nil {
		return nil, errors.New("arc: no key")
	}
	if _, err := dkim.NewRecord(o.Key.Public()); err != nil {
		return nil, err
	}
	if _, ok := o.Key.Public().(ed25519.PublicKey); ok {
		s.alg = dkim.Ed25519SHA256
	}
	var err error
	if s.o.Domain, err = smtp.ParseDomain(o.Domain); err != nil || s.o.Domain[0] == '[' {
		return nil, fmt.Errorf("%w: domain %q", dkim.ErrSyntax, o.Domain)
	}
	if s.o.Selector, err = smtp.ParseDomain(o.Selector); err != nil || s.o.Selector[0] == '[' {
		return nil, fmt.Errorf("%w: selector %q", dkim.ErrSyntax, o.Selector)
	}
	for _, c := range [...]*dkim.Canonicalization{&s.o.Header, &s.o.Body} {
		switch *c {
		case "":
			*c = dkim.Relaxed
		case dkim.Simple, dkim.Relaxed:
		default:
			return nil, fmt.Errorf("%w: canonicalization %s", dkim.ErrAlgorithm, *c)
		}
	}
	if o.Fields == nil {
		s.o.Fields = DefaultFields()
	}
	if o.Oversign == nil {
		s.o.Oversign = dkim.DefaultOversign()
	}
	for _, list := range [...][]string{s.o.Fields, s.o.Oversign} {
		for _, name := range list {
			if err := mayBeSigned(name); err != nil {
				return nil, err
			}
		}
	}
	if o.BodyHash == nil {
		s.body = canon.NewBody(sha256.New(), s.o.Body == dkim.Relaxed, -1)
	} else if len(o.BodyHash) != sha256.Size {
		return nil, fmt.Errorf("%w: body hash of %d octets", dkim.ErrSyntax, len(o.BodyHash))
	}
	return s, nil
}

// mayBeSigned is field-name of RFC 5322 §3.6.8 without the semicolon, which
// would end h=, and without what RFC 8617 §4.1.2 rules out.
func mayBeSigned(name string) error {
	for i := 0; i < len(name); i++ {
		if name[i] <= ' ' || name[i] >= 0x7f || name[i] == ':' || name[i] == ';' {
			return fmt.Errorf("%w: field name %q", dkim.ErrSyntax, name)
		}
	}
	if name == "" || len(name) >= 70 {
		return fmt.Errorf("%w: field name %q", dkim.ErrSyntax, name)
	}
	for _, not := range [...]string{auth.FieldName, ResultsField, SignatureField, SealField} {
		if strings.EqualFold(name, not) {
			return fmt.Errorf("%w: %s must not be signed", dkim.ErrSyntax, name)
		}
	}
	return nil
}

// Write takes the next piece of the message. It never fails: what is wrong is
// said by Seal.
func (s *Sealer) Write(p []byte) (int, error) {
	n := len(p)
	if !s.head.Done {
		p = s.head.Write(p)
	}
	if len(p) > 0 && s.body != nil {
		s.body.Write(p)
	}
	return n, nil
}

// Seal ends the message and returns the three fields of its next set, folded
// and with the final CRLF, to be put in front of it.
//
// results is what was found out when the message came in; its AuthServID must
// be one's own name. Its arc result is what the seal says of the chain so far
// (cv=): a message that has a chain must have been validated. A chain that
// failed is marked so, once: after that there is nothing left to seal and the
// error is ErrMarked (RFC 8617 §5.1 step 2, §5.1.2). Other errors are
// ErrUnknown, ErrLimit, dkim.ErrHeader, that of the key, or dkim.ErrSyntax for
// results without an AuthServID or a message that begins with a folded line.
func (s *Sealer) Seal(results auth.AuthenticationResults) (string, error) {
	if s.head.Large {
		return "", dkim.ErrHeader
	}
	if results.AuthServID == "" {
		return "", fmt.Errorf("%w: results without an authserv-id", dkim.ErrSyntax)
	}
	block := s.head.Buf
	if len(block) > 0 && (block[0] == ' ' || block[0] == '\t') {
		return "", fmt.Errorf("%w: the message begins with a folded line", dkim.ErrSyntax)
	}
	var err error
	if s.fields, err = canon.Split(block); err != nil {
		return "", err
	}
	sets, broken := collect(block, s.fields)
	status, instance, err := next(sets, broken, &results)
	if err != nil {
		return "", err
	}
	bh := s.o.BodyHash
	if bh == nil {
		if s.body.Digest == nil {
			s.body.Sum()
		}
		bh = s.body.Digest
	}
	now := strconv.FormatInt(s.now().Unix(), 10)
	aar := resultsField(instance, &results)
	ams, err := s.signatureField(instance, now, bh)
	if err != nil {
		return "", err
	}
	var text []byte
	if status != auth.Fail {
		for i := range sets {
			for _, f := range [...]int{sets[i].results, sets[i].message, sets[i].seal} {
				text = canon.AppendField(text, block[s.fields[f].Start:s.fields[f].End], true)
			}
		}
	}
	text = canon.AppendField(text, []byte(aar), true)
	text = canon.AppendField(text, []byte(ams), true)
	w := newField(SealField + ": i=" + strconv.Itoa(instance))
	for _, tag := range [...]string{"a=" + s.alg, "cv=" + string(status), "d=" + s.o.Domain, "s=" + s.o.Selector, "t=" + now, "b="} {
		w.tag(tag)
	}
	as, err := s.sign(w, text, true)
	if err != nil {
		return "", err
	}
	return as + ams + aar, nil
}

// next returns cv= and i= of the next set.
func next(sets []set, broken error, results *auth.AuthenticationResults) (status auth.Result, instance int, err error) {
	if errors.Is(broken, ErrMarked) {
		return "", 0, broken
	}
	status = auth.None
	for i := range results.Results {
		if results.Results[i].Method == "arc" {
			status = results.Results[i].Result
		}
	}
	switch present := len(sets) > 0 || broken != nil; {
	case status == auth.None && !present:
	case status == auth.Pass && present && broken == nil:
	case status == auth.Fail && present:
	default:
		return "", 0, fmt.Errorf("%w: arc=%s, and %d sets", ErrUnknown, status, len(sets))
	}
	if len(sets) >= MaxSets {
		return "", 0, ErrLimit
	}
	return status, len(sets) + 1, nil
}

// resultsField is the ARC-Authentication-Results.
func resultsField(instance int, results *auth.AuthenticationResults) string {
	_, payload, _ := strings.Cut(results.String(), ":")
	name := ResultsField + ": i=" + strconv.Itoa(instance) + ";"
	if first, _, _ := strings.Cut(payload, "\r\n"); len(name)+len(first) > lineLength {
		name += "\r\n"
	}
	return name + payload
}

// signatureField is the ARC-Message-Signature.
func (s *Sealer) signatureField(instance int, now string, bh []byte) (string, error) {
	names := s.names()
	w := newField(SignatureField + ": i=" + strconv.Itoa(instance))
	for _, tag := range [...]string{"a=" + s.alg, "c=" + string(s.o.Header) + "/" + string(s.o.Body),
		"d=" + s.o.Domain, "s=" + s.o.Selector, "t=" + now} {
		w.tag(tag)
	}
	w.list("h=", names)
	w.tag("bh=" + base64.StdEncoding.EncodeToString(bh))
	w.tag("b=")
	text := canon.Select(nil, s.head.Buf, s.fields, make([]bool, len(s.fields)), names, s.o.Header == dkim.Relaxed)
	return s.sign(w, text, s.o.Header == dkim.Relaxed)
}

// names returns h=: each name as often as there are fields, and once more when
// it is over-signed.
func (s *Sealer) names() []string {
	var names []string
	add := func(name string, more int) {
		for _, f := range s.fields {
			if f.Is(s.head.Buf, name) {
				more++
			}
		}
		for ; more > 0 && len(names) < maxNames; more-- {
			names = append(names, name)
		}
	}
	if !has(s.o.Fields, "From") && !has(s.o.Oversign, "From") {
		add("From", 0)
	}
	for _, name := range s.o.Fields {
		if has(s.o.Oversign, name) {
			add(name, 1)
		} else {
			add(name, 0)
		}
	}
	for _, name := range s.o.Oversign {
		if !has(s.o.Fields, name) {
			add(name, 1)
		}
	}
	return names
}

func has(list []string, name string) bool {
	for _, s := range list {
		if strings.EqualFold(s, name) {
			return true
		}
	}
	return false
}

// sign ends a field whose last tag is an empty b= with the signature over text
// and the field itself (RFC 6376 §3.7).
func (s *Sealer) sign(w *field, text []byte, relaxed bool) (string, error) {
	text = canon.AppendField(text, w.b, relaxed)
	digest := sha256.Sum256(text[:len(text)-len(canon.CRLF)])
	random, opts := rand.Reader, crypto.SignerOpts(crypto.SHA256)
	if s.alg == dkim.Ed25519SHA256 {
		random, opts = nil, crypto.Hash(0) // RFC 8463 §3
	}
	signature, err := s.o.Key.Sign(random, digest[:], opts)
	if err != nil {
		return "", fmt.Errorf("arc: signing with %s: %w", dkim.RecordName(s.o.Selector, s.o.Domain), err)
	}
	w.base64(signature)
	return string(append(w.b, canon.CRLF...)), nil
}

// lineLength is where lines are folded (RFC 5322 §2.1.1).
const lineLength = 78

// field is a field being written.
type field struct {
	b    []byte
	line int // where the current line begins
}

func newField(start string) *field { return &field{b: append(make([]byte, 0, 1024), start...)} }

func (w *field) fold() {
	w.b = append(w.b, canon.CRLF...)
	w.line = len(w.b)
}

// tag appends a semicolon and a tag, on a new line when it does not fit.
func (w *field) tag(text string) {
	w.b = append(w.b, ';')
	if len(w.b)-w.line+len(text)+2 > lineLength {
		w.fold()
	}
	w.b = append(append(w.b, ' '), text...)
}

// list appends a tag whose value is a list, which may be folded.
func (w *field) list(name string, items []string) {
	for i, item := range items {
		if i == 0 {
			w.tag(name + item)
			continue
		}
		w.b = append(w.b, ':')
		if len(w.b)-w.line+len(item)+1 > lineLength {
			w.fold()
			w.b = append(w.b, ' ')
		}
		w.b = append(w.b, item...)
	}
	if len(items) == 0 {
		w.tag(name)
	}
}

// base64 appends octets, broken over lines anywhere.
func (w *field) base64(data []byte) {
	s := base64.StdEncoding.EncodeToString(data)
	for len(s) > 0 {
		n := min(len(s), max(1, lineLength-(len(w.b)-w.line)))
		w.b = append(w.b, s[:n]...)
		if s = s[n:]; len(s) > 0 {
			w.fold()
			w.b = append(w.b, ' ')
		}
	}
}

// Collect returns what the Authentication-Results fields of a message say
// together, those of one's own authserv-id only: for a Sealer of messages that
// another program has received. header may have the body behind it. Fields that
// claim to be one's own must have been removed on the way in (see
// auth.Claims).
func Collect(header []byte, authServID string) auth.AuthenticationResults {
	out := auth.AuthenticationResults{AuthServID: authServID}
	var head canon.Block
	head.Write(header)
	fields, err := canon.Split(head.Buf)
	if err != nil {
		return out
	}
	for _, f := range fields {
		if !f.Is(head.Buf, auth.FieldName) {
			continue
		}
		_, value, _ := strings.Cut(string(head.Buf[f.Start:f.End]), ":")
		if a, err := auth.Parse(value); err == nil && strings.EqualFold(a.AuthServID, authServID) {
			out.Results = append(out.Results, a.Results...)
		}
	}
	return out
}
