package authtest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/smtp"
)

// Selector is that of every domain's key.
const Selector = "test"

// World is some domains whose mail authenticates. For each one Zone has
//
//   - a host, mail. the domain, with an address that has its name, and an MX
//     record for it
//   - SPF: that host and no other
//   - DKIM: an Ed25519 key, the same in every run
//   - DMARC: p=reject, with aggregate reports to reports@ the domain
type World struct {
	Zone    Zone
	domains []string
}

// New makes a World of up to 250 domains, given as lower case A-labels.
func New(domains ...string) *World {
	w := &World{Zone: Zone{}, domains: domains}
	for _, d := range domains {
		record := dkim.Record{PublicKey: w.Key(d).Public()}
		ip := w.Source(d).IP.String()
		w.Zone[d] = []string{"MX 10 mail." + d, "TXT v=spf1 a:mail." + d + " -all"}
		w.Zone["mail."+d] = []string{"A " + ip}
		w.Zone[ip] = []string{"PTR mail." + d}
		w.Zone[dkim.RecordName(Selector, d)] = []string{"TXT " + record.String()}
		w.Zone["_dmarc."+d] = []string{"TXT v=DMARC1; p=reject; rua=mailto:reports@" + d}
	}
	return w
}

// Source is a client that SPF lets send for a domain of the World:
// alice@ the domain is the sender. verify.Source(…) makes it what
// auth/verify wants. For another domain it is one that nobody let send.
func (w *World) Source(domain string) spf.Source {
	n := slices.Index(w.domains, domain) + 1
	s := spf.Source{IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), Hello: "mail." + domain, From: smtp.Address{Local: "alice", Domain: domain}}
	if n == 0 {
		s.IP = netip.AddrFrom4([4]byte{198, 51, 100, 1})
	}
	return s
}

// Key is the private key of a domain, for what Sign does not do: with Selector
// it signs (dkim.SignOptions) and seals (arc.SealOptions).
func (w *World) Key(domain string) crypto.Signer {
	seed := sha256.Sum256([]byte("authtest " + domain))
	return ed25519.NewKeyFromSeed(seed[:])
}

// Message returns a small message from alice@ a domain, not signed.
func (w *World) Message(domain string) string {
	return fmt.Sprintf("From: Alice <alice@%[1]s>\r\nTo: bob@example.test\r\nSubject: Lunch\r\n"+
		"Date: Tue, 03 Mar 2026 10:00:00 +0000\r\nMessage-ID: <1@%[1]s>\r\n\r\nAt noon?\r\n", domain)
}

// Sign returns a message, with CRLF line ends, signed by each of domains. The
// error is that of dkim.Signer.
func (w *World) Sign(message string, domains ...string) (string, error) {
	opts := make([]dkim.SignOptions, len(domains))
	for i, d := range domains {
		opts[i] = dkim.SignOptions{Domain: d, Selector: Selector, Key: w.Key(d)}
	}
	s, err := dkim.NewSigner(opts...)
	if err != nil {
		return "", err
	}
	io.WriteString(s, message)
	field, err := s.Signature()
	return field + message, err
}
