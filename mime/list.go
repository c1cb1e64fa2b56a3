package mime

import "strings"

// List is what a header says about the mailing list it came by (RFC 2369,
// RFC 2919, RFC 8058). The lists of URIs are in order of preference.
type List struct {
	ID   string // of List-Id, without <>
	Name string // the phrase before it, decoded

	Help, Unsubscribe, Subscribe, Post, Owner, Archive []string

	// NoPost says that nobody may post to the list.
	NoPost bool
	// OneClick is the https URI that takes an HTTP POST with the body
	// "List-Unsubscribe=One-Click" (RFC 8058 §3.1), "" when there is none.
	// Only a message whose DKIM signature covers both fields may be
	// believed (§4).
	OneClick string
}

// List reads the List-* fields.
func (h *Header) List() List {
	var l List
	if id := h.Get("List-Id"); id != "" {
		if i := strings.LastIndexByte(id, '<'); i >= 0 {
			name, rest := strings.TrimSpace(id[:i]), id[i+1:]
			l.ID, _, _ = strings.Cut(rest, ">")
			l.ID = strings.TrimSpace(l.ID)
			if quotedEnd(name) == len(name) && strings.HasPrefix(name, `"`) {
				name = unquote(name[1 : len(name)-1])
			}
			l.Name = DecodeText(name)
		} else {
			l.ID = id
		}
	}
	l.Help, _ = h.listURIs("List-Help")
	l.Unsubscribe, _ = h.listURIs("List-Unsubscribe")
	l.Subscribe, _ = h.listURIs("List-Subscribe")
	l.Post, l.NoPost = h.listURIs("List-Post")
	l.Owner, _ = h.listURIs("List-Owner")
	l.Archive, _ = h.listURIs("List-Archive")
	if equalFold(strings.ReplaceAll(h.Get("List-Unsubscribe-Post"), " ", ""), oneClick) {
		for _, u := range l.Unsubscribe {
			if isHTTPS(u) {
				l.OneClick = u
				break
			}
		}
	}
	return l
}

const oneClick = "List-Unsubscribe=One-Click"

// maxURIs bounds the URIs of a field.
const maxURIs = 100

// listURIs reads the URIs between angle brackets; comments around them and
// white space in them go (RFC 2369 §2). no says that the field is NO.
func (h *Header) listURIs(name string) (uris []string, no bool) {
	for f := range h.All(name) {
		s := f.Value
		for len(uris) < maxURIs && s != "" {
			switch i := strings.IndexAny(s, "<("); {
			case i < 0:
				if word := strings.TrimSpace(s); uris == nil && equalFold(word, "no") {
					no = true
				}
				s = ""
			case s[i] == '(':
				if uris == nil && equalFold(strings.TrimSpace(s[:i]), "no") {
					no = true
				}
				end := commentEnd(s[i:])
				if end < 0 {
					end = len(s) - i
				}
				s = s[i+end:]
			default:
				uri, rest, ok := strings.Cut(s[i+1:], ">")
				if !ok {
					return uris, no
				}
				uri = strings.Join(strings.Fields(uri), "")
				if uri != "" {
					uris = append(uris, uri)
				}
				s = rest
			}
		}
	}
	return uris, no
}

// Group is a part of an address list: a group of RFC 5322 §3.4, which may be
// empty, or mailboxes that are in none.
type Group struct {
	Name      string // decoded; "" = no group
	Addresses []Address
}

// Groups returns the mailboxes of all fields of that name with the groups
// they are in. The error is that of [Header.Addresses].
func (h *Header) Groups(name string) ([]Group, error) {
	var groups []Group
	var first error
	for i := h.find(name, 0); i >= 0; i = h.find(name, i+1) {
		p := addrScanner{s: unfold(h.value(h.fields[i]))}
		in := false
		for {
			m, ok := p.next()
			if !ok {
				break
			}
			switch m.kind {
			case isGroupStart:
				groups, in = append(groups, Group{Name: DecodeText(m.name)}), true
				continue
			case isGroupEnd:
				in = false
				continue
			}
			a, ok := m.address()
			if !ok {
				if first == nil {
					first = addressError(m.text)
				}
				continue
			}
			if n := len(groups); n == 0 || !in && groups[n-1].Name != "" {
				groups = append(groups, Group{})
			}
			g := &groups[len(groups)-1]
			g.Addresses = append(g.Addresses, a)
		}
	}
	return groups, first
}

// Phrases returns the elements of a field that lists words with commas between
// them (Keywords, Content-Language), of all fields of that name, decoded.
func (h *Header) Phrases(name string) []string {
	var list []string
	for f := range h.All(name) {
		s, from := f.Value, 0
		for i := 0; i <= len(s); {
			switch {
			case i == len(s) || s[i] == ',':
				if w := strings.Join(strings.Fields(DecodeText(s[from:i])), " "); w != "" {
					list = append(list, w)
				}
				i++
				from = i
			case s[i] == '=' && encodedWordEnd(s[i:]) > 0:
				i += encodedWordEnd(s[i:])
			default:
				i++
			}
		}
	}
	return list
}
