package imaptest

import (
	"maps"
	"strconv"
	"strings"
)

// vars are the variables of a script.
type vars map[string]value

// name finds the variable that s begins with: "$name", "${name}"; n is its
// length in s.
func varName(s string) (name string, n int) {
	if strings.HasPrefix(s, "${") {
		if i := strings.IndexByte(s, '}'); i > 0 {
			return s[2:i], i + 1
		}
		return "", 0
	}
	n = 1
	for n < len(s) && (s[n] == '_' || s[n] >= '0' && s[n] <= '9' || s[n] >= 'a' && s[n] <= 'z' || s[n] >= 'A' && s[n] <= 'Z') {
		n++
	}
	return s[1:n], n
}

// expand puts values in the place of variables in a command; unknown is the
// first that has none.
func (v vars) expand(s string) (out, unknown string) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			b.WriteString(s)
			return b.String(), unknown
		}
		b.WriteString(s[:i])
		s = s[i:]
		if strings.HasPrefix(s, "$$") {
			b.WriteByte('$')
			s = s[2:]
			continue
		}
		name, n := varName(s)
		val, ok := v[name]
		if name == "" { // a lone $: the saved search result
			b.WriteByte('$')
			s = s[1:]
			continue
		}
		if !ok && unknown == "" {
			unknown = name
		}
		b.WriteString(val.text)
		s = s[n:]
	}
}

// matcher compares one response with what a script expects.
type matcher struct {
	vars vars
	// now gives the sequence number that a message has when the response
	// comes, by the number that it had when the command began; 0 = none.
	now func(n int) int
}

// listRule says how the elements of a list are compared.
type listRule struct {
	ordered bool
	group   int // elements that belong together
	extra   bool
	ignore  []string
	ban     []string
}

var (
	orderedRule = listRule{ordered: true, group: 1}
	fetchRule   = listRule{group: 2, extra: true}
	statusRule  = listRule{group: 2, extra: true}
	flagsRule   = listRule{group: 1, ignore: []string{`\recent`}}
	attrsRule   = listRule{group: 1, extra: true}
)

// response compares a whole response. Variables are bound only if it matches.
func (m *matcher) response(want, got []value) bool {
	saved := maps.Clone(m.vars)
	if m.matchResponse(want, got) {
		return true
	}
	restore(m.vars, saved)
	return false
}

func restore(v, saved vars) {
	clear(v)
	maps.Copy(v, saved)
}

func (m *matcher) matchResponse(want, got []value) bool {
	if len(want) == 0 || len(got) == 0 {
		return len(want) == len(got)
	}
	if want[0].kind == text && isStatus(want[0].text) {
		return strings.EqualFold(want[0].text, got[0].text) && m.status(want[1:], got[1:])
	}
	if len(want) != len(got) {
		return false
	}
	name := strings.ToLower(want[0].text)
	_, err := strconv.Atoi(got[0].text)
	numbered := err == nil && len(want) > 1
	if numbered {
		name = strings.ToLower(want[1].text)
	}
	for i := range want {
		rule := orderedRule
		switch {
		case numbered && i == 0:
			if !m.number(want[0], got[0]) {
				return false
			}
			continue
		case name == "fetch" && i == 2:
			rule = fetchRule
		case (name == "list" || name == "lsub") && i == 1:
			rule = attrsRule
		case name == "status" && i == 2:
			rule = statusRule
		}
		if !m.value(want[i], got[i], rule) {
			return false
		}
	}
	return true
}

// status compares what follows OK, NO or BAD: a code if there is one in want,
// and the text as a prefix.
func (m *matcher) status(want, got []value) bool {
	if len(want) > 0 && want[0].kind == code {
		if len(got) == 0 || got[0].kind != code || !m.list(want[0].list, got[0].list, orderedRule) {
			return false
		}
		want, got = want[1:], got[1:]
	} else if len(want) > 0 && len(got) > 0 && got[0].kind == code {
		got = got[1:]
	}
	if len(want) == 0 {
		return true
	}
	if len(got) == 0 {
		return false
	}
	prefix, _ := m.vars.expand(want[0].text)
	return len(got[0].text) >= len(prefix) && strings.EqualFold(got[0].text[:len(prefix)], prefix)
}

// number compares the number of a numbered response; $3 is the message that
// was the third when the command began.
func (m *matcher) number(want, got value) bool {
	if digits, ok := strings.CutPrefix(want.text, "$"); ok {
		if n, err := strconv.Atoi(digits); err == nil {
			return strconv.Itoa(m.now(n)) == got.text
		}
	}
	return m.value(want, got, orderedRule)
}

func (m *matcher) value(want, got value, rule listRule) bool {
	switch want.kind {
	case list:
		return got.kind == list && m.list(want.list, got.list, rule)
	case null:
		return got.kind == null
	}
	if want.text == "$" {
		return true
	}
	return m.text(want.text, got)
}

