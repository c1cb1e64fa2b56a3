package imaptest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	const script = `# comment
capabilities: IDLE MOVE
connections: 2
messages: 3
state: created

1 ok noop
* 1 exists
! 2 recent
2 select $mailbox
* flags ($!unordered)
ok [read-write]
1 append x {{{
a
b
}}} ~{{{
c
}}}
no
!ifenv HAVE
1 ok have
!else
1 ok havenot
!endif
`
	g, err := Parse("x", []byte(script), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(g.capabilities) != "[IDLE MOVE]" || g.connections != 2 || g.messages != 3 || g.state != created || !g.extra || len(g.steps) != 4 {
		t.Fatalf("%+v", g)
	}
	s := g.steps[0]
	if s.conn != 1 || s.commands[0].result != "ok" || join(s.commands[0].parts) != "noop" || len(s.want) != 2 || s.want[0].not || !s.want[1].not {
		t.Errorf("%+v", s)
	}
	s = g.steps[1]
	if s.conn != 2 || s.commands[0].result != "ok" || join(s.commands[0].prefix) != "[read-write]" || len(s.want) != 1 {
		t.Errorf("%+v", s)
	}
	if got := join(g.steps[2].commands[0].parts); got != `append x {4}"a\r\nb" {1}"c"` || g.steps[2].commands[0].result != "no" {
		t.Errorf("%s %+v", got, g.steps[2])
	}
	if got := join(g.steps[3].commands[0].parts); got != "have" {
		t.Error(got)
	}
}

func TestParsePipelined(t *testing.T) {
	g, err := Parse("x", []byte("\na1 noop\na2 check\n* 1 exists\na2 ok\na1 no [x] y\nok noop\n"), nil)
	if err != nil || len(g.steps) != 2 || len(g.steps[0].commands) != 2 || len(g.steps[0].want) != 1 {
		t.Fatal(g, err)
	}
	if c := g.steps[0].commands; c[0].result != "no" || c[1].result != "ok" || join(c[0].prefix) != "[x] y" {
		t.Errorf("%+v", c)
	}
}

func TestParseErrors(t *testing.T) {
	for _, s := range []string{"no colon\n\nok noop", "connections: 0\n", "state: drunk\n", "\n* 1 exists\n", "\nok append {{{\nx\n", "\n!endif\n", "connections: 2\n\n3 ok noop\n"} {
		if _, err := Parse("x", []byte(s), nil); !errors.Is(err, ErrScript) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"3 exists", "3 EXISTS", true},
		{"3 exists", "4 EXISTS", false},
		{"$n exists", "4 EXISTS", true},
		{"$2 expunge", "1 EXPUNGE", true}, // the second was the first when it came
		{"$3 expunge", "1 EXPUNGE", false},
		{"1 fetch (flags (\\seen))", `1 FETCH (UID 7 FLAGS (\Seen \Recent))`, true},
		{"1 fetch (flags (\\seen))", `1 FETCH (FLAGS (\Seen \Answered))`, false},
		{"1 fetch (flags (\\recent \\seen))", `1 FETCH (FLAGS (\Seen))`, true},
		{"1 fetch (uid $known)", "1 FETCH (UID 42)", true},
		{"1 fetch (uid $known)", "1 FETCH (UID 43)", false},
		{"1 fetch (body[header.fields (subject)] $b)", `1 FETCH (BODY[HEADER.FIELDS ("Subject")] "x")`, true},
		{"1 fetch (body ($!unordered))", `1 FETCH (BODY ("a" "b"))`, true},
		{`list () "/" ${box}2`, `LIST (\HasNoChildren) "/" "imaptest2"`, true},
		{`list (\noselect) "/" $`, `LIST () "/" x`, false},
		{`list () nil x`, `LIST () NIL x`, true},
		{`list () nil x`, `LIST () "NIL" x`, false},
		{"status $box (messages 1)", "STATUS imaptest (UIDNEXT 3 MESSAGES 1)", true},
		{"status $box (messages 1)", "STATUS imaptest (UIDNEXT 1 MESSAGES 3)", false},
		{"search 1 2", "SEARCH 1 2", true},
		{"search 1", "SEARCH 1 2", false},
		{"search", "SEARCH", true},
		{"ok [uidvalidity $v]", "OK [UIDVALIDITY 7] fine", true},
		{"ok [uidvalidity $known]", "OK [UIDVALIDITY 7] fine", false},
		{"ok still", "OK [X] Still here", true},
		{"ok here", "OK Still here", false},
		{"bye", "BYE Logging out", true},
		{"flags (a ${case:B})", "FLAGS (A B)", true},
		{"flags (a ${case:B})", "FLAGS (A b)", false},
		{"x ($!unordered=2 a 1 b 2)", "X (B 2 C 3 A 1)", true},
		{"x ($!unordered=2 a 2 b 1)", "X (B 2 C 3 A 1)", false},
		{"x ($!unordered $!noextra a b)", "X (B A C)", false},
		{"x ($!unordered $!ban=c a b)", "X (B A C)", false},
		{"x ($!ordered $!extra a)", "X (A B)", true},
		{"esearch (tag $tag) all $known:$last", `ESEARCH (TAG "t9") ALL 42:50`, true},
		{"x $$kw", "X $kw", true},
		{"thread (3 2)(1)", "THREAD (3 2)(1)", true},
		{"x $modseq3", "X 17", true},
		{"x $modseq3", "X 16", false},
	} {
		v := vars{"known": {text: "42"}, "box": {text: "imaptest"}, "tag": {text: "t9"}, "modseq1": {text: "15"}}
		m := &matcher{vars: v, now: response{ids: []int{2, 3}}.position}
		if c.want == "$3 expunge" {
			m.now = func(int) int { return 2 }
		}
		got := m.response(parseResponse([]part{{text: c.want}}), parseResponse([]part{{text: c.got}}))
		if got != c.ok {
			t.Errorf("%q against %q: %v", c.want, c.got, got)
		}
		if !c.ok && len(v) != 4 {
			t.Errorf("%q against %q left variables behind: %v", c.want, c.got, v)
		}
	}
}

