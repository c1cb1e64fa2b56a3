package imapclient

import (
	"context"
	"time"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/imapwire"
)

// Search looks for messages (RFC 9051 §6.4.4) and returns their sequence
// numbers, or their UIDs if uid is set. Return options need ESEARCH (RFC
// 4731) or IMAP4rev2.
func (c *Client) Search(ctx context.Context, uid bool, criteria *imap.SearchCriteria, o imap.SearchOptions) (*imap.SearchData, error) {
	if !criteriaFlags(criteria) {
		return nil, ErrArgument
	}
	data := &imap.SearchData{UID: uid}
	name := "SEARCH"
	if uid {
		name = "UID SEARCH"
	}
	err := c.run(ctx, &command{
		name: name,
		args: func(e *imapwire.Encoder) {
			searchReturn(e, o)
			if !c.enc.UTF8 && !criteriaASCII(criteria) {
				e.Atom(" CHARSET UTF-8")
			}
			e.SP()
			searchKeys(e, criteria)
		},
		untagged: func(name string) bool {
			switch name {
			case "SEARCH":
				c.searchNumbers(data)
			case "ESEARCH":
				c.esearch(data)
			default:
				return false
			}
			return true
		},
	})
	if err != nil {
		return nil, err
	}
	data.All = data.All.Resolve(0)
	return data, nil
}

func searchReturn(e *imapwire.Encoder, o imap.SearchOptions) {
	opts := []string{}
	add := func(on bool, s string) {
		if on {
			opts = append(opts, s)
		}
	}
	add(o.ReturnMin, "MIN")
	add(o.ReturnMax, "MAX")
	add(o.ReturnAll, "ALL")
	add(o.ReturnCount, "COUNT")
	add(o.ReturnSave, "SAVE")
	if o.Return || len(opts) > 0 {
		e.Atom(" RETURN ").List(len(opts), func(i int) { e.Atom(opts[i]) })
	}
}

// criteriaFlags tells whether all flags and keywords of k can be sent.
func criteriaFlags(k *imap.SearchCriteria) bool {
	ok := areWords(k.Flags...) && areWords(k.NotFlags...)
	for i := range k.Not {
		ok = ok && criteriaFlags(&k.Not[i])
	}
	for i := range k.Or {
		ok = ok && criteriaFlags(&k.Or[i][0]) && criteriaFlags(&k.Or[i][1])
	}
	return ok
}

func criteriaASCII(k *imap.SearchCriteria) bool {
	texts := append(append([]string(nil), k.Body...), k.Text...)
	for _, h := range k.Header {
		texts = append(texts, h.Value)
	}
	for _, s := range texts {
		for i := range len(s) {
			if s[i] >= 0x80 {
				return false
			}
		}
	}
	for i := range k.Not {
		if !criteriaASCII(&k.Not[i]) {
			return false
		}
	}
	for i := range k.Or {
		if !criteriaASCII(&k.Or[i][0]) || !criteriaASCII(&k.Or[i][1]) {
			return false
		}
	}
	return true
}

// searchKeys writes the keys of k with spaces between them, at least one.
func searchKeys(e *imapwire.Encoder, k *imap.SearchCriteria) {
	n := 0
	key := func(name string) *imapwire.Encoder {
		if n++; n > 1 {
			e.SP()
		}
		return e.Atom(name)
	}
	for _, s := range k.Seqs {
		key("").NumSet(s)
	}
	for _, s := range k.UIDs {
		key("UID ").NumSet(s)
	}
	if k.Saved {
		key("$")
	}
	for _, f := range k.Flags {
		key(flagKey(f, ""))
	}
	for _, f := range k.NotFlags {
		key(flagKey(f, "UN"))
	}
	for _, d := range []struct {
		name string
		t    time.Time
	}{{"SINCE ", k.Since}, {"BEFORE ", k.Before}, {"SENTSINCE ", k.SentSince}, {"SENTBEFORE ", k.SentBefore}} {
		if !d.t.IsZero() {
			key(d.name).Atom(d.t.Format("2-Jan-2006"))
		}
	}
	if k.Larger > 0 {
		key("LARGER ").Number(uint64(k.Larger))
	}
	if k.Smaller > 0 {
		key("SMALLER ").Number(uint64(k.Smaller))
	}
	for _, h := range k.Header {
		key("HEADER ").AString(h.Name).SP().String(h.Value)
	}
	for _, s := range k.Body {
		key("BODY ").String(s)
	}
	for _, s := range k.Text {
		key("TEXT ").String(s)
	}
	for i := range k.Not {
		key("NOT (")
		searchKeys(e, &k.Not[i])
		e.Special(')')
	}
	for i := range k.Or {
		key("OR (")
		searchKeys(e, &k.Or[i][0])
		e.Atom(") (")
		searchKeys(e, &k.Or[i][1])
		e.Special(')')
	}
	if n == 0 {
		key("ALL")
	}
}

// flagKey returns the search key of a flag; not is "" or "UN".
func flagKey(f imap.Flag, not string) string {
	for _, s := range []struct {
		flag imap.Flag
		name string
	}{
		{imap.FlagSeen, "SEEN"}, {imap.FlagAnswered, "ANSWERED"}, {imap.FlagFlagged, "FLAGGED"},
		{imap.FlagDeleted, "DELETED"}, {imap.FlagDraft, "DRAFT"},
	} {
		if f.Equal(s.flag) {
			return not + s.name
		}
	}
	if f.Equal(imap.FlagRecent) {
		if not != "" {
			return "OLD"
		}
		return "RECENT"
	}
	return not + "KEYWORD " + string(f)
}

// searchNumbers reads a SEARCH response from behind its name.
func (c *Client) searchNumbers(data *imap.SearchData) {
	d := c.dec
	for d.SP() {
		var n uint32
		switch {
		case d.Number(&n):
			data.All.Add(n)
		case d.Next('('): // MODSEQ (RFC 7162 §3.1.5)
			c.skipValue(0)
		case d.Next('\r'), d.Next('\n'):
			return
		default:
			d.Fail("expected a number")
		}
	}
}

// esearch reads an ESEARCH response (RFC 9051 §7.3.4) from behind its name.
func (c *Client) esearch(data *imap.SearchData) {
	d := c.dec
	for d.SP() {
		if d.Next('(') {
			c.skipValue(0) // TAG
			continue
		}
		var name string
		if !d.ExpectKeyword(&name) {
			return
		}
		if name == "UID" {
			data.UID = true
			continue
		}
		if !d.ExpectSP() {
			return
		}
		switch name {
		case "MIN":
			d.ExpectNumber(&data.Min)
		case "MAX":
			d.ExpectNumber(&data.Max)
		case "COUNT":
			data.HasCount = true
			d.ExpectNumber(&data.Count)
		case "ALL":
			d.ExpectNumSet(&data.All)
		default:
			c.skipValue(0)
		}
	}
}
