package smtptest

import (
	"bytes"
	"context"
	"html"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// Message is one that a Server took.
type Message struct {
	// Envelope has the recipients that were accepted.
	Envelope smtp.Envelope
	// Data is the message as received, with CRLF line ends.
	Data []byte
	// Hello is the name given in EHLO; Protocol the keyword of RFC 3848,
	// such as ESMTPS.
	Hello, Protocol string
	Remote          netip.AddrPort // zero for a connection in memory
	TLS             bool
	User            string // who logged in, "" = nobody
	At              time.Time
}

// Part returns the message's structure.
func (m *Message) Part() *mime.Part {
	p, _ := mime.Parse(bytes.NewReader(m.Data), int64(len(m.Data)), mime.Limits{})
	return p
}

// Header returns the message's header.
func (m *Message) Header() mime.Header { return m.Part().Header }

// Subject returns the decoded subject.
func (m *Message) Subject() string {
	h := m.Header()
	return h.Text("Subject")
}

// Text returns the first text/plain part, decoded; "" if there is none.
func (m *Message) Text() string { return m.text("plain") }

// HTML returns the first text/html part, decoded; "" if there is none.
func (m *Message) HTML() string { return m.text("html") }

func (m *Message) text(subtype string) string {
	for _, p := range leaves(m.Part(), nil) {
		if p.Type == "text" && p.Subtype == subtype {
			b, _ := io.ReadAll(p.Text(bytes.NewReader(m.Data)))
			return string(b)
		}
	}
	return ""
}

func leaves(p *mime.Part, list []*mime.Part) []*mime.Part {
	if p == nil {
		return list
	}
	for _, c := range p.Parts {
		list = leaves(c, list)
	}
	if len(p.Parts) == 0 {
		list = append(list, p)
	}
	return list
}

// Links returns the http and https addresses in the text and then in the
// HTML, in order, each once.
func (m *Message) Links() []string {
	var links []string
	add := func(s string) {
		s = strings.TrimRight(s, ".,;:!?)]}'*")
		if !slices.Contains(links, s) {
			links = append(links, s)
		}
	}
	link := regexp.MustCompile(`https?://[^\s<>"'\x60]+`)
	for _, s := range link.FindAllString(m.Text(), -1) {
		add(s)
	}
	for _, s := range link.FindAllString(m.HTML(), -1) {
		add(html.UnescapeString(s))
	}
	return links
}

// Messages returns what has arrived so far, in order.
func (s *Server) Messages() []*Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Wait returns the messages as soon as there are n of them. When ctx is done
// first, it fails the test of a Server from New, and else returns those there
// are.
func (s *Server) Wait(ctx context.Context, n int) []*Message {
	s.once.Do(s.prepare)
	for {
		s.mu.Lock()
		list, arrived := slices.Clone(s.messages), s.arrived
		s.mu.Unlock()
		if len(list) >= n {
			return list
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			if s.tb != nil {
				s.tb.Helper()
				s.tb.Fatalf("smtptest: %d of %d messages arrived: %v", len(list), n, ctx.Err())
			}
			return list
		}
	}
}

func (s *Server) arrive(m *Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
	close(s.arrived)
	s.arrived = make(chan struct{})
}
