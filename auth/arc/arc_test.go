package arc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/internal/canon"
)

const message = "From: Alice <alice@example.org>\r\nTo: list@example.net\r\nSubject: Hi\r\n\r\nHello all.\r\n"

func edKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func newKeyRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// publish puts the key of options into a zone.
func publish(t testing.TB, z zone, o SealOptions) {
	t.Helper()
	r, err := dkim.NewRecord(o.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	z[dkim.RecordName(o.Selector, o.Domain)] = r.String()
}

// results are what a host found out.
func results(host string, list ...auth.MethodResult) auth.AuthenticationResults {
	return auth.AuthenticationResults{AuthServID: host, Results: list}
}

func arcResult(r auth.Result) auth.MethodResult {
	return auth.MethodResult{Method: "arc", Result: r}
}

var dmarcPass = auth.MethodResult{Method: "dmarc", Result: auth.Pass,
	Props: []auth.Property{{Type: "header", Name: "from", Value: "example.org"}}}

// sealWith puts a set in front of a message.
func sealWith(t testing.TB, o SealOptions, msg string, list ...auth.MethodResult) (string, error) {
	t.Helper()
	s, err := NewSealer(o)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, msg)
	fields, err := s.Seal(results("mx."+o.Domain, list...))
	if err == nil {
		for line := range strings.SplitSeq(fields, "\r\n") {
			if len(line) > lineLength {
				t.Errorf("a line of %d octets: %q", len(line), line)
			}
		}
	}
	return fields + msg, err
}

