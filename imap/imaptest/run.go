package imaptest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Outcome is how a Group ended.
type Outcome string

// The outcomes.
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	Skip Outcome = "skip" // the server does not announce what the script needs
)

// Result is the outcome of one Group.
type Result struct {
	Outcome Outcome
	// Reason says why it failed or was skipped: for a failure, the line of
	// the script, what was expected, and what came, over several lines.
	Reason string
}

// Runner plays scripts against one server. Fields are read-only once it runs.
type Runner struct {
	// Dial opens a connection on which a greeting comes.
	Dial func(ctx context.Context) (net.Conn, error)
	// User and Password log in with LOGIN. What the user has in mailboxes
	// whose names begin with Mailbox is deleted.
	User, Password string
	Mailbox        string        // "" = imaptest
	Timeout        time.Duration // for each response; 0 = 10 seconds
}

// Run plays one group. It uses its own connections and closes them.
func (r *Runner) Run(ctx context.Context, g *Group) Result {
	if g.needs != "" {
		return Result{Skip, "this runner does not serve the header " + g.needs}
	}
	s := &session{r: r, g: g, vars: vars{}}
	defer s.close()
	err := s.run(ctx)
	var skip errSkip
	switch {
	case errors.As(err, &skip):
		return Result{Skip, string(skip)}
	case err != nil:
		return Result{Fail, err.Error()}
	}
	return Result{Outcome: Pass}
}

// errSkip ends a group that cannot be played on this server.
type errSkip string

func (e errSkip) Error() string { return string(e) }

// session is one run of a group.
type session struct {
	r     *Runner
	g     *Group
	vars  vars
	conns []*conn
	next  int // message to append
}

func (s *session) close() {
	for _, c := range s.conns {
		c.close()
	}
}

