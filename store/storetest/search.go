package storetest

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/searchtext"
	"github.com/postrider/postrider/store"
)

// Candidates implements store.Searcher. It gives as little help as it may: all
// else that acc knows is counted as not known from some UID on, or found too.
func (s *strict) Candidates(ctx context.Context, box store.MailboxID, terms []store.Term) (store.UIDSet, store.UID, error) {
	if err := s.o.fail("Candidates"); err != nil {
		return nil, 0, err
	}
	x, ok := store.As[store.Searcher](s.acc)
	if !ok {
		return nil, 0, nil
	}
	uids, through, err := x.Candidates(ctx, box, terms)
	if err != nil {
		return nil, 0, err
	}
	for range 3 {
		uids = uids.Union(store.UIDs(1 + rand.N(through+2))) // may be expunged, or not there yet
	}
	if rand.N(2) == 0 {
		through = rand.N(through + 1)
	}
	return uids, through, nil
}

// lawSearch compares Candidates with what is in the messages.
func lawSearch(p *probe) {
	for _, acc := range []store.Account{p.a, p.b} {
		if _, ok := store.As[store.Searcher](acc); !ok {
			p.skipf("the account is no store.Searcher")
		}
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	boxes := []store.MailboxID{store.Inbox, p.newBox(p.a, "x")}
	var texts []string // that are, or were, in some message
	for round := range max(p.rounds()/10, 8) {
		acc, box := p.a, boxes[rnd.IntN(2)]
		if rnd.IntN(2) == 0 {
			acc = p.b
		}
		switch n := rnd.IntN(8); {
		case n == 0 && round > 3:
			p.expunge(acc, box, store.UIDSet{{First: 1 + store.UID(rnd.IntN(20)), Last: 1 + store.UID(rnd.IntN(20)) + 20}})
		case n <= 2:
			to := boxes[rnd.IntN(2)]
			uids := store.UIDSet{{First: 1, Last: 1 + store.UID(rnd.IntN(15))}}
			_, err := acc.Copy(p.ctx, box, uids, to, store.CopyOptions{Move: n == 1 && to != box})
			p.ok(err, "Copy")
		default:
			var d []store.Draft
			for range 1 + rnd.IntN(10) {
				m, in := randomMail(rnd)
				texts = append(texts, in...)
				x := text(m)
				if rnd.IntN(2) == 0 {
					x.Summary = mime.ParseBytes([]byte(m), mime.Limits{}).Summary()
				}
				if rnd.IntN(4) == 0 {
					x.Head, x.Body = []byte("X-Head: of "+in[0]+"\r\n"), strings.NewReader(m)
					x.Summary = nil
				}
				d = append(d, x)
			}
			p.append(acc, box, d...)
		}
		if len(texts) == 0 {
			continue
		}
		for _, box := range boxes {
			p.search(rnd, box, texts)
		}
	}
}

// search asks both ways for some terms.
func (p *probe) search(rnd *rand.Rand, box store.MailboxID, texts []string) {
	type mail struct {
		uid  store.UID
		text []string
	}
	var mails []mail
	for m, err := range p.a.Messages(p.ctx, box, store.Query{}) {
		p.ok(err, "Messages")
		b, err := p.a.Open(p.ctx, m)
		p.ok(err, "Open")
		raw, err := readBody(b)
		p.ok(err, "reading a body")
		p.ok(b.Close(), "Close")
		all, err := textsOf([]byte(raw))
		p.ok(err, "reading a message")
		mails = append(mails, mail{m.UID, all})
	}
	for range 6 {
		var terms []store.Term
		for range 1 + rnd.IntN(2) {
			t := []rune(texts[rnd.IntN(len(texts))])
			from := rnd.IntN(len(t))
			t = t[from : from+1+rnd.IntN(min(len(t)-from, 30))]
			x := store.Term{Text: string(t)}
			switch rnd.IntN(6) {
			case 0:
				x.Text = strings.ToUpper(x.Text)
			case 1:
				x.Field = "subject"
			case 2:
				x.Text = "%_\\" + x.Text
			}
			terms = append(terms, x)
		}
		for name, acc := range map[string]store.Account{"first": p.a, "second": p.b} {
			x, _ := store.As[store.Searcher](acc)
			uids, through, err := x.Candidates(p.ctx, box, terms)
			if err != nil {
				p.errorf("Candidates for %q on the %s handle: %v", terms, name, err)
				continue
			}
			for _, m := range mails {
				if m.uid <= through && !uids.Contains(m.uid) && hasTerms(m.text, terms) {
					p.errorf("Candidates for %q on the %s handle gives %s through %d, and leaves out %d, which has it", terms, name, uids, through, m.uid)
				}
			}
		}
	}
}

// randomMail returns a message, and texts that a search finds in it.
func randomMail(rnd *rand.Rand) (string, []string) {
	words := strings.Fields("Schöne GRÜSSE aus Köln ΣΊΣΥΦΟΣ привет 日本語の手紙 naïve invoice Rechnung re: [list] 100%_sure back\\slash 'quote' İstanbul ſtraße the quick brown fox @example.org \ufffd a I x")
	line := func() string {
		var out []string
		for range 1 + rnd.IntN(8) {
			out = append(out, words[rnd.IntN(len(words))])
		}
		return strings.Join(out, " ")
	}
	subject, body := line(), line()
	in := []string{subject, body}
	head := "Subject: " + mime.EncodeWord(subject) + "\r\nX-Number: " + fmt.Sprint(rnd.IntN(1000)) + "\r\n"
	switch rnd.IntN(5) {
	case 0:
		return head + "Content-Type: text/plain; charset=utf-8\r\n\r\n" + body + "\r\n", in
	case 1:
		return head + "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(body)) + "\r\n", in
	case 2:
		other, inner := line(), line()
		return head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + body + "\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: " +
			other + "\r\n\r\n" + inner + "\r\n--b--\r\n", append(in, other, inner)
	case 3:
		return head + "Content-Type: text/plain; charset=iso-8859-1\r\n\r\nSch\xf6n \xff\x00 und \xe2\x82 " + body + "\xc3", append(in, "schön", "\x00 und", "ÿ")
	}
	long := strings.Repeat(body+"\r\n", 1+rnd.IntN(1000))
	return head + "\r\n" + long + "the end", append(in, "the end")
}

func textsOf(raw []byte) ([]string, error) {
	c := collector{}
	var s searchtext.Scanner
	r := bytes.NewReader(raw)
	root, err := mime.Parse(r, r.Size(), mime.Limits{})
	if err == nil {
		err = s.Scan(root, r, &c)
	}
	c.Begin(true)
	return c.texts, err
}

// collector is a searchtext.Visitor that keeps the texts, folded.
type collector struct {
	texts []string
	now   []byte
}

func (c *collector) Wants(bool) bool { return true }

func (c *collector) Begin(bool) {
	c.texts = append(c.texts, string(searchtext.AppendFolded(nil, c.now)))
	c.now = c.now[:0]
}

func (c *collector) Write(p []byte) { c.now = append(c.now, p...) }

func hasTerms(texts []string, terms []store.Term) bool {
	for _, t := range terms {
		found := false
		folded := string(searchtext.AppendFolded(nil, []byte(t.Text)))
		for _, s := range texts {
			if t.Field != "" {
				var ok bool
				if s, ok = strings.CutPrefix(s, strings.ToLower(t.Field)+": "); !ok {
					continue
				}
			}
			found = found || strings.Contains(s, folded)
		}
		if !found {
			return false
		}
	}
	return true
}
