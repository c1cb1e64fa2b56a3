package imaptest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Group is one script and the messages that it appends.
type Group struct {
	Name     string
	Messages []Message // used in order, again from the first when they run out

	capabilities []string
	connections  int
	messages     int // -1 = all
	state        state
	extra        bool   // untagged responses that are not listed are fine
	needs        string // a header that this runner cannot serve, "" = none
	steps        []step
}

// state is what has been done when the first command runs.
type state uint8

const (
	nonauth state = iota
	authenticated
	created
	appended
	selected
)

// step is a group of commands on one connection: one, or several pipelined.
type step struct {
	line     int // in the script, for reports
	conn     int
	commands []command
	want     []expect
}

type command struct {
	tag    string // of the script when pipelined, else ""
	parts  []part
	result string // ok, no, bad; "" = any
	prefix []part // of the tagged text
}

// expect is one untagged response that must come, or must not.
type expect struct {
	line  int
	not   bool
	parts []part
}

// part is text, or a literal.
type part struct {
	text    string
	literal bool
	binary  bool
}

// ErrScript is what Parse and Load return for a malformed script.
var ErrScript = errors.New("imaptest: malformed script")

// Load reads all scripts of a folder: files without an extension, each with
// the mailbox NAME.mbox, or default.mbox.
func Load(fsys fs.FS) ([]*Group, error) {
	names, err := fs.Glob(fsys, "*")
	if err != nil {
		return nil, err
	}
	standard, err := fs.ReadFile(fsys, "default.mbox")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var groups []*Group
	for _, name := range names {
		if path.Ext(name) != "" {
			continue
		}
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		mbox, err := fs.ReadFile(fsys, name+".mbox")
		if errors.Is(err, fs.ErrNotExist) {
			mbox = standard
		} else if err != nil {
			return nil, err
		}
		g, err := Parse(name, data, func(string) bool { return false })
		if err != nil {
			return nil, err
		}
		g.Messages = ParseMbox(mbox)
		groups = append(groups, g)
	}
	return groups, nil
}

// Parse parses a script. env tells whether a variable is set, for !ifenv.
func Parse(name string, data []byte, env func(name string) bool) (*Group, error) {
	p := &scriptParser{lines: strings.Split(string(data), "\n"), env: env,
		g: &Group{Name: name, connections: 1, messages: -1, state: selected, extra: true}}
	if err := p.parse(); err != nil {
		return nil, fmt.Errorf("%w: %s:%d: %w", ErrScript, name, p.at, err)
	}
	return p.g, nil
}

type scriptParser struct {
	lines []string
	at    int // lines read
	env   func(string) bool
	skip  []bool // per open !if: its block is dropped
	g     *Group
}

func (p *scriptParser) parse() error {
	if err := p.header(); err != nil {
		return err
	}
	for {
		parts, line, ok, err := p.logical()
		if err != nil || !ok {
			return err
		}
		if err := p.statement(parts, line); err != nil {
			return err
		}
	}
}

