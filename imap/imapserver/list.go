package imapserver

import (
	"slices"
	"strings"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

// listRequest is a parsed LIST or LSUB.
type listRequest struct {
	imap.ListOptions
	extended  bool // options or several patterns were given (RFC 5258)
	reference string
	patterns  []string
}

// maxPatterns bounds the patterns of one LIST, and maxPattern their octets
// together: matching takes time in the product of those and the names.
const (
	maxPatterns = 100
	maxPattern  = 4 * maxName
)

// list is LIST (RFC 9051 §6.3.9, RFC 5258, RFC 5819, RFC 6154).
func (s *session) list() (result, error) {
	var r listRequest
	if err := s.parseList(&r); err != nil {
		return result{}, err
	}
	if !r.extended && r.patterns[0] == "" {
		s.enc.Atom(`* LIST (\Noselect) "/" ""` + "\r\n")
		return result{}, nil
	}
	var tree tree
	if err := s.loadTree(&tree, len(r.ReturnStatus) > 0); err != nil {
		return result{}, err
	}
	want := r.selects()
	for _, n := range tree.nodes {
		d, ok := r.entry(&tree, n, want)
		if !ok {
			continue
		}
		s.writeList("LIST", &d)
		if len(r.ReturnStatus) > 0 && n.box != nil && want(n) {
			if err := s.writeStatusData(*n.box, r.ReturnStatus); err != nil {
				return result{}, err
			}
		}
	}
	return result{}, nil
}

// selects returns the selection criterion.
func (r *listRequest) selects() func(*node) bool {
	return func(n *node) bool {
		if r.SelectSubscribed && !n.subscribed {
			return false
		}
		if r.SelectSpecialUse && (n.box == nil || len(n.box.SpecialUse) == 0) {
			return false
		}
		// Without a criterion, mailboxes and names that have children.
		return r.SelectSubscribed || r.SelectSpecialUse || n.box != nil || n.children
	}
}

// entry says what LIST tells of n, if anything.
func (r *listRequest) entry(t *tree, n *node, want func(*node) bool) (d imap.ListData, ok bool) {
	if !r.match(n.name) {
		return d, false
	}
	selected := want(n)
	var childInfo []string
	if r.SelectRecursiveMatch {
		childInfo = r.childInfo(t, n, want)
	}
	if !selected && len(childInfo) == 0 {
		return d, false
	}
	d = n.list(r.SelectSubscribed || r.ReturnSubscribed)
	d.ChildInfo = childInfo
	if n.box == nil && !r.extended {
		d.Attrs = slices.Insert(d.Attrs, 1, imap.AttrNoSelect)
	}
	return d, true
}

// list is what LIST tells of n, with \Subscribed if that was asked for.
func (n *node) list(subscribed bool) imap.ListData {
	d := imap.ListData{Mailbox: n.name, Delim: '/'}
	if n.box == nil {
		d.Attrs = append(d.Attrs, imap.AttrNonExistent)
	}
	if subscribed && n.subscribed {
		d.Attrs = append(d.Attrs, imap.AttrSubscribed)
	}
	if n.children {
		d.Attrs = append(d.Attrs, imap.AttrHasChildren)
	} else {
		d.Attrs = append(d.Attrs, imap.AttrHasNoChildren)
	}
	if n.box != nil {
		for _, u := range n.box.SpecialUse {
			d.Attrs = append(d.Attrs, imap.MailboxAttr(u))
		}
	}
	return d
}

// childInfo says which criteria a mailbox below n meets that is not itself
// told of (RFC 5258 §4).
func (r *listRequest) childInfo(t *tree, n *node, want func(*node) bool) []string {
	for _, c := range t.below(n) {
		if want(c) && !r.match(c.name) {
			if r.SelectSubscribed {
				return []string{"SUBSCRIBED"}
			}
			return []string{"SPECIAL-USE"}
		}
	}
	return nil
}

func (r *listRequest) match(name string) bool {
	return slices.ContainsFunc(r.patterns, func(p string) bool { return matches(p, name) })
}

// lsub is LSUB (RFC 3501 §6.3.9).
func (s *session) lsub() (result, error) {
	var r listRequest
	if err := s.parseList(&r); err != nil {
		return result{}, err
	}
	if r.extended {
		return result{}, bad("LSUB has no options")
	}
	if r.patterns[0] == "" {
		s.enc.Atom(`* LSUB (\Noselect) "/" ""` + "\r\n")
		return result{}, nil
	}
	var tree tree
	if err := s.loadTree(&tree, false); err != nil {
		return result{}, err
	}
	for _, n := range tree.nodes {
		if !r.match(n.name) {
			continue
		}
		d := imap.ListData{Mailbox: n.name, Delim: '/'}
		if !n.subscribed {
			// "%" tells of a name by those below it that it does not match.
			below := slices.ContainsFunc(tree.below(n), func(c *node) bool { return c.subscribed && !r.match(c.name) })
			if !below {
				continue
			}
			d.Attrs = []imap.MailboxAttr{imap.AttrNoSelect}
		}
		s.writeList("LSUB", &d)
	}
	return result{}, nil
}

// writeList writes one LIST or LSUB response.
func (s *session) writeList(name string, d *imap.ListData) {
	s.enc.Atom("* ").Atom(name).Atom(" (")
	for i, a := range d.Attrs {
		if i > 0 {
			s.enc.SP()
		}
		s.enc.Atom(string(a))
	}
	s.enc.Atom(`) "/" `).Mailbox(d.Mailbox)
	if len(d.ChildInfo) > 0 {
		s.enc.Atom(` ("CHILDINFO" (`)
		for i, c := range d.ChildInfo {
			if i > 0 {
				s.enc.SP()
			}
			s.enc.Quoted(c)
		}
		s.enc.Atom("))")
	}
	if d.OldName != "" {
		s.enc.Atom(` ("OLDNAME" (`).Mailbox(d.OldName).Atom("))")
	}
	s.enc.Atom("\r\n")
}

// tree is all names of the account in order, parents that do not exist and
// subscribed names included.
type tree struct {
	nodes []*node
	index map[string]*node
}

type node struct {
	name       string
	box        *store.Mailbox // nil: no such mailbox
	subscribed bool
	children   bool // mailboxes below it
	at         int  // index in nodes
}

// loadTree asks the store for all names.
func (s *session) loadTree(t *tree, counts bool) error {
	boxes, err := s.allMailboxes(counts)
	if err != nil {
		return err
	}
	subscribed, err := s.subscriptions(boxes)
	if err != nil {
		return err
	}
	t.index = make(map[string]*node, len(boxes))
	for i := range boxes {
		t.add(boxes[i].Name, true).box = &boxes[i]
	}
	for _, name := range subscribed {
		t.add(inboxName(name), false).subscribed = true
	}
	slices.SortFunc(t.nodes, func(a, b *node) int { return compareNames(a.name, b.name) })
	for i, n := range t.nodes {
		n.at = i
	}
	return nil
}

// add returns the node of name, made with its parents where needed.
func (t *tree) add(name string, exists bool) *node {
	n := t.index[name]
	if n == nil {
		n = &node{name: name}
		t.index[name] = n
		t.nodes = append(t.nodes, n)
	}
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		// A parent is marked once: all above it are then, too.
		if p := t.index[name[:i]]; p == nil || exists && !p.children {
			p = t.add(name[:i], exists)
			p.children = p.children || exists
		}
	}
	return n
}

// below returns what is under n in the hierarchy.
func (t *tree) below(n *node) []*node {
	end := n.at + 1
	for end < len(t.nodes) && isBelow(t.nodes[end].name, n.name) {
		end++
	}
	return t.nodes[n.at+1 : end]
}

// compareNames orders names so that what is below a name follows it at once:
// the delimiter is less than any other octet.
func compareNames(a, b string) int {
	for i := range min(len(a), len(b)) {
		x, y := int(a[i]), int(b[i])
		if x == y {
			continue
		}
		if x == '/' {
			x = -1
		}
		if y == '/' {
			y = -1
		}
		return x - y
	}
	return len(a) - len(b)
}
