package dkim

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/internal/canon"
)

const benchHeader = "Received: from mail.example.org (mail.example.org [192.0.2.1])\r\n\tby mx.example.net with ESMTPS id 4XyZ; Tue, 3 Mar 2026 10:00:00 +0000\r\n" +
	"From: Alice Example <alice@example.org>\r\nTo: Bob Example <bob@example.net>, Carol <carol@example.net>\r\n" +
	"Subject: Minutes of the meeting, and what is to be done until\r\n the next one\r\nDate: Tue, 3 Mar 2026 10:00:00 +0000\r\n" +
	"Message-ID: <20260303100000.12345@mail.example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Content-Transfer-Encoding: 8bit\r\n\r\n"

func textBody(size int) string {
	const text = "It was agreed that the minutes of the last meeting are right. The committee\r\n" +
		"will see to it that  the hall is heated, and that somebody brings a kettle.\r\n\r\n" +
		"Next on the list was the roof, about which opinions differed widely; a vote\r\n" +
		"was taken (7 for, 5 against) and the matter was put off until the spring.\r\n"
	return strings.Repeat(text, size/len(text)+1)[:size-2] + "\r\n"
}

func base64Body(size int) string {
	raw := make([]byte, size)
	rand.Read(raw)
	enc := base64.StdEncoding.EncodeToString(raw)
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(enc[:76] + "\r\n")
		enc = enc[76:]
	}
	return b.String()
}

type benchKey struct {
	name string
	key  crypto.Signer
}

func benchKeys(b testing.TB) []benchKey {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return []benchKey{{"rsa", r}, {"ed25519", e}}
}

type benchBody struct{ name, text string }

func benchBodies() []benchBody {
	return []benchBody{{"4KB", textBody(4 << 10)}, {"1MB-text", textBody(1 << 20)}, {"1MB-base64", base64Body(1 << 20)}}
}

// warm answers at once, as a resolver with a warm cache does.
type warm struct{ zone }

func (w warm) CachedTXT(name string) ([]string, bool, error) {
	txt, err := w.LookupTXT(context.Background(), name)
	return txt, true, err
}

// BenchmarkSign and BenchmarkVerify have a floor beside each case: the bare
// hash of header and body and the operation of the key.
func BenchmarkSign(b *testing.B) {
	for _, k := range benchKeys(b) {
		for _, body := range benchBodies() {
			msg := []byte(benchHeader + body.text)
			b.Run(fmt.Sprintf("%s/%s/ours", k.name, body.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					s, err := NewSigner(SignOptions{Domain: "example.org", Selector: "s1", Key: k.key})
					if err != nil {
						b.Fatal(err)
					}
					s.Write(msg)
					if _, err := s.Signature(); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(fmt.Sprintf("%s/%s/floor", k.name, body.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					sha256.Sum256(msg[len(benchHeader):])
					sum := sha256.Sum256(msg[:len(benchHeader)])
					var err error
					if k.name == "rsa" {
						_, err = k.key.Sign(rand.Reader, sum[:], crypto.SHA256)
					} else {
						_, err = k.key.Sign(nil, sum[:], crypto.Hash(0))
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, k := range benchKeys(b) {
		for _, body := range benchBodies() {
			msg := []byte(benchHeader + body.text)
			s, err := NewSigner(SignOptions{Domain: "example.org", Selector: "s1", Key: k.key})
			if err != nil {
				b.Fatal(err)
			}
			s.Write(msg)
			field, err := s.Signature()
			if err != nil {
				b.Fatal(err)
			}
			record, err := NewRecord(k.key.Public())
			if err != nil {
				b.Fatal(err)
			}
			v := &Verifier{Resolver: warm{zone{"s1._domainkey.example.org": record.String()}}}
			signed := append([]byte(field), msg...)
			b.Run(fmt.Sprintf("%s/%s/ours", k.name, body.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p := v.Begin(b.Context())
					p.Write(signed)
					r, err := p.Results()
					if err != nil || len(r) != 1 || r[0].Result != auth.Pass {
						b.Fatal(r, err)
					}
				}
			})
			sum := sha256.Sum256(msg[:len(benchHeader)])
			opts := crypto.SignerOpts(crypto.SHA256)
			if k.name != "rsa" {
				opts = crypto.Hash(0)
			}
			sig, err := k.key.Sign(rand.Reader, sum[:], opts)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("%s/%s/floor", k.name, body.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					sha256.Sum256(msg[len(benchHeader):])
					sum := sha256.Sum256(msg[:len(benchHeader)])
					ok := false
					switch key := k.key.Public().(type) {
					case *rsa.PublicKey:
						ok = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil
					case ed25519.PublicKey:
						ok = ed25519.Verify(key, sum[:], sig)
					}
					if !ok {
						b.Fatal("floor does not verify")
					}
				}
			})
		}
	}
}

func BenchmarkBody(b *testing.B) {
	for _, body := range benchBodies() {
		text := []byte(body.text)
		for _, c := range []Canonicalization{Simple, Relaxed} {
			b.Run(body.name+"/"+string(c), func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					h := canon.NewBody(sha256.New(), c == Relaxed, -1)
					h.Write(text)
					h.Sum()
				}
			})
		}
	}
}