func TestParseMbox(t *testing.T) {
	msgs := ParseMbox([]byte("From a@b  Fri Feb 22 17:06:23 2008\nA: 1\n\nx\nFrom here\n\nFrom a@b\nB: 2\n\n"))
	if len(msgs) != 2 || msgs[0].Text != "A: 1\r\n\r\nx\r\nFrom here\r\n" || msgs[1].Text != "B: 2\r\n" ||
		!msgs[0].Date.Equal(time.Date(2008, 2, 22, 17, 6, 23, 0, time.UTC)) || !msgs[1].Date.IsZero() {
		t.Errorf("%+v", msgs)
	}
}

// A server that answers from a list shows what a failure looks like.
func TestRunnerReports(t *testing.T) {
	run := func(script string, answers ...string) Result {
		g, err := Parse("x", []byte(script), nil)
		if err != nil {
			t.Fatal(err)
		}
		var peer sync.WaitGroup
		r := &Runner{Timeout: 5 * time.Second, Dial: func(context.Context) (net.Conn, error) {
			a, b := net.Pipe()
			peer.Go(func() {
				defer b.Close()
				in := bufio.NewReader(b)
				fmt.Fprint(b, "* OK hello\r\n")
				for _, text := range answers {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					tag, _, _ := strings.Cut(line, " ")
					fmt.Fprint(b, strings.ReplaceAll(text, "TAG", tag))
				}
			})
			return a, nil
		}}
		res := r.Run(t.Context(), g)
		peer.Wait()
		return res
	}
	if res := run("state: nonauth\n\nok noop\n* 1 exists\n", "* 1 EXISTS\r\nTAG OK\r\n"); res.Outcome != Pass {
		t.Error(res)
	}
	res := run("state: nonauth\n\nok noop\n* 2 exists\n", "* 1 EXISTS\r\nTAG OK\r\n")
	if want := "line 3: noop\n- line 4: did not come: * 2 exists\n+ * 1 EXISTS"; res.Outcome != Fail || res.Reason != want {
		t.Errorf("%+v", res)
	}
	for script, answer := range map[string]string{
		"state: nonauth\n\nok noop\n":                            "TAG NO x\r\n",
		"state: nonauth\n\nok noop\n! 1 exists\n":                "* 1 EXISTS\r\nTAG OK\r\n",
		"state: nonauth\n\nnoop\nok [x]\n":                       "TAG OK [y]\r\n",
		"state: nonauth\nignore_extra_untagged: no\n\nok noop\n": "* 1 EXISTS\r\nTAG OK\r\n",
		"state: nonauth\n\nok noop $nothing\n":                   "",
		"state: nonauth\n\nok  noop\n":                           "other OK\r\n",
		"state: nonauth\n\nok check\n":                           "* X {3}\r\nab",
		"state: nonauth\n\nok check\n#":                          "TAG OK\n",
	} {
		if res := run(script, answer); res.Outcome != Fail || res.Reason == "" {
			t.Errorf("%q: %+v", script, res)
		}
	}
	if res := run("state: nonauth\ncapabilities: X Y\n\nok noop\n", "* CAPABILITY IMAP4rev1 X\r\nTAG OK\r\n"); res.Outcome != Skip || !strings.Contains(res.Reason, "Y") {
		t.Errorf("%+v", res)
	}
	if res := run("user2: x\nstate: nonauth\n\nok noop\n"); res.Outcome != Skip {
		t.Errorf("%+v", res)
	}
}

// A server that says nothing is given up on.
func TestRunnerTimeout(t *testing.T) {
	g, _ := Parse("x", []byte("state: nonauth\n\nok noop\n"), nil)
	a, b := net.Pipe()
	defer b.Close()
	r := &Runner{Timeout: time.Millisecond, Dial: func(context.Context) (net.Conn, error) { return a, nil }}
	if res := r.Run(t.Context(), g); res.Outcome != Fail {
		t.Error(res)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("state: auth\n\n1 ok noop\n* 1 fetch (flags (a))\n! x\n"))
	f.Add([]byte("\na noop\nb check {{{\nx\n}}}\n!ifenv X\na ok\nb no [x]\n!endif\n"))
	f.Fuzz(func(t *testing.T, data []byte) { Parse("x", data, func(string) bool { return false }) })
}

func FuzzMatch(f *testing.F) {
	f.Add("1 fetch (flags (\\seen) uid $u)", `1 FETCH (UID 7 FLAGS (\Seen))`)
	f.Add("ok [a $b] c", "OK [A B] C")
	f.Add(`list () "/" ${a}x`, `LIST (\X) "/" "yx"`)
	f.Fuzz(func(t *testing.T, want, got string) {
		m := &matcher{vars: vars{"a": {text: "x"}}, now: func(n int) int { return n }}
		g := parseResponse([]part{{text: got}})
		m.response(parseResponse([]part{{text: want}}), g)
		// What has no variables in it matches itself.
		if !strings.ContainsAny(got, "$\x00") && !m.response(g, g) {
			if len(g) > 0 && g[0].kind == text && isStatus(g[0].text) {
				return
			}
			switch name := strings.ToLower(got); {
			case strings.Contains(name, "fetch"), strings.Contains(name, "list"), strings.Contains(name, "lsub"), strings.Contains(name, "status"):
				return // their lists are compared by other rules
			}
			t.Errorf("%q does not match itself", got)
		}
	})
}