func (p *scriptParser) header() error {
	for p.at < len(p.lines) {
		line := strings.TrimSpace(p.lines[p.at])
		p.at++
		if line == "" {
			return nil
		}
		if line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); !ok {
			return errors.New("header line without colon")
		}
		var err error
		switch key {
		case "capabilities":
			p.g.capabilities = strings.Fields(value)
		case "connections":
			p.g.connections, err = strconv.Atoi(value)
			if err == nil && (p.g.connections < 1 || p.g.connections > 20) {
				err = errors.New("number of connections")
			}
		case "messages":
			if value != "all" {
				p.g.messages, err = strconv.Atoi(value)
			}
		case "state":
			states := map[string]state{"nonauth": nonauth, "auth": authenticated, "created": created, "appended": appended, "selected": selected}
			s, ok := states[value]
			if !ok {
				err = fmt.Errorf("state %q", value)
			}
			p.g.state = s
		case "ignore_extra_untagged":
			p.g.extra = value != "no"
		default:
			p.g.needs = key
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// logical reads one line with its literals; comments, empty lines and what
// !if drops are left out.
func (p *scriptParser) logical() (parts []part, line int, ok bool, err error) {
	for p.at < len(p.lines) {
		text := p.lines[p.at]
		p.at++
		word := strings.TrimSpace(text)
		directive, arg, _ := strings.Cut(word, " ")
		switch directive {
		case "!ifenv", "!ifnenv":
			p.skip = append(p.skip, p.env(arg) != (directive == "!ifenv"))
			continue
		case "!else", "!endif":
			n := len(p.skip) - 1
			if n < 0 {
				return nil, 0, false, errors.New(directive + " without !if")
			}
			if p.skip[n] = !p.skip[n]; directive == "!endif" {
				p.skip = p.skip[:n]
			}
			continue
		}
		if word == "" || word[0] == '#' || p.dropped() {
			continue
		}
		line = p.at
		for {
			head, opens := strings.CutSuffix(text, "{{{")
			if !opens {
				return append(parts, part{text: strings.TrimRight(text, "\r")}), line, true, nil
			}
			head, binary := strings.CutSuffix(head, "~")
			parts = append(parts, part{text: head})
			var content []string
			for {
				if p.at >= len(p.lines) {
					return nil, 0, false, errors.New("literal without end")
				}
				text = p.lines[p.at]
				p.at++
				if rest, ends := strings.CutPrefix(text, "}}}"); ends {
					text = rest
					break
				}
				content = append(content, text)
			}
			end := "\r\n"
			if binary { // its lines stand as they are
				end = "\n"
			}
			parts = append(parts, part{text: strings.Join(content, end), literal: true, binary: binary})
		}
	}
	return nil, 0, false, nil
}

func (p *scriptParser) dropped() bool {
	for _, s := range p.skip {
		if s {
			return true
		}
	}
	return false
}

// statement adds one line to the steps.
func (p *scriptParser) statement(parts []part, line int) error {
	word, rest := cutWord(parts)
	n := len(p.g.steps)
	switch word {
	case "*", "!":
		if n == 0 {
			return errors.New("response before the first command")
		}
		s := &p.g.steps[n-1]
		s.want = append(s.want, expect{line: line, not: word == "!", parts: rest})
		return nil
	}
	conn := 1
	if p.g.connections > 1 {
		c, err := strconv.Atoi(word)
		if err == nil {
			if c < 1 || c > p.g.connections {
				return fmt.Errorf("connection %d", c)
			}
			conn = c
			parts = rest
			word, rest = cutWord(parts)
		}
	}
	if isResult(word) {
		// The result of a command before it that has none yet, or a command.
		if n > 0 {
			if s := &p.g.steps[n-1]; len(s.commands) == 1 && s.commands[0].result == open && s.commands[0].tag == "" {
				s.commands[0].result, s.commands[0].prefix = resultOf(word), rest
				return nil
			}
		}
		p.g.steps = append(p.g.steps, step{line: line, conn: conn, commands: []command{{parts: rest, result: resultOf(word)}}})
		return nil
	}
	if n > 0 {
		s := &p.g.steps[n-1]
		for i := range s.commands {
			c := &s.commands[i]
			if next, prefix := cutWord(rest); c.tag == word && c.result == open && isResult(next) {
				c.result, c.prefix = resultOf(next), prefix
				return nil
			}
		}
	}
	if p.pipelined(word) {
		c := command{tag: word, parts: rest, result: open}
		if n > 0 {
			if s := &p.g.steps[n-1]; s.commands[0].tag != "" && s.commands[0].result == open && len(s.want) == 0 {
				s.commands = append(s.commands, c)
				return nil
			}
		}
		p.g.steps = append(p.g.steps, step{line: line, conn: conn, commands: []command{c}})
		return nil
	}
	p.g.steps = append(p.g.steps, step{line: line, conn: conn, commands: []command{{parts: parts, result: open}}})
	return nil
}

// open marks a command whose result stands further down.
const open = "?"

// pipelined reports whether a later line is the result of tag.
func (p *scriptParser) pipelined(tag string) bool {
	for _, l := range p.lines[p.at:] {
		w, rest, _ := strings.Cut(strings.TrimSpace(l), " ")
		next, _, _ := strings.Cut(rest, " ")
		if w == tag && isResult(next) {
			return true
		}
	}
	return false
}

func isResult(s string) bool { return s == "ok" || s == "no" || s == "bad" || s == `""` }

func resultOf(s string) string {
	if s == `""` {
		return ""
	}
	return s
}

// cutWord cuts the first word off.
func cutWord(parts []part) (string, []part) {
	if len(parts) == 0 || parts[0].literal {
		return "", parts
	}
	word, rest, _ := strings.Cut(strings.TrimLeft(parts[0].text, " \t"), " ")
	out := append([]part{{text: rest}}, parts[1:]...)
	return word, out
}

// join gives the text of parts for reports.
func join(parts []part) string {
	var b bytes.Buffer
	for _, p := range parts {
		if p.literal {
			fmt.Fprintf(&b, "{%d}%q", len(p.text), p.text)
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}
