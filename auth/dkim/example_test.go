package dkim_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log"

	"github.com/postrider/postrider/auth/dkim"
)

const message = "From: alice@example.org\r\nTo: bob@example.net\r\nSubject: Hi\r\n\r\nHello Bob.\r\n"

// fixed stands in for a *net.Resolver.
type fixed map[string]string

func (f fixed) LookupTXT(_ context.Context, name string) ([]string, error) {
	return []string{f[name]}, nil
}

func Example() {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) // or dkim.ParsePrivateKey

	// What to publish.
	record, err := dkim.NewRecord(key.Public())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(record.Zone("s1", "example.org"))

	// Sign.
	s, err := dkim.NewSigner(dkim.SignOptions{Domain: "example.org", Selector: "s1", Key: key})
	if err != nil {
		log.Fatal(err)
	}
	io.WriteString(s, message)
	field, err := s.Signature()
	if err != nil {
		log.Fatal(err)
	}

	// Verify.
	v := &dkim.Verifier{Resolver: fixed{"s1._domainkey.example.org.": record.String()}}
	p := v.Begin(context.Background())
	defer p.Close()
	io.WriteString(p, field+message)
	results, err := p.Results()
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		fmt.Println(r.Result, r.Signature.Domain, r.Signature.Algorithm)
	}
	// Output:
	// s1._domainkey.example.org. IN TXT ( "v=DKIM1; k=ed25519; p=6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=" )
	// pass example.org ed25519-sha256
}