func must(t testing.TB) func(string, error) string {
	return func(s string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// TestChain has a message pass a list that changes it, and a forwarder that
// does not.
func TestChain(t *testing.T) {
	z := zone{}
	hosts := []SealOptions{
		{Domain: "example.net", Selector: "a", Key: newKeyRSA(t)},
		{Domain: "example.com", Selector: "b", Key: edKey(2), Header: dkim.Simple, Body: dkim.Simple},
		{Domain: "example.edu", Selector: "c", Key: edKey(3)},
	}
	for _, o := range hosts {
		publish(t, z, o)
	}
	v := &Verifier{Resolver: z}
	if c := validate(t, v, []byte(message)); c.Result != auth.None || c.Err != nil || c.String() != "arc=none" || c.Vouches("example.org", nil) {
		t.Errorf("%+v", c)
	}
	ip := auth.Property{Type: "smtp", Name: "remote-ip", Value: "2001:DB8::1A"}
	one := must(t)(sealWith(t, hosts[0], message, auth.MethodResult{Method: "arc", Result: auth.None, Props: []auth.Property{ip}}, dmarcPass))
	if c := validate(t, v, []byte(one)); c.Result != auth.Pass || c.OldestPass != 0 {
		t.Errorf("%+v", c)
	}
	// The list adds a footer and seals again.
	changed := one + "-- \r\nlist\r\n"
	two := must(t)(sealWith(t, hosts[1], changed, arcResult(auth.Pass)))
	three := must(t)(sealWith(t, hosts[2], two, arcResult(auth.Pass), auth.MethodResult{Method: "dmarc", Result: auth.Fail}))
	c := validate(t, v, []byte(three))
	if c.Result != auth.Pass || c.OldestPass != 2 || len(c.Sets) != 3 || c.Reason() != "" {
		t.Fatalf("%+v", c)
	}
	want := "arc=pass as[3].d=example.edu as[3].s=c as[2].d=example.com as[2].s=b as[1].d=example.net as[1].s=a remote-ip[1]=2001:db8::1a"
	if c.String() != want {
		t.Errorf("%s, want %s", c, want)
	}
	for i, s := range c.Sets {
		status := auth.Pass
		if i == 0 {
			status = auth.None
		}
		if s.Instance != i+1 || s.Domain != hosts[i].Domain || s.Status != status || s.Time.IsZero() || s.Results.AuthServID != "mx."+hosts[i].Domain {
			t.Errorf("%+v", s)
		}
	}
	a := auth.AuthenticationResults{AuthServID: "mx", Results: []auth.MethodResult{c.MethodResult(netip.MustParseAddr("::ffff:192.0.2.1"))}}
	if got := a.String(); got != "Authentication-Results: mx; arc=pass header.oldest-pass=2\r\n smtp.remote-ip=192.0.2.1\r\n" {
		t.Errorf("%q", got)
	}
	all := func(string) bool { return true }
	for _, v := range []struct {
		author  string
		trusted func(string) bool
		want    bool
	}{
		{"example.org", all, true}, {"example.com", all, false}, {"", all, false},
		{"example.org", func(d string) bool { return d != "example.com" }, false},
		{"example.org", func(d string) bool { return d != "example.edu" }, false},
	} {
		if got := c.Vouches(v.author, v.trusted); got != v.want {
			t.Errorf("Vouches(%q): %v", v.author, got)
		}
	}
	// Any octet of what is sealed counts.
	for _, change := range [][2]string{{"Hello all", "Hello  All"}, {"Subject: Hi", "Subject: Ho"}, {"i=1; mx.example.net", "i=1; mx.example.nyt"},
		{"dmarc=fail", "dmarc=pass"}, {"cv=none", "cv=pass"}, {"i=2; a=ed25519", "i=3; a=ed25519"}, {"To: list", "From: x@example.org\r\nTo: list"}} {
		bad := strings.Replace(three, change[0], change[1], 1)
		if bad == three {
			t.Fatalf("%q is not there", change[0])
		}
		c := validate(t, v, []byte(bad))
		var e *Error
		if c.Result != auth.Fail || !errors.As(c.Err, &e) || c.Reason() == "" || c.String() != "arc=fail" || c.Vouches("example.org", all) {
			t.Errorf("%q: %+v", change[1], c)
		}
	}
	if c := validate(t, v, []byte(changed)); !errors.Is(c.Err, dkim.ErrBodyHash) || c.Reason() != "body hash did not verify (i=1)" {
		t.Errorf("%+v, %q", c, c.Reason())
	}
}

// TestMarked is RFC 8617 §5.1.2: a chain that failed is marked once, and that
// is its end.
func TestMarked(t *testing.T) {
	z := zone{}
	o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1)}
	publish(t, z, o)
	v := &Verifier{Resolver: z}
	one := must(t)(sealWith(t, o, message))
	for _, broken := range []string{
		one + "changed\r\n",
		strings.Replace(one, "ARC-Seal: ", "ARC-Seal: i=7;", 1), // nobody could say what is sealed
		strings.Replace(one, "ARC-Message-Signature", "X-Message-Signature", 1),
	} {
		if c := validate(t, v, []byte(broken)); c.Result != auth.Fail {
			t.Fatalf("%+v", c)
		}
		marked := must(t)(sealWith(t, o, broken, arcResult(auth.Fail)))
		if !strings.Contains(marked, "cv=fail") {
			t.Fatal(marked)
		}
		c := validate(t, v, []byte(marked))
		if c.Result != auth.Fail || !errors.Is(c.Err, ErrMarked) || c.Reason() != "chain was marked as failed before ("+fmt.Sprintf("i=%d)", c.Err.(*Error).Instance) {
			t.Errorf("%+v, %s", c, c.Reason())
		}
		for _, r := range []auth.Result{auth.Fail, auth.Pass, auth.None} {
			if _, err := sealWith(t, o, marked, arcResult(r)); !errors.Is(err, ErrMarked) {
				t.Errorf("sealed after fail: %v", err)
			}
		}
		// The seal covers its own set alone.
		block := []byte(marked[:strings.Index(marked, "\r\n\r\n")+2])
		fields, err := canon.Split(block)
		if err != nil {
			t.Fatal(err)
		}
		sets, _ := collect(block, fields)
		own := sets[len(sets)-1]
		digest := sealed(block, fields, []set{own})[0]
		if err := verify(o.Key.Public(), digest[:], own.as.signature); err != nil {
			t.Error(err)
		}
	}
}

