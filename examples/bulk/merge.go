package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/template"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/queue/submission"
	"github.com/postrider/postrider/smtp"
)

// merge makes messages.
type merge struct {
	*config
	subject, text *template.Template
}

func newMerge(c *config, text string) (*merge, error) {
	head, body, ok := strings.Cut(text, "\n\n")
	subject, ok2 := strings.CutPrefix(head, "Subject: ")
	if !ok || !ok2 || strings.Contains(subject, "\n") {
		return nil, errors.New(`want "Subject: …", an empty line, and the text`)
	}
	m := &merge{config: c}
	var err, err2 error
	// A column that is not there is a mistake, and not "<no value>" in a
	// customer's mail.
	m.subject, err = template.New("subject").Option("missingkey=error").Parse(subject)
	m.text, err2 = template.New("text").Option("missingkey=error").Parse(body)
	return m, errors.Join(err, err2)
}

// row is one line of the file, by column.
type row map[string]string

// message makes the message for one row.
func (m *merge) message(r row) (*mime.Message, submission.Options, error) {
	var o submission.Options
	addr, err := smtp.ParseAddress(strings.TrimSpace(r["email"]))
	if err != nil {
		return nil, o, fmt.Errorf("email %q: %w", r["email"], err)
	}
	msg := &mime.Message{From: []mime.Address{m.from}, To: []mime.Address{{Name: r["name"], Address: addr}},
		Unsubscribe: []string{m.unsubscribeURL(addr)}, OneClick: true}
	var subject strings.Builder
	if err := errors.Join(m.subject.Execute(&subject, r), msg.SetText(m.text, r)); err != nil {
		return nil, o, err
	}
	msg.Subject = subject.String()
	o.Envelope.From = m.bounces // the queue makes a return path of it for each
	o.Envelope.To = []smtp.Recipient{{Address: addr}}
	o.Campaign, o.Key = m.campaign, m.campaign+" "+strings.ToLower(addr.String())
	return msg, o, nil
}

// unsubscribeURL is the link for one reader. A POST of
// "List-Unsubscribe=One-Click" to it unsubscribes (RFC 8058 §3.2); whoever
// answers it checks mac in the same way.
func (m *merge) unsubscribeURL(addr smtp.Address) string {
	mac := hmac.New(sha256.New, []byte(m.secret))
	mac.Write([]byte(addr.String()))
	return m.unsubscribe + "?" + url.Values{"who": {addr.String()}, "mac": {fmt.Sprintf("%x", mac.Sum(nil)[:16])}}.Encode()
}

// rows reads one row at a time; at the end it gives io.EOF. The number is that
// of the line, for complaints. A row that is wrong is an error of its own.
type rows func() (r row, line int, err error)

// errRow says that a line cannot be used; the next can be.
var errRow = errors.New("unusable line")

// recipients opens the file, or makes recipients up.
func recipients(c *config) (rows, func(), error) {
	if c.csv == "" {
		return invented(c.n), func() {}, nil
	}
	f, err := os.Open(c.csv)
	if err != nil {
		return nil, nil, err
	}
	r := csv.NewReader(f)
	r.ReuseRecord = true
	head, err := r.Read()
	if err == nil {
		head = slices.Clone(head)
		for i := range head {
			head[i] = strings.TrimSpace(strings.TrimPrefix(head[i], "\ufeff"))
		}
		if !slices.Contains(head, "email") {
			err = fmt.Errorf("no column is called email: %q", head)
		}
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("%s: %w", c.csv, err)
	}
	return func() (row, int, error) {
		fields, err := r.Read()
		line, _ := r.FieldPos(0)
		var bad *csv.ParseError
		switch {
		case err == io.EOF:
			return nil, 0, err
		case errors.As(err, &bad):
			return nil, bad.Line, fmt.Errorf("%w: %w", errRow, bad.Err)
		case err != nil:
			return nil, 0, fmt.Errorf("%s: %w", c.csv, err)
		}
		m := make(row, len(head))
		for i, name := range head {
			m[name] = fields[i]
		}
		return m, line, nil
	}, func() { f.Close() }, nil
}

// invented makes n recipients up, with the domains of the far side.
func invented(n int) rows {
	names, flowers := []string{"Ann", "Käthe", "Łukasz", "Bob", "Zoë", "Jun"}, []string{"poppies", "lupins", "cosmos", "asters"}
	i := 0
	return func() (row, int, error) {
		if i == n {
			return nil, 0, io.EOF
		}
		i++
		domain := "north.example"
		switch i % 20 {
		case 1, 2:
			domain = "south.example"
		case 3, 4, 5:
			domain = "west.example"
		case 6:
			domain = "late.example"
		}
		if i%100 == 7 {
			domain = "down.example"
		}
		return row{"email": fmt.Sprintf("reader%d@%s", i, domain), "name": names[i%len(names)], "flower": flowers[i%len(flowers)]}, i, nil
	}
}
