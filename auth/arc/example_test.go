package arc_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/dkim"
)

const message = "From: alice@example.org\r\nTo: list@lists.example.net\r\nSubject: Hi\r\n\r\nHello all.\r\n"

// fixed stands in for a *net.Resolver.
type fixed map[string]string

func (f fixed) LookupTXT(_ context.Context, name string) ([]string, error) {
	return []string{f[name]}, nil
}

// A mailing list seals what it passes on, and a receiver goes by its word.
func Example() {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) // or dkim.ParsePrivateKey
	record, err := dkim.NewRecord(key.Public())
	if err != nil {
		log.Fatal(err)
	}

	// What the list's MX found out when the message came in: see auth/verify.
	results := auth.AuthenticationResults{AuthServID: "lists.example.net", Results: []auth.MethodResult{
		{Method: "dmarc", Result: auth.Pass, Props: []auth.Property{{Type: "header", Name: "from", Value: "example.org"}}},
		{Method: "arc", Result: auth.None},
	}}
	changed := message + "-- \r\nTo leave the list, write to leave@lists.example.net\r\n"
	s, err := arc.NewSealer(arc.SealOptions{Domain: "lists.example.net", Selector: "s1", Key: key})
	if err != nil {
		log.Fatal(err)
	}
	io.WriteString(s, changed)
	set, err := s.Seal(results)
	if err != nil {
		log.Fatal(err)
	}

	v := &arc.Verifier{Resolver: fixed{"s1._domainkey.lists.example.net.": record.String()}}
	p := v.Begin(context.Background())
	defer p.Close()
	io.WriteString(p, set+changed)
	chain, err := p.Result()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(chain)
	fmt.Println(chain.Vouches("example.org", func(sealer string) bool { return sealer == "lists.example.net" }))
	// Output:
	// arc=pass as[1].d=lists.example.net as[1].s=s1
	// true
}