func TestRefused(t *testing.T) {
	o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1)}
	one := must(t)(sealWith(t, o, message))
	for name, c := range map[string]struct {
		msg    string
		result auth.Result
		want   error
	}{
		"chain not looked at":   {one, auth.None, ErrUnknown},
		"no chain, pass":        {message, auth.Pass, ErrUnknown},
		"no chain, fail":        {message, auth.Fail, ErrUnknown},
		"temperror":             {one, auth.TempError, ErrUnknown},
		"broken chain, pass":    {strings.Replace(one, "cv=none", "cv=pass", 1), auth.Pass, ErrUnknown},
		"unreadable, none":      {"ARC-Seal: i=99\r\n" + message, auth.None, ErrUnknown},
		"header too large":      {"X: " + strings.Repeat("x", 2<<20), auth.None, dkim.ErrHeader},
		"begins with a fold":    {" x\r\n" + message, auth.None, dkim.ErrSyntax},
		"too many header lines": {strings.Repeat("X: y\r\n", 5000) + message, auth.None, dkim.ErrHeader},
	} {
		if _, err := sealWith(t, o, c.msg, arcResult(c.result)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err := NewSealer(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seal(auth.AuthenticationResults{}); !errors.Is(err, dkim.ErrSyntax) {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		change func(o *SealOptions)
		want   error
	}{
		"no key":     {func(o *SealOptions) { o.Key = nil }, nil},
		"weak key":   {func(o *SealOptions) { o.Key = weak{} }, dkim.ErrKeyWeak},
		"domain":     {func(o *SealOptions) { o.Domain = "a..b" }, dkim.ErrSyntax},
		"literal":    {func(o *SealOptions) { o.Domain = "[192.0.2.1]" }, dkim.ErrSyntax},
		"selector":   {func(o *SealOptions) { o.Selector = "" }, dkim.ErrSyntax},
		"c=":         {func(o *SealOptions) { o.Body = "nofws" }, dkim.ErrAlgorithm},
		"hash":       {func(o *SealOptions) { o.BodyHash = []byte{1} }, dkim.ErrSyntax},
		"name":       {func(o *SealOptions) { o.Fields = []string{"a;b"} }, dkim.ErrSyntax},
		"empty name": {func(o *SealOptions) { o.Oversign = []string{""} }, dkim.ErrSyntax},
		"results":    {func(o *SealOptions) { o.Fields = []string{"authentication-results"} }, dkim.ErrSyntax},
		"own seal":   {func(o *SealOptions) { o.Oversign = []string{"arc-seal"} }, dkim.ErrSyntax},
		"own sig":    {func(o *SealOptions) { o.Fields = []string{"ARC-Message-Signature"} }, dkim.ErrSyntax},
		"own aar":    {func(o *SealOptions) { o.Fields = []string{"ARC-Authentication-Results"} }, dkim.ErrSyntax},
	} {
		bad := o
		c.change(&bad)
		if _, err := NewSealer(bad); err == nil || !errors.Is(err, c.want) && c.want != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	o.Key = broken2{edKey(1)}
	if _, err := sealWith(t, o, message); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// weak is an RSA key of 512 bits.
type weak struct{}

func (weak) Public() crypto.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), 511)
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(111)), E: 65537}
}
func (weak) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, nil }

// broken2 is hardware that does not work.
type broken2 struct{ ed25519.PrivateKey }

func (broken2) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, io.ErrClosedPipe
}

// TestFifty fills a chain up (RFC 8617 §4.2.1).
func TestFifty(t *testing.T) {
	z := zone{}
	o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1)}
	publish(t, z, o)
	msg := must(t)(sealWith(t, o, message))
	for range MaxSets - 1 {
		msg = must(t)(sealWith(t, o, msg, arcResult(auth.Pass)))
	}
	v := &Verifier{Resolver: z}
	if c := validate(t, v, []byte(msg)); c.Result != auth.Pass || len(c.Sets) != MaxSets || c.OldestPass != 0 {
		t.Errorf("%s, %v", c.Result, c.Err)
	}
	if _, err := sealWith(t, o, msg, arcResult(auth.Pass)); !errors.Is(err, ErrLimit) {
		t.Error(err)
	}
	more := strings.NewReplacer("i=50;", "i=51;").Replace(msg[:strings.Index(msg, "i=49")]) + msg
	if c := validate(t, v, []byte(more)); c.Result != auth.Fail || !errors.Is(c.Err, ErrStructure) {
		t.Errorf("%+v", c)
	}
}

// counter counts the lookups.
type counter struct {
	Resolver
	mu    sync.Mutex
	names map[string]int
	now   int
	most  int
}

func (c *counter) LookupTXT(ctx context.Context, name string) ([]string, error) {
	c.mu.Lock()
	if c.names == nil {
		c.names = map[string]int{}
	}
	c.names[name]++
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	time.Sleep(time.Millisecond)
	defer func() { c.mu.Lock(); c.now--; c.mu.Unlock() }()
	return c.Resolver.LookupTXT(ctx, name)
}

