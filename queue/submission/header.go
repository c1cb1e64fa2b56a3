package submission

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// maxReceived is how many Received fields a message may have: more is a loop
// (RFC 5321 §6.3).
const maxReceived = 100

// refuse makes the error of a message that breaks the syntax of RFC 5322
// (RFC 6409 §6.3).
func refuse(format string, args ...any) error {
	return smtp.Errorf(554, smtp.EnhancedCode{5, 6, 0}, format, args...)
}

// readHeader reads up to the empty line, which is neither part of the block
// nor left in r.
func readHeader(r *bufio.Reader, limit int) ([]byte, error) {
	var block []byte
	for {
		line, err := r.ReadSlice('\n')
		if len(block)+len(line) > limit {
			return nil, smtp.Errorf(552, smtp.EnhancedCode{5, 3, 4}, "Header exceeds %d octets", limit)
		}
		whole := len(block) == 0 || block[len(block)-1] == '\n'
		if whole && (string(line) == "\r\n" || string(line) == "\n") {
			return block, nil
		}
		block = append(block, line...)
		switch {
		case err == nil, err == bufio.ErrBufferFull:
		case err == io.EOF:
			if len(block) > 0 && !bytes.HasSuffix(block, []byte("\n")) {
				block = append(block, "\r\n"...)
			}
			return block, nil
		default:
			return nil, err
		}
	}
}

// single are the fields that may be there once (RFC 5322 §3.6).
var single = [...]string{"Date", "From", "Sender", "Reply-To", "To", "Cc", "Message-ID", "In-Reply-To", "References", "Subject"}

// addressed are those of them with addresses in them.
var addressed = [...]string{"From", "Sender", "Reply-To", "To", "Cc"}

// checkHeader refuses what is no header of RFC 5322.
func checkHeader(h *mime.Header, block []byte) error {
	if d := h.Defects(); len(d) > 0 {
		return refuse("Header has a line without a field name")
	}
	if !utf8.Valid(block) {
		return refuse("Header is neither ASCII nor UTF-8")
	}
	if bytes.IndexByte(block, 0) >= 0 {
		return refuse("Header has a NUL")
	}
	received := 0
	for range h.All("Received") {
		received++
	}
	if received > maxReceived {
		return smtp.Errorf(554, smtp.EnhancedCode{5, 4, 6}, "Too many hops")
	}
	for _, name := range single {
		n := 0
		for range h.All(name) {
			n++
		}
		if n > 1 {
			return refuse("Header has %d %s fields", n, name)
		}
	}
	for _, name := range addressed {
		list, err := h.Addresses(name)
		if err != nil {
			return refuse("Malformed address in %s", name)
		}
		for _, a := range list {
			if !qualified(a.Domain) {
				return smtp.Errorf(554, smtp.EnhancedCode{5, 6, 0}, "Domain %s in %s is not fully qualified", a.Domain, name)
			}
		}
	}
	return nil
}

// qualified reports a domain that is more than a local abbreviation
// (RFC 6409 §4.2).
func qualified(domain string) bool {
	return strings.HasPrefix(domain, "[") || strings.Contains(domain, ".")
}

// complete checks a header and makes of it what may leave (RFC 6409 §8). id is
// nil for a Go caller. It returns the author to sign for.
func (s *Submitter) complete(ctx context.Context, h *mime.Header, from smtp.Address, id *login.Identity) (smtp.Address, error) {
	if !h.Has("From") && !from.IsZero() && len(h.Bytes()) > 0 { // whoever sends it wrote it
		if err := h.Set("From", from.String()); err != nil {
			return smtp.Address{}, refuse("From: %v", err)
		}
	}
	authors, _ := h.Addresses("From") // checked before
	if len(authors) == 0 {
		return smtp.Address{}, refuse("Header has no From with an address")
	}
	// One author must be the user, and is the Sender among several.
	var author smtp.Address
	var denied error
	for _, a := range authors {
		err := s.allow(ctx, id, a.Address)
		if err == nil {
			author = a.Address
			break
		}
		if denied == nil {
			denied = err
		}
	}
	if author.IsZero() {
		return author, denied
	}
	senders, _ := h.Addresses("Sender")
	replace := len(senders) != 1 && (len(authors) > 1 || h.Has("Sender"))
	if len(senders) == 1 {
		replace = s.allow(ctx, id, senders[0].Address) != nil
	}
	h.Del("Bcc")
	h.Del("Resent-Bcc")
	h.Del("Return-Path") // only final delivery writes it (RFC 5321 §4.4)
	if replace {
		if err := h.Set("Sender", author.String()); err != nil {
			return author, refuse("Sender: %v", err)
		}
	}
	if _, err := h.Date(); err != nil {
		if err := h.Set("Date", mime.FormatDate(time.Now())); err != nil {
			return author, err
		}
	}
	if len(h.MessageIDs("Message-ID")) == 0 {
		if err := h.Set("Message-ID", "<"+mime.NewMessageID(author.Domain)+">"); err != nil {
			return author, err
		}
	}
	return author, nil
}
