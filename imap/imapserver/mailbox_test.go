package imapserver_test

import (
	"testing"

	"github.com/postrider/postrider/store"
)

func TestManage(t *testing.T) {
	srv, st := newServer(t)
	c := start(t, serve(t, srv))
	c.transact("CREATE a/b/c", "OK")
	c.transact("CREATE A/", "OK")
	c.transact("CREATE a/b/c", "NO [ALREADYEXISTS]")
	c.transact("CREATE inbox", "NO [ALREADYEXISTS]")
	for _, bad := range []string{`""`, "/", "/a", "a//b", `"x*"`, `"a%"`, "\"a\tb\"", "{3}\r\n\xff\xfe\xfd"} {
		_, tagged := c.cmd("CREATE " + bad)
		if match("OK**", tagged) {
			t.Errorf("%q was created", bad)
		}
		if match("BAD**", tagged) && bad[0] == '{' {
			continue
		}
	}
	c.transact("CREATE x (USE (\\Sent))", "OK")
	c.transact("CREATE y (USE (\\All))", "NO [USEATTR]")
	c.transact("CREATE y (FROB (\\Sent))", "BAD")
	c.transact("RENAME a b", "OK")
	c.transact(`LIST "" *`, "OK", `* LIST (\HasNoChildren) "/" A`, `* LIST (\HasNoChildren) "/" INBOX`, `* LIST (\NonExistent \Noselect \HasChildren) "/" b`,
		`* LIST (\NonExistent \Noselect \HasChildren) "/" b/b`, `* LIST (\HasNoChildren) "/" b/b/c`, `* LIST (\HasNoChildren \Sent) "/" x`)
	c.transact("RENAME b/b/c x", "NO [ALREADYEXISTS]")
	c.transact("RENAME none z", "NO [NONEXISTENT]")
	c.transact("RENAME x INBOX", "NO [ALREADYEXISTS]")
	c.transact("RENAME A x/y", "OK")
	c.transact("RENAME x x/z", "OK")
	c.transact(`LIST "" x*`, "OK", `* LIST (\NonExistent \Noselect \HasChildren) "/" x`, `* LIST (\HasChildren \Sent) "/" x/z`, `* LIST (\HasNoChildren) "/" x/z/y`)
	c.transact("DELETE b", "NO [HASCHILDREN]")
	c.transact("DELETE none", "NO [NONEXISTENT]")
	c.transact("DELETE inbox", "NO [CANNOT]")
	c.transact("DELETE x/z", "OK")
	c.transact("SELECT x/z", "NO [NONEXISTENT]")
	c.transact("DELETE x/z/y", "OK")
	c.transact(`LIST "" x*`, "OK")

	add(t, st, "INBOX", 0, simple, simple)
	c.ok("SELECT INBOX")
	c.transact("RENAME INBOX old/mail", "OK", "* 1 EXPUNGE", "* 1 EXPUNGE")
	c.transact("STATUS old/mail (MESSAGES)", "OK", "* STATUS old/mail (MESSAGES 2)")
	c.transact("STATUS inbox (MESSAGES)", "OK", "* STATUS INBOX (MESSAGES 0)")
}

func TestNames(t *testing.T) {
	srv, _ := newServer(t)
	addr := serve(t, srv)
	c := start(t, addr)
	c.ok("CREATE Entw&APw-rfe")
	c.ok(`CREATE "R&-D"`)
	c.transact(`LIST "" Ent*`, "OK", `* LIST (\HasNoChildren) "/" Entw&APw-rfe`)
	d := start(t, addr)
	d.ok("ENABLE UTF8=ACCEPT")
	d.transact(`LIST "" "*"`, "OK", `* LIST (\HasNoChildren) "/" "Entwürfe"`, `* LIST (\HasNoChildren) "/" INBOX`, `* LIST (\HasNoChildren) "/" R&D`)
	d.transact(`STATUS "Entwürfe" (MESSAGES)`, "OK", `* STATUS "Entwürfe" (MESSAGES 0)`)
	d.ok(`CREATE InBoX/sub`)
	c.transact(`LIST inbox/ %`, "OK", `* LIST (\HasNoChildren) "/" INBOX/sub`)
	c.transact(`LIST "" ""`, "OK", `* LIST (\Noselect) "/" ""`)
}