// TestLookups counts what a message can make a verifier ask for
// (RFC 8617 §9.2): nothing when the structure is broken, the newest set's keys
// when it is forged, each name once and a few at a time otherwise.
func TestLookups(t *testing.T) {
	run := func(msg string, z zone) (*Chain, *counter) {
		c := &counter{Resolver: z}
		var chain *Chain
		synctest.Test(t, func(t *testing.T) {
			p := (&Verifier{Resolver: c, Now: func() time.Time { return time.Now().AddDate(100, 0, 0) }}).Begin(t.Context())
			defer p.Close()
			io.WriteString(p, msg)
			chain, _ = p.Result()
		})
		return chain, c
	}
	z := zone{}
	msg := message
	for i := range 20 {
		o := SealOptions{Domain: fmt.Sprintf("d%d.example", i), Selector: "a", Key: edKey(byte(i))}
		publish(t, z, o)
		r := auth.Pass
		if i == 0 {
			r = auth.None
		}
		msg = must(t)(sealWith(t, o, msg, arcResult(r)))
	}
	if chain, c := run(msg, z); chain.Result != auth.Pass || len(c.names) != 20 || c.most > atOnce {
		t.Errorf("%v: %d names, %d at once", chain.Err, len(c.names), c.most)
	} else {
		for name, n := range c.names {
			if n != 1 {
				t.Errorf("%s was asked for %d times", name, n)
			}
		}
	}
	if chain, c := run(strings.Replace(msg, "mx.d19.example", "mx.d18.example", 1), z); chain.Result != auth.Fail || len(c.names) != 1 {
		t.Errorf("forged: %v, %v", chain.Err, c.names)
	}
	if chain, c := run("ARC-Seal: i=1; a=rsa-sha256\r\n"+msg, z); chain.Result != auth.Fail || len(c.names) != 0 {
		t.Errorf("broken: %v, %v", chain.Err, c.names)
	}
	if chain, c := run(strings.Repeat("ARC-Seal: i=1; a=rsa-sha256; cv=none; d=x.example; s=s; b=aaaa\r\n", 4000)+message, z); chain.Result != auth.Fail || len(c.names) != 0 {
		t.Errorf("4,000 seals: %v, %v", chain.Err, c.names)
	}
}

// TestKeys has DNS failures, which are permanent (RFC 8617 §5.2.1), and keys
// that are not for this.
func TestKeys(t *testing.T) {
	o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1)}
	msg := must(t)(sealWith(t, o, message))
	good := zone{}
	publish(t, good, o)
	record := good["a._domainkey.example.net"]
	short, err := x509.MarshalPKIXPublicKey(weak{}.Public())
	if err != nil {
		t.Fatal(err)
	}
	for txt, want := range map[string]error{
		record: nil, "SERVFAIL": dkim.ErrKeyLookup, "v=DKIM1; p=": dkim.ErrKeyRevoked, "garbage": dkim.ErrSyntax,
		record + "; h=sha1": dkim.ErrKeyUnfit, record + "; s=tlsrpt": dkim.ErrKeyUnfit, record + "; s=*; h=sha256": nil,
		"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(edKey(2).Public().(ed25519.PublicKey)): dkim.ErrSignature,
		"v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(short):                                     dkim.ErrKeyWeak,
	} {
		c := validate(t, &Verifier{Resolver: zone{"a._domainkey.example.net": txt}}, []byte(msg))
		if !errors.Is(c.Err, want) || (c.Result == auth.Pass) != (want == nil) {
			t.Errorf("%s: %s, %v", txt, c.Result, c.Err)
		}
	}
	if c := validate(t, &Verifier{Resolver: zone{}}, []byte(msg)); !errors.Is(c.Err, dkim.ErrKeyMissing) || c.Reason() != "no key for signature (i=1)" {
		t.Errorf("%v", c.Err)
	}
	if c := validate(t, &Verifier{Resolver: panics{}}, []byte(msg)); !errors.Is(c.Err, dkim.ErrKeyLookup) {
		t.Errorf("%v", c.Err)
	}
}

type panics struct{}

func (panics) LookupTXT(context.Context, string) ([]string, error) { panic("out of order") }

