package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// FileName is the name for a report on domain (RFC 8460 §5.1).
func (rep *Report) FileName(domain string) string {
	id := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, rep.ID)
	return fmt.Sprintf("%s!%s!%d!%d!%s.json.gz", rep.submitter(), domain, rep.DateRange.Start.Unix(), rep.DateRange.End.Unix(), id)
}

// submitter is the domain of the contact.
func (rep *Report) submitter() string {
	return rep.Contact[strings.LastIndexByte(rep.Contact, '@')+1:]
}

// Compress returns the report as gzip.
func (rep *Report) Compress() ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := rep.WriteTo(z); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Message is the mail that carries the report on domain (RFC 8460 §5.3). Who
// sends it must sign it with DKIM for the domain of Contact, and without l=; it
// is to be delivered whatever becomes of TLS (smtp.MailOptions.TLSOptional).
func (rep *Report) Message(domain string, from, to smtp.Address) (*mime.Message, error) {
	body, err := rep.Compress()
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("<%s@%s>", rep.ID, rep.submitter())
	header := mime.ParseHeader([]byte("TLS-Report-Domain: " + domain + "\r\nTLS-Report-Submitter: " + rep.submitter() + "\r\n" +
		"TLS-Required: No\r\nAuto-Submitted: auto-generated\r\n"))
	part := func(fields string, b []byte) mime.Content {
		return mime.Content{Header: mime.ParseHeader([]byte(fields)), Body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
	}
	text := fmt.Sprintf("This is an aggregate TLS report from %s, for %s.\n\n%s", rep.submitter(), domain, rep.Summarize())
	return &mime.Message{
		From: []mime.Address{{Name: rep.Organization, Address: from}}, To: []mime.Address{{Address: to}},
		Subject: fmt.Sprintf("Report Domain: %s Submitter: %s Report-ID: %s", domain, rep.submitter(), id),
		Date:    time.Now(),
		Header:  header,
		Parts: []mime.Content{{
			Header: mime.ParseHeader([]byte("Content-Type: multipart/report; report-type=tlsrpt\r\n")),
			Parts: []mime.Content{
				part("Content-Type: text/plain; charset=utf-8\r\n", []byte(text)),
				part("Content-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\""+rep.FileName(domain)+"\"\r\n", body),
			},
		}},
	}, nil
}

// ReadMessage finds the report in a message that was parsed, and reads it;
// body is what it was parsed from. Whether the message is signed as RFC 8460 §3
// asks is the caller's to check.
func ReadMessage(root *mime.Part, body io.ReaderAt) (*Report, error) {
	err := fmt.Errorf("%w: no part with one", ErrReport)
	var find func(p *mime.Part, depth int) *Report
	find = func(p *mime.Part, depth int) *Report {
		if p.Type == "application" && strings.HasPrefix(p.Subtype, "tlsrpt") {
			rep, rerr := ReadReport(p.Decoded(body))
			if rerr == nil {
				return rep
			}
			err = rerr
		}
		if depth == 0 {
			return nil
		}
		for _, c := range p.Parts {
			if rep := find(c, depth-1); rep != nil {
				return rep
			}
		}
		return nil
	}
	if rep := find(root, 5); rep != nil {
		return rep, nil
	}
	return nil, err
}