func TestListExtended(t *testing.T) {
	srv, _ := newServer(t)
	c := start(t, serve(t, srv))
	for _, n := range []string{"Foo", "Foo/Bar", "Foo/Baz", "Moo", "Sent (USE (\\Sent))"} {
		c.ok("CREATE " + n)
	}
	for _, n := range []string{"Foo/Baz", "Gone/Deep", "Moo"} {
		c.ok("SUBSCRIBE " + n)
	}
	c.transact(`LIST (SUBSCRIBED) "" *`, "OK", `* LIST (\Subscribed \HasNoChildren) "/" Foo/Baz`, `* LIST (\NonExistent \Subscribed \HasNoChildren) "/" Gone/Deep`, `* LIST (\Subscribed \HasNoChildren) "/" Moo`)
	c.transact(`LIST (SUBSCRIBED RECURSIVEMATCH) "" %`, "OK", `* LIST (\HasChildren) "/" Foo ("CHILDINFO" ("SUBSCRIBED"))`, `* LIST (\NonExistent \HasNoChildren) "/" Gone ("CHILDINFO" ("SUBSCRIBED"))`, `* LIST (\Subscribed \HasNoChildren) "/" Moo`)
	c.transact(`LIST (RECURSIVEMATCH) "" %`, "BAD")
	c.transact(`LIST (REMOTE RECURSIVEMATCH) "" %`, "BAD")
	c.transact(`LIST (FROB) "" %`, "BAD")
	c.transact(`LIST (REMOTE) "" Moo`, "OK", `* LIST (\HasNoChildren) "/" Moo`)
	c.transact(`LIST "" (Moo Foo/%) RETURN (SUBSCRIBED CHILDREN)`, "OK", `* LIST (\HasNoChildren) "/" Foo/Bar`, `* LIST (\Subscribed \HasNoChildren) "/" Foo/Baz`, `* LIST (\Subscribed \HasNoChildren) "/" Moo`)
	c.transact(`LIST (SPECIAL-USE) "" *`, "OK", `* LIST (\HasNoChildren \Sent) "/" Sent`)
	c.transact(`LIST () "" Foo RETURN ()`, "OK", `* LIST (\HasChildren) "/" Foo`)
	c.transact(`LIST "" () RETURN ()`, "BAD")
	c.transact(`LIST "" % RETURN (FROB)`, "BAD")
	c.transact(`LIST "" (INBOX Moo) RETURN (STATUS (MESSAGES SIZE))`, "OK", `* LIST (\HasNoChildren) "/" INBOX`, "* STATUS INBOX (MESSAGES 0 SIZE 0)", `* LIST **Moo`, "* STATUS Moo (MESSAGES 0 SIZE 0)")

	c.transact(`LSUB "" *`, "OK", `* LSUB () "/" Foo/Baz`, `* LSUB () "/" Gone/Deep`, `* LSUB () "/" Moo`)
	c.transact(`LSUB "" %`, "OK", `* LSUB (\Noselect) "/" Foo`, `* LSUB (\Noselect) "/" Gone`, `* LSUB () "/" Moo`)
	c.transact(`LSUB "" ""`, "OK", `* LSUB (\Noselect) "/" ""`)
	c.transact("UNSUBSCRIBE Moo", "OK")
	c.transact("UNSUBSCRIBE Moo", "OK")
	c.transact(`LSUB "" M*`, "OK")
}

func TestStatus(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", store.Seen, simple)
	add(t, st, "INBOX", store.Deleted, simple)
	c := start(t, serve(t, srv))
	c.transact("STATUS INBOX (MESSAGES UIDNEXT UNSEEN DELETED SIZE RECENT)", "OK", "* STATUS INBOX (MESSAGES 2 UIDNEXT 3 UNSEEN 1 DELETED 1 SIZE 290 RECENT 2)")
	c.transact("STATUS INBOX ()", "BAD")
	c.transact("STATUS INBOX (FROB)", "BAD")
	c.transact("STATUS none (MESSAGES)", "NO [NONEXISTENT]")
	c.ok("SELECT INBOX")
	c.transact("STATUS INBOX (RECENT)", "OK", "* STATUS INBOX (RECENT 0)")
}

func TestCopyMove(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", store.Flagged, simple, simple, simple)
	c := start(t, serve(t, srv))
	c.ok("CREATE x")
	c.ok("SELECT INBOX")
	c.transact("COPY 1:2 none", "NO [TRYCREATE]")
	c.transact("MOVE 1:2 none", "NO [TRYCREATE]")
	c.transact("COPY 9 x", "BAD")
	c.transact("UID COPY 9 x", "OK UID COPY")
	un, tagged := c.cmd("COPY 1,3 x")
	if len(un) != 0 || !match("OK [COPYUID ** 1,3 1:2] **", tagged) {
		t.Errorf("%q %s", un, tagged)
	}
	c.transact("MOVE 2 x", "OK", "* OK [COPYUID ** 2 3] **", "* 2 EXPUNGE")
	c.transact("UID MOVE 3 INBOX", "OK", "* OK [COPYUID ** 3 4] **", "* 2 EXPUNGE", "* 2 EXISTS", "* 2 RECENT")
	c.ok("SELECT x")
	c.transact("FETCH 1:* FLAGS", "OK", `* 1 FETCH (FLAGS (\Flagged \Recent))`, `* 2 FETCH **`, `* 3 FETCH **`)
	c.transact("STORE 1 FLAGS ()", "OK", `* 1 FETCH (UID 1 FLAGS (\Recent))`)
	c.transact("STORE 1 FLAGS \\Seen Foo", "OK", "* FLAGS **", `* 1 FETCH (UID 1 FLAGS (\Seen Foo \Recent))`)
	c.transact("STORE 1 -FLAGS (foo)", "OK", `* 1 FETCH (UID 1 FLAGS (\Seen \Recent))`)
	c.transact("STORE 1 +FLAGS (\\Recent)", "BAD")
	c.transact("STORE 1 +FLAGS (\\Frob)", "BAD")
	c.transact("STORE 1 FROB (\\Seen)", "BAD")
	c.transact("STORE 9 +FLAGS (\\Seen)", "BAD")
	c.transact("UID STORE 9 +FLAGS (\\Seen)", "OK")
}