// craft makes a set whose signature has more tags, and whose seal too.
func craft(t *testing.T, o SealOptions, msg string, ams, as []string) string {
	t.Helper()
	s, err := NewSealer(o)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, msg)
	if s.fields, err = canon.Split(s.head.Buf); err != nil {
		t.Fatal(err)
	}
	r := results("mx." + o.Domain)
	aar := resultsField(1, &r)
	s.body.Sum()
	w := newField(SignatureField + ": i=1")
	for _, tag := range append(ams, "a="+s.alg, "c=relaxed/relaxed", "d="+o.Domain, "s="+o.Selector, "h=from", "b=") {
		w.tag(tag)
	}
	m, err := s.sign(w, canon.Select(nil, s.head.Buf, s.fields, make([]bool, len(s.fields)), []string{"from"}, true), true)
	if err != nil {
		t.Fatal(err)
	}
	w = newField(SealField + ": i=1")
	if !slices.ContainsFunc(as, func(t string) bool { return strings.HasPrefix(t, "cv=") }) {
		as = append(as, "cv=none")
	}
	for _, tag := range append(as, "a="+s.alg, "d="+o.Domain, "s="+o.Selector, "b=") {
		w.tag(tag)
	}
	seal, err := s.sign(w, canon.AppendField(canon.AppendField(nil, []byte(aar), true), []byte(m), true), true)
	if err != nil {
		t.Fatal(err)
	}
	return seal + m + aar + msg
}

func TestTags(t *testing.T) {
	o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1)}
	z := zone{}
	publish(t, z, o)
	sum := func(body string) string {
		h := dkim.NewPrehash("")
		io.WriteString(h, "\r\n"+body)
		return "bh=" + base64.StdEncoding.EncodeToString(h.Sum())
	}
	bh := sum("Hello all.\r\n")
	now := time.Unix(1_800_000_000, 0)
	v := &Verifier{Resolver: z, Now: func() time.Time { return now }}
	for name, c := range map[string]struct {
		ams, as []string
		want    error
	}{
		"plain":             {[]string{bh}, nil, nil},
		"version":           {[]string{bh, "v=2"}, nil, nil}, // RFC 8617 §4.1.2: ignored
		"unknown":           {[]string{bh, "zz=1"}, []string{"zz=1"}, nil},
		"h= in the seal":    {[]string{bh}, []string{"h=from"}, dkim.ErrSyntax},
		"t= in range":       {[]string{bh, "t=1800000200"}, nil, nil},
		"t= to come":        {[]string{bh, "t=1800000400"}, nil, dkim.ErrFuture},
		"x= in range":       {[]string{bh, "x=1799999800"}, nil, nil},
		"x= over":           {[]string{bh, "x=1799999600"}, nil, dkim.ErrExpired},
		"x= before t=":      {[]string{bh, "t=1800000000", "x=1799999999"}, nil, dkim.ErrSyntax},
		"x= no number":      {[]string{bh, "x=soon"}, nil, dkim.ErrSyntax},
		"l= of all":         {[]string{bh, "l=12"}, nil, nil},
		"l= of more":        {[]string{bh, "l=13"}, nil, dkim.ErrBodyHash},
		"l= of part":        {[]string{"bh=GF+NsyJx/iX1Yab8k4suJkMG7DBO2lGAB9F2SCY4GWk=", "l=5"}, nil, dkim.ErrBodyPartial},
		"l= huge":           {[]string{bh, "l=99999999999999999999"}, nil, dkim.ErrBodyHash},
		"l= no number":      {[]string{bh, "l=-1"}, nil, dkim.ErrSyntax},
		"q= known":          {[]string{bh, "q=x:dns/txt"}, nil, nil},
		"q= not known":      {[]string{bh, "q=http"}, nil, dkim.ErrAlgorithm},
		"comment":           {[]string{bh}, nil, nil},
		"short hash":        {[]string{"bh=aaaa"}, nil, dkim.ErrSyntax},
		"seal's t=":         {[]string{bh}, []string{"t=x"}, dkim.ErrSyntax},
		"cv=None":           {[]string{bh}, []string{"cv=None"}, nil},
		"cv= not known":     {[]string{bh}, []string{"cv=maybe"}, ErrStructure},
		"no hash":           {nil, nil, dkim.ErrSyntax},
		"tag without value": {[]string{bh, "zz"}, nil, dkim.ErrSyntax},
	} {
		msg := craft(t, o, message, c.ams, c.as)
		if name == "comment" {
			msg = strings.Replace(msg, "Results: i=1;", "Results: (a (b; c)) i (c) = (d)\r\n 01 (e);", 1)
			c.want = dkim.ErrSignature // the instance is read, and the seal broken
		}
		if got := validate(t, v, []byte(msg)); !errors.Is(got.Err, c.want) || (got.Result == auth.Pass) != (c.want == nil) {
			t.Errorf("%s: %s, %v", name, got.Result, got.Err)
		}
	}
	v.Skew = -1
	if got := validate(t, v, []byte(craft(t, o, message, []string{bh, "t=1800000001"}, nil))); !errors.Is(got.Err, dkim.ErrFuture) {
		t.Error(got.Err)
	}
}

