package imapserver_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// mirror is what a client knows of its mailbox from the server's responses
// alone: a UID (0 = not told yet) and flags for each sequence number.
type mirror struct {
	uids  []int
	flags []string
}

var (
	existsLine  = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE)$`)
	fetchLine   = regexp.MustCompile(`(?s)^\* (\d+) FETCH \((.*)\)$`)
	uidItem     = regexp.MustCompile(`UID (\d+)`)
	flagsItem   = regexp.MustCompile(`FLAGS \(([^)]*)\)`)
	unsolicited = []string{"* FLAGS", "* OK", "* SEARCH"}
)

// apply takes one untagged response and says what is wrong with it.
func (m *mirror) apply(line string, numbersStay bool) error {
	if x := existsLine.FindStringSubmatch(line); x != nil {
		n, _ := strconv.Atoi(x[1])
		if x[2] == "EXISTS" {
			if n < len(m.uids) {
				return fmt.Errorf("%s after %d messages", line, len(m.uids))
			}
			for len(m.uids) < n {
				m.uids, m.flags = append(m.uids, 0), append(m.flags, "?")
			}
			return nil
		}
		if numbersStay {
			return fmt.Errorf("%s while numbers have to stay", line)
		}
		if n < 1 || n > len(m.uids) {
			return fmt.Errorf("%s of %d messages", line, len(m.uids))
		}
		m.uids, m.flags = slices.Delete(m.uids, n-1, n), slices.Delete(m.flags, n-1, n)
		return nil
	}
	if x := fetchLine.FindStringSubmatch(line); x != nil {
		n, _ := strconv.Atoi(x[1])
		if n < 1 || n > len(m.uids) {
			return fmt.Errorf("%s of %d messages", line, len(m.uids))
		}
		if u := uidItem.FindStringSubmatch(x[2]); u != nil {
			uid, _ := strconv.Atoi(u[1])
			if old := m.uids[n-1]; old != 0 && old != uid {
				return fmt.Errorf("%s, but message %d was UID %d", line, n, old)
			}
			m.uids[n-1] = uid
		}
		if f := flagsItem.FindStringSubmatch(x[2]); f != nil {
			words := strings.Fields(strings.ReplaceAll(f[1], `\Recent`, ""))
			m.flags[n-1] = strings.Join(words, " ")
		}
		return nil
	}
	if slices.ContainsFunc(unsolicited, func(p string) bool { return strings.HasPrefix(line, p) }) || strings.HasSuffix(line, " RECENT") {
		return nil
	}
	return fmt.Errorf("unexpected %s", line)
}

// TestMirror has several sessions change one mailbox at the same time. Each
// must be able to follow from the responses alone, whatever the others do.
func TestMirror(t *testing.T) {
	srv, st := newServer(t)
	for range 20 {
		add(t, st, "INBOX", 0, simple)
	}
	addr := serve(t, srv)
	setup := start(t, addr)
	setup.ok("CREATE other")
	var wg sync.WaitGroup
	mirrors := make([]*mirror, 4)
	clients := make([]*client, len(mirrors))
	for k := range mirrors {
		clients[k] = start(t, addr)
		mirrors[k] = &mirror{}
		wg.Go(func() { play(t, clients[k], mirrors[k], rand.New(rand.NewPCG(7, uint64(k))), 250) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	// All have come to rest: NOOP must bring each to the same truth.
	truth := &mirror{}
	for _, l := range append(setup.ok("SELECT INBOX"), setup.ok("FETCH 1:* (UID FLAGS)")...) {
		if err := truth.apply(l, false); err != nil && !strings.HasPrefix(l, "* OK") {
			t.Error(err)
		}
	}
	for k, m := range mirrors {
		un := clients[k].ok("NOOP")
		un = append(un, clients[k].ok("UID SEARCH UNDELETED")...)
		for _, l := range un {
			if err := m.apply(l, false); err != nil {
				t.Error(err)
			}
		}
		if len(m.uids) != len(truth.uids) {
			t.Errorf("session %d has %d messages, the mailbox %d", k, len(m.uids), len(truth.uids))
			continue
		}
		for i := range m.uids {
			if m.uids[i] != 0 && m.uids[i] != truth.uids[i] || m.flags[i] != "?" && m.flags[i] != truth.flags[i] {
				t.Errorf("session %d: message %d is UID %d (%s), in truth UID %d (%s)", k, i+1, m.uids[i], m.flags[i], truth.uids[i], truth.flags[i])
			}
		}
	}
}

func play(t *testing.T, c *client, m *mirror, rnd *rand.Rand, steps int) {
	run := func(command string, numbersStay bool) {
		c.n++
		tag := fmt.Sprintf("t%d", c.n)
		fmt.Fprintf(c.conn, "%s %s\r\n", tag, command)
		for {
			l, err := c.readLine()
			if err != nil {
				t.Errorf("%s: %v", command, err)
				return
			}
			if rest, ok := strings.CutPrefix(l, tag+" "); ok {
				if !strings.HasPrefix(rest, "OK") && !strings.HasPrefix(rest, "NO [EXPUNGEISSUED]") {
					t.Errorf("%s: %s", command, rest)
				}
				return
			}
			if err := m.apply(l, numbersStay); err != nil {
				t.Errorf("%s: %v", command, err)
			}
		}
	}
	run("SELECT INBOX", false)
	run("FETCH 1:* (UID FLAGS)", true)
	for range steps {
		if t.Failed() {
			return
		}
		n := len(m.uids)
		seq := "*"
		if n > 0 {
			seq = fmt.Sprintf("%d:%d", 1+rnd.IntN(n), 1+rnd.IntN(n))
		}
		flag := [...]string{`\Seen`, `\Flagged`, `\Deleted`, "Work", "Play"}[rnd.IntN(5)]
		switch k := rnd.IntN(20); {
		case k < 3 || n == 0:
			run("APPEND INBOX {2+}\r\nhi", false)
		case k < 5:
			run("STORE "+seq+" +FLAGS ("+flag+")", true)
		case k < 7:
			run("STORE "+seq+" -FLAGS.SILENT ("+flag+")", true)
			// What SILENT leaves untold the client works out itself: ask.
			run("FETCH 1:* FLAGS", true)
		case k < 8:
			run(fmt.Sprintf("UID STORE %d:* FLAGS (%s)", 1+rnd.IntN(100), flag), false)
		case k < 9:
			run("EXPUNGE", false)
		case k < 11:
			run("FETCH "+seq+" (UID FLAGS)", true)
		case k < 13:
			run("FETCH "+seq+" (UID BODY[TEXT]<0.1>)", true)
		case k < 14:
			run("SEARCH KEYWORD "+flag, true)
		case k < 15:
			run("UID SEARCH TEXT hi", false)
		case k < 16:
			run("COPY 1 INBOX", false)
		case k < 17:
			run(fmt.Sprintf("MOVE %d other", n), false)
		default:
			run("NOOP", false)
		}
	}
}
