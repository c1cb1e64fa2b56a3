package imapserver_test

import (
	"strings"
	"testing"
)

func TestLogin(t *testing.T) {
	srv, _ := newServer(t)
	addr := serve(t, srv)
	c := dial(t, addr)
	greeting := c.line()
	for _, cap := range []string{"IMAP4rev1", "IMAP4rev2", "LITERAL+", "SASL-IR", "AUTH=PLAIN", "IDLE", "APPENDLIMIT=67108864"} {
		if !strings.Contains(greeting, " "+cap) {
			t.Errorf("%s is not announced: %s", cap, greeting)
		}
	}
	c.transact("NOOP", "OK")
	c.transact("CAPABILITY", "OK", "* CAPABILITY IMAP4rev1 **")
	c.transact("SELECT INBOX", "BAD")
	c.transact("FROB", "BAD Unknown command")
	c.transact("UID FROB", "BAD Unknown command")
	c.transact(`LOGIN alice wrong`, "NO [AUTHENTICATIONFAILED]")
	c.transact(`LOGIN "alice" {6+}`+"\r\nsecret", "OK [CAPABILITY IMAP4rev1 IMAP4rev2")
	c.transact("LOGIN alice secret", "BAD Already logged in")
	c.transact("FETCH 1 FLAGS", "BAD Select a mailbox first")
	c.transact("STARTTLS", "BAD")
	c.transact(`ID NIL`, "OK", `* ID ("name" "Postrider")`)
	c.transact(`ID ("name" "x" "version" NIL)`, "OK", `* ID **`)
	c.transact(`ID ("name")`, "BAD")
	c.transact(`NAMESPACE`, "OK", `* NAMESPACE (("" "/")) NIL NIL`)
	c.transact("LOGOUT", "OK", "* BYE **")
	if _, err := c.readLine(); err == nil {
		t.Error("the connection is still open")
	}
}

func TestSynchronisingLiteral(t *testing.T) {
	srv, _ := newServer(t)
	srv.MaxLiteral = 100
	c := dial(t, serve(t, srv))
	c.line()
	c.write("a LOGIN {5}\r\n")
	c.want(c.line(), "+ **")
	c.write("alice {6}\r\n")
	c.want(c.line(), "+ **")
	c.write("secret\r\n")
	c.want(c.line(), "a OK **")
	c.write("b SELECT {500}\r\n")
	c.want(c.line(), "b NO [TOOBIG] **")
	c.transact("SELECT "+literal(strings.Repeat("x", 500)), "NO [TOOBIG]")
	c.transact("NOOP", "OK")
}

func TestAuthenticate(t *testing.T) {
	srv, _ := newServer(t)
	addr := serve(t, srv)
	c := dial(t, addr)
	c.line()
	c.transact("AUTHENTICATE FOO", "NO [CANNOT]")
	c.transact("AUTHENTICATE PLAIN !!!", "BAD")
	c.transact("AUTHENTICATE PLAIN =", "NO")
	c.write("a AUTHENTICATE PLAIN\r\n")
	c.want(c.line(), "+ ")
	c.write("*\r\n")
	c.want(c.line(), "a BAD **")
	c.write("b AUTHENTICATE PLAIN\r\n")
	c.want(c.line(), "+ ")
	c.write("AGFsaWNlAHNlY3JldA==\r\n")
	c.want(c.line(), "b OK [CAPABILITY **")
	c = dial(t, addr)
	c.line()
	c.transact("AUTHENTICATE plain AGFsaWNlAHNlY3JldA==", "OK [CAPABILITY")
}

func TestSelect(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 1, simple)
	add(t, st, "INBOX", 0, simple, simple)
	c := start(t, serve(t, srv))
	c.transact("EXAMINE inbox", "OK [READ-ONLY]",
		`* FLAGS (\Answered \Flagged \Deleted \Seen \Draft)`, "* 3 EXISTS", "* 3 RECENT", "* OK [UNSEEN 2] **", "* OK [PERMANENTFLAGS ()] **", "* OK [UIDNEXT 4] **", "* OK [UIDVALIDITY **")
	c.transact("STORE 1 +FLAGS (\\Flagged)", "NO [READ-ONLY]")
	c.transact("EXPUNGE", "NO [READ-ONLY]")
	c.transact("MOVE 1 INBOX", "NO [READ-ONLY]")
	c.transact("SELECT nope", "NO [NONEXISTENT]", "* OK [CLOSED] **")
	c.transact("CHECK", "BAD")
	c.transact("SELECT INBOX", "OK [READ-WRITE]",
		`* FLAGS **`, "* 3 EXISTS", "* 3 RECENT", "* OK [UNSEEN 2] **", `* OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft \*)] **`, "* OK [UIDNEXT 4] **", "* OK [UIDVALIDITY **")
	c.transact("FETCH 1 FLAGS", "OK", `* 1 FETCH (FLAGS (\Seen \Recent))`)
	c.transact("CLOSE", "OK")
	c.transact("SELECT INBOX (CONDSTORE)", "BAD")
	c.transact("ENABLE IMAP4rev2 FOO", "OK", "* ENABLED IMAP4rev2")
	c.transact("SELECT INBOX", "OK [READ-WRITE]",
		`* FLAGS **`, "* 3 EXISTS", `* OK [PERMANENTFLAGS **`, "* OK [UIDNEXT 4] **", "* OK [UIDVALIDITY **", `* LIST (\HasNoChildren) "/" INBOX`)
	c.transact("FETCH 1 FLAGS", "OK", `* 1 FETCH (FLAGS (\Seen))`)
	c.transact("UNSELECT", "OK")
	c.transact("UNSELECT", "BAD")
}