// TestPrehash seals with the hash of a body that is not written.
func TestPrehash(t *testing.T) {
	z := zone{}
	for _, c := range []dkim.Canonicalization{"", dkim.Simple} {
		h := dkim.NewPrehash(c)
		io.WriteString(h, message)
		o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1), Body: c, BodyHash: h.Sum()}
		publish(t, z, o)
		header, body, _ := strings.Cut(message, "\r\n\r\n")
		sealed := must(t)(sealWith(t, o, header+"\r\n\r\n"))
		if c := validate(t, &Verifier{Resolver: z}, []byte(sealed+body)); c.Result != auth.Pass {
			t.Error(c.Err)
		}
	}
}

// TestFields says what is signed.
func TestFields(t *testing.T) {
	msg := "From: a@example.org\r\nFrom: b@example.org\r\nsubject: x\r\nDKIM-Signature: y\r\nReceived: z\r\nAuthentication-Results: mx; none\r\n\r\n"
	for want, o := range map[string]SealOptions{
		"From:From:From:Reply-To:To:Cc:Subject:Subject:Date:Message-ID:MIME-Version:Content-Type:Content-Transfer-Encoding:DKIM-Signature": {},
		"From:From:Subject":       {Fields: []string{"Subject", "To"}, Oversign: []string{}},
		"From:From:Cc":            {Fields: []string{}, Oversign: []string{"Cc"}},
		"Subject:From:From":       {Fields: []string{"Subject", "From"}, Oversign: []string{}},
		"Received:From:From:From": {Fields: []string{"Received"}, Oversign: []string{"From"}},
	} {
		o.Domain, o.Selector, o.Key = "example.net", "a", edKey(1)
		sealed := must(t)(sealWith(t, o, msg))
		_, ams, _ := strings.Cut(sealed, SignatureField+":")
		ams, _, _ = strings.Cut(ams, ResultsField)
		got := strings.Split(tagsOf(t, ams)["h"], ":")
		sorted := func(list []string) []string { slices.Sort(list); return list }
		if !slices.Equal(sorted(got), sorted(strings.Split(want, ":"))) {
			t.Errorf("%v, want %s", got, want)
		}
		z := zone{}
		publish(t, z, o)
		if c := validate(t, &Verifier{Resolver: z}, []byte(sealed)); c.Result != auth.Pass {
			t.Error(c.Err)
		}
	}
}

func TestCollect(t *testing.T) {
	h := "Authentication-Results: mx.example.net; spf=pass smtp.mailfrom=a@example.org\r\nAuthentication-Results: other.example; dkim=pass\r\n" +
		"authentication-results: MX.example.net 1; arc=none;\r\n\tdmarc=pass header.from=example.org\r\nAuthentication-Results: mx.example.net\r\n\r\nAuthentication-Results: mx.example.net; x=pass\r\n"
	got := Collect([]byte(h), "mx.example.net")
	var methods []string
	for _, m := range got.Results {
		methods = append(methods, m.Method)
	}
	if !reflect.DeepEqual(methods, []string{"spf", "arc", "dmarc"}) || got.AuthServID != "mx.example.net" {
		t.Errorf("%+v", got)
	}
	if got := Collect([]byte(strings.Repeat("X: y\r\n", 5000)), "mx"); len(got.Results) != 0 {
		t.Errorf("%+v", got)
	}
}