// text compares an atom or string that may have variables in it.
func (m *matcher) text(want string, got value) bool {
	if strings.HasPrefix(want, "$") && !strings.HasPrefix(want, "$$") {
		name, n := varName(want)
		if exact, ok := strings.CutPrefix(name, "case:"); ok {
			return n == len(want) && got.kind != list && got.text == exact
		}
		if n == len(want) && name != "" {
			bound, ok := m.vars[name]
			if strings.HasPrefix(name, "modseq") {
				if n, err := strconv.Atoi(name[len("modseq"):]); err == nil {
					return m.modseq(n, name, got)
				}
			}
			if !ok {
				m.vars[name] = got
				return true
			}
			return equal(bound, got)
		}
	}
	if got.kind == list {
		return false
	}
	// The imaptest program compares up to the first NUL, and its script
	// append-binary relies on that.
	want, _, _ = strings.Cut(want, "\x00")
	text, _, _ := strings.Cut(got.text, "\x00")
	return m.pieces(want, text)
}

// pieces compares text with variables in it; one that has no value yet takes
// as little as it can.
func (m *matcher) pieces(want, got string) bool {
	i := strings.IndexByte(want, '$')
	if i < 0 {
		return strings.EqualFold(want, got)
	}
	if len(got) < i || !strings.EqualFold(want[:i], got[:i]) {
		return false
	}
	want, got = want[i:], got[i:]
	if strings.HasPrefix(want, "$$") {
		return strings.HasPrefix(got, "$") && m.pieces(want[2:], got[1:])
	}
	name, n := varName(want)
	if name == "" {
		return strings.HasPrefix(got, "$") && m.pieces(want[1:], got[1:])
	}
	if val, ok := m.vars[name]; ok {
		k := len(val.text)
		return len(got) >= k && strings.EqualFold(val.text, got[:k]) && m.pieces(want[n:], got[k:])
	}
	for k := 1; k <= len(got); k++ {
		saved := maps.Clone(m.vars)
		m.vars[name] = value{text: got[:k]}
		if m.pieces(want[n:], got[k:]) {
			return true
		}
		restore(m.vars, saved)
	}
	return false
}

// modseq: $modseqN grows by at least the difference of the numbers.
func (m *matcher) modseq(n int, name string, got value) bool {
	v, err := strconv.ParseInt(got.text, 10, 64)
	if err != nil {
		return false
	}
	for other, val := range m.vars {
		digits, ok := strings.CutPrefix(other, "modseq")
		k, err := strconv.Atoi(digits)
		if !ok || err != nil {
			continue
		}
		if o, err := strconv.ParseInt(val.text, 10, 64); err == nil &&
			(k == n && o != v || k < n && v < o+int64(n-k) || k > n && o < v+int64(k-n)) {
			return false
		}
	}
	m.vars[name] = got
	return true
}

func equal(a, b value) bool {
	if a.kind != b.kind || len(a.list) != len(b.list) {
		return false
	}
	for i := range a.list {
		if !equal(a.list[i], b.list[i]) {
			return false
		}
	}
	return strings.EqualFold(a.text, b.text)
}

// list compares lists by rule, or by the directives at the beginning of want.
func (m *matcher) list(want, got []value, rule listRule) bool {
	for len(want) > 0 && want[0].kind == text && strings.HasPrefix(want[0].text, "$!") {
		directive, arg, _ := strings.Cut(want[0].text[2:], "=")
		switch directive {
		case "ordered":
			rule.ordered, rule.extra = true, false
		case "unordered":
			rule.ordered, rule.extra, rule.group = false, true, 1
			if n, err := strconv.Atoi(arg); err == nil && n > 0 {
				rule.group = n
			}
		case "noextra":
			rule.extra = false
		case "extra":
			rule.extra = true
		case "ignore":
			rule.ignore = append(rule.ignore[:len(rule.ignore):len(rule.ignore)], arg)
		case "ban":
			rule.ban = append(rule.ban[:len(rule.ban):len(rule.ban)], arg)
		}
		want = want[1:]
	}
	for _, g := range got {
		for _, b := range rule.ban {
			if strings.EqualFold(g.text, b) {
				return false
			}
		}
	}
	if rule.ordered {
		for i := range want {
			if i >= len(got) || !m.value(want[i], got[i], orderedRule) {
				return false
			}
		}
		return rule.extra || len(got) == len(want)
	}
	return m.unordered(want, got, rule)
}

func (m *matcher) unordered(want, got []value, rule listRule) bool {
	used := make([]bool, len(got))
	for i := 0; i < len(want); i += rule.group {
		w := want[i:min(i+rule.group, len(want))]
		found := false
		for j := 0; j+len(w) <= len(got) && !found; j += rule.group {
			if used[j] {
				continue
			}
			saved := maps.Clone(m.vars)
			if found = m.grouped(w, got[j:j+len(w)]); found {
				used[j] = true
			} else {
				restore(m.vars, saved)
			}
		}
		// What is to be ignored may be listed and not be there.
		if !found && !(len(w) == 1 && ignored(w[0], rule)) {
			return false
		}
	}
	if rule.extra {
		return true
	}
	for j := 0; j < len(got); j += rule.group {
		if !used[j] && !ignored(got[j], rule) {
			return false
		}
	}
	return true
}

// grouped compares elements that belong together: a name and its value.
func (m *matcher) grouped(want, got []value) bool {
	for i := range want {
		rule := orderedRule
		if i == 1 && strings.EqualFold(want[0].text, "flags") {
			rule = flagsRule
		}
		if !m.value(want[i], got[i], rule) {
			return false
		}
	}
	return true
}

func ignored(v value, rule listRule) bool {
	for _, s := range rule.ignore {
		if strings.EqualFold(v.text, s) {
			return true
		}
	}
	return false
}
