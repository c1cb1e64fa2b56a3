package imapserver

import (
	"strings"
	"time"

	"github.com/postrider/postrider/imap"
)

// maxSearchDepth bounds the nesting of search keys.
const maxSearchDepth = 50

// searchParser takes the arguments of SEARCH (RFC 9051 §6.4.4).
type searchParser struct {
	s    *session
	keys int // that may still come
}

// parse takes everything to the end of the line.
func (p *searchParser) parse(o *imap.SearchOptions, c *imap.SearchCriteria) error {
	d := p.s.dec
	d.ExpectSP()
	var word string
	if p.keyword(&word) && word == "RETURN" {
		if !p.returnOptions(o) || !d.ExpectSP() {
			return d.Err()
		}
		word = ""
		p.keyword(&word)
	}
	if word == "CHARSET" {
		var charset string
		if !d.ExpectSP() || !d.ExpectAString(&charset) || !d.ExpectSP() {
			return d.Err()
		}
		if !strings.EqualFold(charset, "UTF-8") && !strings.EqualFold(charset, "US-ASCII") {
			return &imap.Error{Type: imap.NO, Code: "BADCHARSET", Arg: "(US-ASCII UTF-8)", Text: "Unknown charset"}
		}
		word = ""
		p.keyword(&word)
	}
	for first := true; d.Err() == nil; first = false {
		if !first {
			if !d.SP() {
				break
			}
			word = ""
			p.keyword(&word)
		}
		p.key(c, word, 0)
	}
	d.ExpectCRLF()
	return d.Err()
}

func (p *searchParser) returnOptions(o *imap.SearchOptions) bool {
	d := p.s.dec
	o.Return = true
	return d.ExpectSP() && d.ExpectList(func() bool {
		var w string
		if !d.ExpectKeyword(&w) {
			return false
		}
		switch w {
		case "MIN":
			o.ReturnMin = true
		case "MAX":
			o.ReturnMax = true
		case "ALL":
			o.ReturnAll = true
		case "COUNT":
			o.ReturnCount = true
		case "SAVE":
			o.ReturnSave = true
		default:
			return d.Fail("unknown return option")
		}
		return true
	})
}

// keyword takes the name of a key; "" when a set or a list is next.
func (p *searchParser) keyword(word *string) bool {
	d := p.s.dec
	if d.Next('(') || d.Next('*') || d.Next('$') {
		return false
	}
	for c := byte('0'); c <= '9'; c++ {
		if d.Next(c) {
			return false
		}
	}
	return d.ExpectKeyword(word)
}

// next takes a space and a key, into c.
func (p *searchParser) next(c *imap.SearchCriteria, depth int) bool {
	var word string
	if !p.s.dec.ExpectSP() {
		return false
	}
	p.keyword(&word)
	return p.key(c, word, depth)
}