// TestBounded has headers and bodies that are too much.
func TestBounded(t *testing.T) {
	for _, msg := range []string{"X: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", strings.Repeat("X: y\r\n", 5000) + "\r\n"} {
		p := (&Verifier{Resolver: zone{}}).Begin(t.Context())
		io.WriteString(p, msg)
		for range 2 {
			if c, err := p.Result(); !errors.Is(err, dkim.ErrHeader) || c.Result != auth.Fail || c.Reason() != "" {
				t.Errorf("%+v, %v", c, err)
			}
		}
		p.Close()
	}
	// However many lengths of the body the sets name, it is hashed a few
	// times only.
	o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1)}
	z := zone{}
	publish(t, z, o)
	msg := message
	for i := range 20 {
		r := auth.Pass
		if i == 0 {
			r = auth.None
		}
		msg = must(t)(sealWith(t, o, msg, arcResult(r)))
	}
	n := 0
	msg = strings.ReplaceAll(msg, "c=relaxed/relaxed", "c=relaxed/relaxed; l=%d")
	for strings.Contains(msg, "%d") {
		n++
		msg = strings.Replace(msg, "%d", fmt.Sprint(n), 1)
	}
	p := (&Verifier{Resolver: z}).Begin(t.Context())
	defer p.Close()
	io.WriteString(p, msg)
	if c, err := p.Result(); err != nil || c.Result != auth.Fail || n != 20 || len(p.sums) != maxSums {
		t.Errorf("%v, %v: %d hashes for %d sets", c, err, len(p.sums), n)
	}
}

// TestShared has the body hashed by a verifier of DKIM where its signature has
// the same form, and by the one of ARC where not.
func TestShared(t *testing.T) {
	z := zone{}
	for _, form := range []dkim.Canonicalization{dkim.Relaxed, dkim.Simple} {
		o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1)}
		publish(t, z, o)
		d, err := dkim.NewSigner(dkim.SignOptions{Domain: "example.net", Selector: "a", Key: edKey(1), Body: form})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(d, message)
		field, err := d.Signature()
		if err != nil {
			t.Fatal(err)
		}
		msg := must(t)(sealWith(t, o, field+message))
		for _, c := range []struct {
			msg  string
			want error
		}{{msg, nil}, {msg + "more\r\n", dkim.ErrBodyHash}} {
			dp := (&dkim.Verifier{Resolver: z}).Begin(t.Context())
			p := (&Verifier{Resolver: z}).BeginWith(t.Context(), dp)
			for i := range c.msg {
				io.WriteString(io.MultiWriter(dp, p), c.msg[i:i+1])
			}
			if _, err := dp.Results(); err != nil {
				t.Fatal(err)
			}
			chain, err := p.Result()
			if err != nil || !errors.Is(chain.Err, c.want) || (chain.Result == auth.Pass) != (c.want == nil) {
				t.Errorf("%s: %v, %v", form, chain.Err, err)
			}
			if (len(p.sums) == 0) != (form == dkim.Relaxed) {
				t.Errorf("%s: %d hashes of its own", form, len(p.sums))
			}
			p.Close()
			dp.Close()
		}
	}
}

// slow is a resolver that takes an hour.
type slow struct{ Resolver }

func (s slow) LookupTXT(ctx context.Context, name string) ([]string, error) {
	select {
	case <-time.After(time.Hour):
		return s.Resolver.LookupTXT(ctx, name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestSlow: Write does not wait for the DNS, and Close in any state leaves no
// goroutine behind.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1)}
		z := zone{}
		publish(t, z, o)
		msg := must(t)(sealWith(t, o, message))
		begin := time.Now()
		p := (&Verifier{Resolver: slow{z}}).Begin(t.Context())
		for i := range msg {
			p.Write([]byte{msg[i]})
		}
		if time.Since(begin) != 0 {
			t.Errorf("Write waited %v", time.Since(begin))
		}
		if c, err := p.Result(); err != nil || c.Result != auth.Pass || time.Since(begin) != time.Hour {
			t.Errorf("%+v, %v", c, err)
		}
		p.Close()
		begin = time.Now()
		for n := range len(msg) + 1 {
			p := (&Verifier{Resolver: slow{z}}).Begin(context.Background())
			io.WriteString(p, msg[:n])
			p.Close()
			io.WriteString(p, msg[n:])
			if c, err := p.Result(); err != nil || c.Result != auth.Fail || !errors.Is(c.Err, dkim.ErrKeyLookup) && n > 0 {
				t.Fatalf("%d: %+v, %v", n, c, err)
			}
			p.Close()
		}
		if time.Since(begin) != 0 {
			t.Errorf("Close waited %v", time.Since(begin))
		}
	})
}