func (s *session) run(ctx context.Context) error {
	s.predefine()
	for range s.g.connections {
		if err := s.connect(ctx); err != nil {
			return fmt.Errorf("connecting: %w", err)
		}
	}
	if err := s.prepare(); err != nil {
		return err
	}
	for i := range s.g.steps {
		if err := s.step(&s.g.steps[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) predefine() {
	mailbox := s.mailbox()
	name, domain, _ := strings.Cut(s.r.User, "@")
	for k, v := range map[string]string{
		"user": s.r.User, "username": name, "domain": domain, "password": s.r.Password,
		"mailbox": mailbox, "mailbox_url": url.PathEscape(mailbox),
	} {
		s.vars[k] = value{text: v}
	}
}

func (s *session) mailbox() string {
	if s.r.Mailbox == "" {
		return "imaptest"
	}
	return s.r.Mailbox
}

func (s *session) connect(ctx context.Context) error {
	nc, err := s.r.Dial(ctx)
	if err != nil {
		return err
	}
	timeout := s.r.Timeout
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	c := newConn(ctx, nc, timeout)
	s.conns = append(s.conns, c)
	greeting, err := c.read()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(strings.ToUpper(greeting[0].text), "* OK") {
		return fmt.Errorf("greeting %q", greeting[0].text)
	}
	if s.g.state >= authenticated {
		if _, _, err := s.simple(c, "LOGIN "+quote(s.r.User)+" "+quote(s.r.Password)); err != nil {
			return err
		}
	}
	return nil
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// simple runs a command of the runner's own that has to end with OK.
func (s *session) simple(c *conn, command string) (untagged []response, text []part, err error) {
	untagged, res, err := s.exchange(c, []part{{text: command}})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", firstWord(command), err)
	}
	word, rest := cutWord(res)
	if !strings.EqualFold(word, "ok") {
		return nil, nil, fmt.Errorf("%s: %s", firstWord(command), join(res))
	}
	return untagged, rest, nil
}

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

// exchange runs one command and returns what stands behind its tag.
func (s *session) exchange(c *conn, parts []part) (untagged []response, result []part, err error) {
	tag := c.tag()
	c.begin()
	collect := func(p []part) { untagged = append(untagged, c.note(p)) }
	refused, err := c.send(tag, parts, collect)
	for err == nil {
		p := refused
		if p == nil {
			if p, err = c.read(); err != nil {
				break
			}
		}
		switch {
		case strings.HasPrefix(p[0].text, "* "):
			collect(p)
		case strings.HasPrefix(p[0].text, tag+" "):
			return untagged, append([]part{{text: p[0].text[len(tag)+1:]}}, p[1:]...), nil
		default:
			err = fmt.Errorf("unexpected %q", p[0].text)
		}
	}
	return untagged, nil, err
}

// prepare checks the capabilities and brings the server into the state that
// the script begins in.
func (s *session) prepare() error {
	if len(s.g.capabilities) > 0 {
		untagged, _, err := s.simple(s.conns[0], "CAPABILITY")
		if err != nil {
			return err
		}
		have := map[string]bool{}
		for _, u := range untagged {
			if f := strings.Fields(strings.ToUpper(join(u.parts))); len(f) > 0 && f[0] == "CAPABILITY" {
				for _, c := range f[1:] {
					have[c] = true
				}
			}
		}
		for _, c := range s.g.capabilities {
			if !have[strings.ToUpper(c)] {
				return errSkip("the server does not announce " + strings.ToUpper(c))
			}
		}
	}
	if s.g.state < authenticated {
		return nil
	}
	c := s.conns[0]
	if err := s.clean(c); err != nil {
		return err
	}
	if s.g.state >= created {
		if _, _, err := s.simple(c, "CREATE "+quote(s.mailbox())); err != nil {
			return err
		}
	}
	if s.g.state >= appended {
		n := s.g.messages
		if n < 0 {
			n = len(s.g.Messages)
		}
		for range n {
			parts, err := s.appendParts("APPEND " + quote(s.mailbox()))
			if err != nil {
				return err
			}
			_, res, err := s.exchange(c, parts)
			if err != nil {
				return fmt.Errorf("APPEND: %w", err)
			}
			if word, _ := cutWord(res); !strings.EqualFold(word, "ok") {
				return fmt.Errorf("APPEND: %s", join(res))
			}
		}
	}
	if s.g.state >= selected {
		for _, c := range s.conns {
			if _, _, err := s.simple(c, "SELECT "+quote(s.mailbox())); err != nil {
				return err
			}
		}
	}
	return nil
}

// clean deletes the test mailboxes.
func (s *session) clean(c *conn) error {
	untagged, _, err := s.simple(c, "LIST \"\" "+quote(s.mailbox()+"*"))
	if err != nil {
		return err
	}
	for i := len(untagged) - 1; i >= 0; i-- {
		if v := parseResponse(untagged[i].parts); len(v) >= 4 && strings.EqualFold(v[0].text, "list") {
			// It may be one that only exists through those below it.
			if _, _, err := s.exchange(c, []part{{text: "DELETE " + quote(v[3].text)}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// appendParts adds the next message to an APPEND command.
func (s *session) appendParts(command string) ([]part, error) {
	if len(s.g.Messages) == 0 {
		return nil, errors.New("no messages to append")
	}
	m := s.g.Messages[s.next%len(s.g.Messages)]
	s.next++
	if !m.Date.IsZero() {
		command += " " + quote(m.Date.Format("_2-Jan-2006 15:04:05 -0700"))
	}
	return []part{{text: command + " "}, {text: m.Text, literal: true}, {}}, nil
}

// step plays one command, or several pipelined ones.
func (s *session) step(st *step) error {
	c := s.conns[st.conn-1]
	results := map[string][]part{} // by our tag
	tags := make([]string, len(st.commands))
	var untagged []response
	collect := func(p []part) { untagged = append(untagged, c.note(p)) }
	c.begin()
	take := func(p []part) error {
		tag, rest := cutWord(p)
		for _, t := range tags {
			if t != "" && t == tag && results[t] == nil {
				results[t] = rest
				return nil
			}
		}
		return fmt.Errorf("unexpected response %q", p[0].text)
	}
	for i := range st.commands {
		parts, err := s.commandParts(&st.commands[i])
		if err != nil {
			return fmt.Errorf("line %d: %w", st.line, err)
		}
		tags[i] = c.tag()
		s.vars["tag"] = value{text: tags[i]}
		refused, err := c.send(tags[i], parts, collect)
		if err == nil && refused != nil {
			err = take(refused)
		}
		if err != nil {
			return s.report(st, untagged, fmt.Errorf("sending: %w", err))
		}
	}
	for len(results) < len(tags) {
		p, err := c.read()
		if err == nil {
			if strings.HasPrefix(p[0].text, "* ") {
				collect(p)
				continue
			}
			err = take(p)
		}
		if err != nil {
			return s.report(st, untagged, err)
		}
	}
	for i := range st.commands {
		if err := s.tagged(&st.commands[i], results[tags[i]]); err != nil {
			return s.report(st, untagged, err)
		}
	}
	if err := s.untagged(st, untagged); err != nil {
		return s.report(st, untagged, err)
	}
	return nil
}

// commandParts expands variables, and adds a message to an APPEND without
// one.
func (s *session) commandParts(cmd *command) ([]part, error) {
	parts := make([]part, len(cmd.parts))
	literal := false
	for i, p := range cmd.parts {
		if literal = literal || p.literal; !p.literal {
			var unknown string
			if p.text, unknown = s.vars.expand(p.text); unknown != "" {
				return nil, fmt.Errorf("variable %s has no value", unknown)
			}
		}
		parts[i] = p
	}
	word, rest := cutWord(parts)
	if !strings.EqualFold(word, "append") || literal {
		return parts, nil
	}
	args := strings.TrimSpace(join(rest))
	if args == "" {
		args = s.mailbox()
	}
	return s.appendParts("append " + args)
}

// tagged compares the result of a command.
func (s *session) tagged(cmd *command, result []part) error {
	word, rest := cutWord(result)
	if cmd.result != "" && !strings.EqualFold(word, cmd.result) {
		return fmt.Errorf("want %s, got %s", strings.ToUpper(cmd.result), join(result))
	}
	if len(cmd.prefix) == 0 || strings.TrimSpace(join(cmd.prefix)) == "" {
		return nil
	}
	m := &matcher{vars: s.vars, now: func(int) int { return 0 }}
	want := parseStatusText(cmd.prefix)
	if !m.response(append([]value{{text: "ok"}}, want...), append([]value{{text: "ok"}}, parseStatusText(rest)...)) {
		return fmt.Errorf("want %s %s, got %s", strings.ToUpper(cmd.result), join(cmd.prefix), join(result))
	}
	return nil
}

// untagged compares the responses of a step.
func (s *session) untagged(st *step, got []response) error {
	values := make([][]value, len(got))
	for i, r := range got {
		values[i] = parseResponse(r.parts)
	}
	used := make([]bool, len(got))
	for _, e := range st.want {
		want := parseResponse(e.parts)
		found := -1
		for i := range got {
			m := &matcher{vars: s.vars, now: got[i].position}
			if e.not {
				m.vars = vars{}
				for k, v := range s.vars {
					m.vars[k] = v
				}
			}
			if m.response(want, values[i]) {
				found = i
				break
			}
		}
		switch {
		case e.not && found >= 0:
			return fmt.Errorf("line %d: must not come: * %s", e.line, join(e.parts))
		case !e.not && found < 0:
			return fmt.Errorf("line %d: did not come: * %s%s", e.line, join(e.parts), s.known(e.parts))
		case found >= 0:
			used[found] = true
		}
	}
	for i, u := range used {
		if !u && !s.g.extra {
			return fmt.Errorf("not listed: * %s", join(got[i].parts))
		}
	}
	return nil
}

// position returns where the message that was the n-th is now.
func (r response) position(n int) int {
	for i, id := range r.ids {
		if id == n {
			return i + 1
		}
	}
	return 0
}

// known lists the variables of an expectation that have values.
func (s *session) known(parts []part) string {
	out := ""
	for _, p := range parts {
		rest := p.text
		for {
			i := strings.IndexByte(rest, '$')
			if i < 0 {
				break
			}
			rest = rest[i:]
			name, n := varName(rest)
			if n == 0 {
				break
			}
			if v, ok := s.vars[name]; ok && name != "" {
				out += fmt.Sprintf(" %s=%.60q", name, v.String())
			}
			rest = rest[n:]
		}
	}
	if out != "" {
		out = "   (" + out[1:] + ")"
	}
	return out
}

// report adds the command and what came to an error.
func (s *session) report(st *step, got []response, err error) error {
	var b strings.Builder
	fmt.Fprintf(&b, "line %d:", st.line)
	for i := range st.commands {
		fmt.Fprintf(&b, " %.300s", join(st.commands[i].parts))
	}
	fmt.Fprintf(&b, "\n- %v", err)
	for i, r := range got {
		if i == 20 {
			fmt.Fprintf(&b, "\n+ … %d more", len(got)-i)
			break
		}
		fmt.Fprintf(&b, "\n+ * %.500s", join(r.parts))
	}
	if len(got) == 0 {
		b.WriteString("\n+ no untagged response")
	}
	return errors.New(b.String())
}