// key takes the rest of the key word, and adds it to c.
func (p *searchParser) key(c *imap.SearchCriteria, word string, depth int) bool {
	d := p.s.dec
	if d.Err() != nil {
		return false
	}
	if depth > maxSearchDepth {
		return d.Fail("search nested too deeply")
	}
	if p.keys--; p.keys < 0 {
		return d.FailWith(&imap.Error{Type: imap.NO, Code: imap.CodeLimit, Text: "Too many search keys"})
	}
	if flag, not, ok := flagKey(word); ok {
		if not {
			c.NotFlags = append(c.NotFlags, flag)
		} else {
			c.Flags = append(c.Flags, flag)
		}
		return true
	}
	switch word {
	case "":
		return p.setOrList(c, depth)
	case "ALL":
		return true
	case "NEW":
		c.Flags = append(c.Flags, imap.FlagRecent)
		c.NotFlags = append(c.NotFlags, imap.FlagSeen)
		return true
	case "KEYWORD", "UNKEYWORD":
		var f imap.Flag
		if !d.ExpectSP() || !d.ExpectFlag(&f) {
			return false
		}
		if word == "KEYWORD" {
			c.Flags = append(c.Flags, f)
		} else {
			c.NotFlags = append(c.NotFlags, f)
		}
		return true
	case "BCC", "CC", "FROM", "SUBJECT", "TO":
		var v string
		if !d.ExpectSP() || !d.ExpectAString(&v) {
			return false
		}
		c.Header = append(c.Header, imap.SearchHeader{Name: word, Value: v})
		return true
	case "HEADER":
		var h imap.SearchHeader
		if !d.ExpectSP() || !d.ExpectAString(&h.Name) || !d.ExpectSP() || !d.ExpectAString(&h.Value) {
			return false
		}
		c.Header = append(c.Header, h)
		return true
	case "BODY", "TEXT":
		var v string
		if !d.ExpectSP() || !d.ExpectAString(&v) {
			return false
		}
		if word == "BODY" {
			c.Body = append(c.Body, v)
		} else {
			c.Text = append(c.Text, v)
		}
		return true
	case "LARGER", "SMALLER":
		return p.size(c, word)
	case "BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE":
		return p.date(c, word)
	case "UID":
		var set imap.MessageSet
		if !d.ExpectSP() || !d.ExpectMessageSet(&set) {
			return false
		}
		if set.Saved {
			c.Saved = true
		} else {
			c.UIDs = append(c.UIDs, set.Nums)
		}
		return true
	case "NOT":
		var sub imap.SearchCriteria
		if !p.next(&sub, depth+1) {
			return false
		}
		c.Not = append(c.Not, sub)
		return true
	case "OR":
		var pair [2]imap.SearchCriteria
		if !p.next(&pair[0], depth+1) || !p.next(&pair[1], depth+1) {
			return false
		}
		c.Or = append(c.Or, pair)
		return true
	}
	return d.Fail("unknown search key")
}

// setOrList takes a set of messages, or keys in parentheses, which are a
// conjunction like those around them.
func (p *searchParser) setOrList(c *imap.SearchCriteria, depth int) bool {
	d := p.s.dec
	if !d.Next('(') {
		var set imap.MessageSet
		if !d.ExpectMessageSet(&set) {
			return false
		}
		if set.Saved {
			c.Saved = true
		} else {
			c.Seqs = append(c.Seqs, set.Nums)
		}
		return true
	}
	n := 0
	return d.ExpectList(func() bool {
		n++
		var word string
		p.keyword(&word)
		return p.key(c, word, depth+1)
	}) && (n > 0 || d.Fail("empty list of search keys"))
}

func flagKey(word string) (f imap.Flag, not, ok bool) {
	switch word {
	case "OLD":
		return imap.FlagRecent, true, true
	case "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "RECENT", "SEEN":
		return imap.Flag(`\` + word), false, true
	case "UNANSWERED", "UNDELETED", "UNDRAFT", "UNFLAGGED", "UNSEEN":
		return imap.Flag(`\` + word[2:]), true, true
	}
	return "", false, false
}

func (p *searchParser) size(c *imap.SearchCriteria, word string) bool {
	d := p.s.dec
	var n int64
	if !d.ExpectSP() || !d.ExpectNumber64(&n) {
		return false
	}
	switch {
	case word == "LARGER" && n == 0:
		c.Not = append(c.Not, imap.SearchCriteria{Smaller: 1})
	case word == "LARGER":
		c.Larger = max(c.Larger, n)
	case n == 0:
		c.Not = append(c.Not, imap.SearchCriteria{}) // no message is smaller
	case c.Smaller == 0 || n < c.Smaller:
		c.Smaller = n
	}
	return true
}

func (p *searchParser) date(c *imap.SearchCriteria, word string) bool {
	d := p.s.dec
	var day time.Time
	if !d.ExpectSP() || !d.ExpectDate(&day) {
		return false
	}
	since, before := &c.Since, &c.Before
	if w, ok := strings.CutPrefix(word, "SENT"); ok {
		word, since, before = w, &c.SentSince, &c.SentBefore
	}
	if word != "BEFORE" && (since.IsZero() || day.After(*since)) {
		*since = day
	}
	if word == "ON" {
		day = day.AddDate(0, 0, 1)
	}
	if word != "SINCE" && (before.IsZero() || day.Before(*before)) {
		*before = day
	}
	return true
}