// FuzzVerify validates anything, at once and in pieces.
func FuzzVerify(f *testing.F) {
	z := zone{}
	o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1)}
	publish(f, z, o)
	one := must(f)(sealWith(f, o, message))
	f.Add([]byte(one), 3)
	f.Add([]byte(must(f)(sealWith(f, o, one, arcResult(auth.Pass)))), 100)
	f.Add([]byte("ARC-Seal: i=1; (\r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		size = max(1, min(size, 1<<16))
		v := &Verifier{Resolver: z}
		var text [2]string
		for i := range text {
			p := v.Begin(t.Context())
			for rest := b; len(rest) > 0; {
				n := len(rest)
				if i == 1 {
					n = min(n, size)
				}
				p.Write(rest[:n])
				rest = rest[n:]
			}
			c, err := p.Result()
			if (err != nil) != errors.Is(err, dkim.ErrHeader) || (c.Result == auth.Fail) != (c.Err != nil) {
				t.Fatalf("%+v, %v", c, err)
			}
			p.Close()
			text[i] = fmt.Sprint(c, c.Reason(), c.OldestPass, c.MethodResult(netip.Addr{}))
		}
		if text[0] != text[1] {
			t.Fatalf("at once %s\nin pieces %s", text[0], text[1])
		}
	})
}

// FuzzSeal seals anything and validates it.
func FuzzSeal(f *testing.F) {
	z := zone{}
	o := SealOptions{Domain: "example.net", Selector: "a", Key: edKey(1)}
	publish(f, z, o)
	one := must(f)(sealWith(f, o, message))
	f.Add([]byte(message), "spf=pass smtp.mailfrom=a@example.org")
	f.Add([]byte(one), "arc=pass")
	f.Add([]byte(one+"x"), "arc=fail")
	f.Add([]byte("From: a\r\n b\r\nAuthentication-Results: mx; none"), "dmarc=none")
	f.Fuzz(func(t *testing.T, b []byte, found string) {
		v := &Verifier{Resolver: z}
		p := v.Begin(t.Context())
		p.Write(b)
		before, _ := p.Result()
		p.Close()
		r := results("mx.example.net")
		if a, err := auth.Parse("mx.example.net; " + found); err == nil {
			r.Results = a.Results
		}
		r.Results = append(r.Results, before.MethodResult(netip.Addr{}))
		s, err := NewSealer(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Write(b)
		fields, err := s.Seal(r)
		if err != nil {
			if !errors.Is(err, ErrMarked) && !errors.Is(err, ErrLimit) && !errors.Is(err, dkim.ErrHeader) && !errors.Is(err, dkim.ErrSyntax) {
				t.Fatal(err)
			}
			return
		}
		p = v.Begin(t.Context())
		io.WriteString(p, fields)
		p.Write(b)
		after, err := p.Result()
		p.Close()
		want := auth.Pass
		if before.Result == auth.Fail {
			want = auth.Fail
		}
		if err == nil && after.Result != want || want == auth.Fail && !errors.Is(after.Err, ErrMarked) {
			t.Fatalf("before %s, after %s: %v", before.Result, after.Result, after.Err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	z := zone{}
	o := SealOptions{Domain: "example.net", Selector: "a", Key: newKeyRSA(b)}
	publish(b, z, o)
	one := must(b)(sealWith(b, o, message))
	three := must(b)(sealWith(b, o, must(b)(sealWith(b, o, one, arcResult(auth.Pass))), arcResult(auth.Pass)))
	for name, msg := range map[string]string{"none": message, "1 set": one, "3 sets": three} {
		b.Run(name, func(b *testing.B) {
			v := &Verifier{Resolver: z}
			b.ReportAllocs()
			for b.Loop() {
				p := v.Begin(b.Context())
				io.WriteString(p, msg)
				if c, err := p.Result(); err != nil || c.Result == auth.Fail {
					b.Fatal(c, err)
				}
				p.Close()
			}
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	o := SealOptions{Domain: "example.net", Selector: "a", Key: newKeyRSA(b)}
	r := results("mx.example.net", dmarcPass)
	b.ReportAllocs()
	for b.Loop() {
		s, err := NewSealer(o)
		if err != nil {
			b.Fatal(err)
		}
		io.WriteString(s, message)
		if _, err := s.Seal(r); err != nil {
			b.Fatal(err)
		}
	}
}
