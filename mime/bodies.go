package mime

import (
	"iter"
	"slices"
	"strings"
)

// Bodies are the parts of a message as people see it, by the algorithm of
// RFC 8621 §4.1.4. A part may be in more than one list.
type Bodies struct {
	// Text and HTML are what to show, one after another, to whom likes
	// plain text or HTML better; both have all that there is only once.
	// They may have pictures, sound and films in them.
	Text, HTML []*Part
	// Attachments are all other parts.
	Attachments []*Part
	// Inline are those of the Attachments that HTML refers to by their ID,
	// unless they say that they are attachments.
	Inline []*Part
}

// Bodies sorts the parts of the message or part p. What is in an attached
// message is not looked at; Bodies of its Message does.
func (p *Part) Bodies() Bodies {
	var b Bodies
	b.sort([]*Part{p}, "mixed", false, &b.HTML, &b.Text)
	for _, a := range b.Attachments {
		if a.ID != "" && a.Disposition != "attachment" {
			b.Inline = append(b.Inline, a)
		}
	}
	return b
}

func (b *Bodies) sort(parts []*Part, multipart string, inAlternative bool, html, text *[]*Part) {
	texts, htmls := -1, -1
	if text != nil {
		texts = len(*text)
	}
	if html != nil {
		htmls = len(*html)
	}
	for i, p := range parts {
		plain := p.Type == "text" && p.Subtype == "plain"
		isHTML := p.Type == "text" && p.Subtype == "html"
		media := p.Type == "image" || p.Type == "audio" || p.Type == "video"
		inline := p.Disposition != "attachment" && (plain || isHTML || media) &&
			(i == 0 || multipart != "related" && (media || p.FileName() == ""))
		switch {
		case p.IsMultipart() && p.Parts != nil:
			b.sort(p.Parts, p.Subtype, inAlternative || p.Subtype == "alternative", html, text)
		case p.IsMultipart() && p.Size == 0:
		case !inline:
			b.Attachments = append(b.Attachments, p)
		case multipart == "alternative" && plain:
			push(text, p)
		case multipart == "alternative" && isHTML:
			push(html, p)
		case multipart == "alternative":
			b.Attachments = append(b.Attachments, p)
		default:
			if inAlternative && plain {
				html = nil
			}
			if inAlternative && isHTML {
				text = nil
			}
			push(text, p)
			push(html, p)
			if (text == nil || html == nil) && media {
				b.Attachments = append(b.Attachments, p)
			}
		}
	}
	if multipart == "alternative" && text != nil && html != nil {
		if texts == len(*text) && htmls != len(*html) {
			*text = append(*text, (*html)[htmls:]...)
		} else if htmls == len(*html) && texts != len(*text) {
			*html = append(*html, (*text)[texts:]...)
		}
	}
}

func push(list *[]*Part, p *Part) {
	if list != nil {
		*list = append(*list, p)
	}
}

// ContentID returns ID without angle brackets, "" when there is none.
func (p *Part) ContentID() string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(p.ID), "<"), ">")
}

// Find returns the part within p, or p itself, that a "cid:" URL refers to
// (RFC 2392); with or without "cid:" and angle brackets, nil when there is
// none.
func (p *Part) Find(cid string) *Part {
	if len(cid) > 4 && equalFold(cid[:4], "cid:") {
		cid = string(appendUnescaped(nil, cid[4:]))
	}
	cid = strings.TrimSuffix(strings.TrimPrefix(cid, "<"), ">")
	if cid == "" {
		return nil
	}
	for q := range p.All() {
		if q.ContentID() == cid {
			return q
		}
	}
	return nil
}

// All yields p and every part and message in it, in their order in the
// message.
func (p *Part) All() iter.Seq[*Part] {
	return func(yield func(*Part) bool) {
		stack := []*Part{p}
		for len(stack) > 0 {
			p := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if !yield(p) {
				return
			}
			if p.Message != nil {
				stack = append(stack, p.Message)
			}
			for _, c := range slices.Backward(p.Parts) {
				stack = append(stack, c)
			}
		}
	}
}