// TestTwoSessions shows what one session is told of another.
func TestTwoSessions(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, simple, simple, simple, simple)
	addr := serve(t, srv)
	a, b := start(t, addr), start(t, addr)
	a.ok("SELECT INBOX")
	b.ok("SELECT INBOX")
	a.transact(`STORE 1 +FLAGS (\Flagged Work)`, "OK", `* FLAGS (\Answered \Flagged \Deleted \Seen \Draft Work)`, `* 1 FETCH (UID 1 FLAGS (\Flagged Work \Recent))`)
	b.transact("NOOP", "OK", `* FLAGS (\Answered \Flagged \Deleted \Seen \Draft Work)`, `* 1 FETCH (UID 1 FLAGS (\Flagged Work))`)
	b.transact("NOOP", "OK")
	a.transact(`STORE 2:3 +FLAGS.SILENT \Deleted`, "OK")
	a.transact(`EXPUNGE`, "OK", "* 2 EXPUNGE", "* 2 EXPUNGE")
	// No EXPUNGE during FETCH, STORE and SEARCH: numbers stay.
	b.transact("FETCH 4 (UID)", "OK", "* 4 FETCH (UID 4)")
	b.transact("FETCH 2 (INTERNALDATE)", "NO [EXPUNGEISSUED]")
	b.transact(`STORE 2 +FLAGS (\Seen)`, "NO [EXPUNGEISSUED]")
	b.transact(`STORE 4 +FLAGS (\Answered)`, "OK", `* 4 FETCH (UID 4 FLAGS (\Answered))`)
	b.transact("SEARCH ANSWERED", "OK", "* SEARCH 4")
	b.transact("COPY 2 INBOX", "NO [EXPUNGEISSUED]", "* 2 EXPUNGE", "* 2 EXPUNGE", `* 2 FETCH (UID 4 FLAGS (\Answered))`)
	add(t, st, "INBOX", 0, simple)
	a.transact("FETCH 2 FLAGS", "OK", `* 2 FETCH (FLAGS (\Answered \Recent))`, "* 3 EXISTS", "* 3 RECENT")
	b.transact("NOOP", "OK", "* 3 EXISTS", "* 0 RECENT")
	b.transact("UID FETCH 5 FLAGS", "OK", "* 3 FETCH (UID 5 FLAGS ())")
	a.transact(`UID STORE 5 FLAGS (\Deleted)`, "OK", `* 3 FETCH (UID 5 FLAGS (\Deleted \Recent))`)
	a.transact(`UID EXPUNGE 1:4`, "OK")
	a.transact(`UID EXPUNGE 5`, "OK", "* 3 EXPUNGE")
	b.transact("UID SEARCH ALL", "OK", "* SEARCH 1 4 5", "* 3 EXPUNGE")
}

func TestIdle(t *testing.T) {
	srv, st := newServer(t)
	addr := serve(t, srv)
	a := start(t, addr)
	a.ok("SELECT INBOX")
	a.write("i IDLE\r\n")
	a.want(a.line(), "+ idling")
	for i, want := range []string{"* 1 EXISTS", "* 2 EXISTS", "* 3 EXISTS"} {
		add(t, st, "INBOX", 0, simple)
		a.want(a.line(), want)
		a.want(a.line(), "* "+string(rune('1'+i))+" RECENT")
	}
	b := start(t, addr)
	b.ok("SELECT INBOX")
	b.ok(`STORE 1 +FLAGS.SILENT (\Deleted)`)
	a.want(a.line(), `* 1 FETCH (UID 1 FLAGS (\Deleted \Recent))`)
	b.ok("EXPUNGE")
	a.want(a.line(), "* 1 EXPUNGE")
	a.write("DO")
	add(t, st, "INBOX", 0, simple)
	a.write("NE\r\n")
	a.want(a.line(), "* 3 EXISTS")
	a.want(a.line(), "* 3 RECENT")
	a.want(a.line(), "i OK **")
	a.transact("NOOP", "OK")
	a.write("j IDLE\r\n")
	a.want(a.line(), "+ idling")
	a.write("NOOP\r\n")
	a.want(a.line(), "j BAD **")
	// Without a mailbox, too.
	a.ok("UNSELECT")
	a.write("k IDLE\r\nDONE\r\nl NOOP\r\n")
	a.want(a.line(), "+ idling")
	a.want(a.line(), "k OK **")
	a.want(a.line(), "l OK **")
}

func TestMailboxDeletedElsewhere(t *testing.T) {
	srv, _ := newServer(t)
	addr := serve(t, srv)
	a, b := start(t, addr), start(t, addr)
	a.ok("CREATE x")
	a.ok("SELECT x")
	b.ok("SELECT x")
	b.transact("DELETE x", "OK", "* OK [CLOSED] **")
	a.write("z NOOP\r\n")
	a.want(a.line(), "* BYE **")
	if _, err := a.readLine(); err == nil {
		t.Error("the connection is still open")
	}
	b.transact("SELECT x", "NO [NONEXISTENT]")
}
