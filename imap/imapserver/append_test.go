package imapserver_test

import (
	"strings"
	"testing"
)

func TestAppend(t *testing.T) {
	srv, _ := newServer(t)
	srv.MaxMessage = 10000
	c := start(t, serve(t, srv))
	msg := strings.ReplaceAll(simple, "\n", "\r\n")
	un, tagged := c.cmd("APPEND INBOX " + literal(msg))
	if len(un) != 0 || !match("OK [APPENDUID ** 1] **", tagged) {
		t.Errorf("%q %s", un, tagged)
	}
	c.ok("SELECT INBOX")
	c.transact(`APPEND inbox (\Seen Foo) "17-Jul-1996 02:44:25 -0700" `+literal(msg), "OK [APPENDUID ", `* FLAGS **`, "* 2 EXISTS", "* 2 RECENT")
	c.transact("FETCH 2 (FLAGS INTERNALDATE)", "OK", `* 2 FETCH (FLAGS (\Seen Foo \Recent) INTERNALDATE "17-Jul-1996 02:44:25 -0700")`)
	c.transact("FETCH 2 BODY.PEEK[]", "OK", "* 2 FETCH (BODY[] {145}\r\n"+msg+")")
	c.transact("APPEND none "+literal(msg), "NO [TRYCREATE]")
	c.write("a APPEND none {5}\r\n")
	c.want(c.line(), "a NO [TRYCREATE] **")
	c.write("b APPEND INBOX {5}\r\n")
	c.want(c.line(), "+ **")
	c.write("hello\r\n")
	c.want(c.line(), "* 3 EXISTS")
	c.want(c.line(), "* 3 RECENT")
	c.want(c.line(), "b OK **")
	c.transact("APPEND INBOX {0+}\r\n", "NO")
	c.transact("APPEND INBOX", "BAD")
	c.transact("APPEND INBOX ", "BAD")
	c.transact("APPEND INBOX foo", "BAD")
	c.transact("APPEND INBOX (\\Foo) "+literal(msg), "BAD")
	c.transact("APPEND INBOX \"yesterday\" "+literal(msg), "BAD")
	c.transact("APPEND INBOX "+literal(msg)+"x", "BAD")
}

func TestAppendLimits(t *testing.T) {
	srv, _ := newServer(t)
	srv.MaxMessage, srv.MaxMessages = 1000, 2
	c := start(t, serve(t, srv))
	c.transact("APPEND INBOX {1001}", "NO [TOOBIG]")
	c.transact("APPEND INBOX "+literal(strings.Repeat("x", 600))+" "+literal(strings.Repeat("x", 600)), "NO [TOOBIG]")
	c.transact("APPEND INBOX {1+}\r\na {1+}\r\nb {1+}\r\nc", "NO [LIMIT]")
	c.transact("APPEND INBOX {2+}\r\na\x00", "NO [CANNOT]")
	c.transact("STATUS INBOX (MESSAGES)", "OK", "* STATUS INBOX (MESSAGES 0)")
	c.write("z APPEND INBOX {2000+}\r\n")
	c.want(c.line(), "z NO [TOOBIG] **")
	c.want(c.line(), "* BYE **")
}

func TestMultiAppend(t *testing.T) {
	srv, _ := newServer(t)
	c := start(t, serve(t, srv))
	c.transact(`APPEND INBOX (\Seen) `+literal("Subject: a\r\n\r\n")+` "17-Jul-1996 02:44:25 -0700" `+literal("Subject: b\r\n\r\n")+" "+literal("c"), "OK [APPENDUID ")
	c.ok("SELECT INBOX")
	c.transact("FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])", "OK",
		"* 1 FETCH (FLAGS (\\Seen \\Recent) BODY[HEADER.FIELDS (SUBJECT)] {14}\r\nSubject: a\r\n\r\n)", "* 2 FETCH (FLAGS (\\Recent) BODY[HEADER.FIELDS (SUBJECT)] {14}\r\nSubject: b\r\n\r\n)", "* 3 FETCH **")
}

func TestAppendBinary(t *testing.T) {
	srv, _ := newServer(t)
	c := start(t, serve(t, srv))
	body := "a\x00b\r\n\xff"
	msg := "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n--b\r\nContent-Transfer-Encoding: binary\r\nContent-Type: application/x\r\n\r\n" + body + "\r\n--b\r\n\r\ntext\r\n--b--\r\n"
	c.transact("APPEND INBOX ~"+literal(msg), "OK [APPENDUID ")
	c.transact("APPEND INBOX ~"+literal("Subject: \x00\r\n\r\n"), "NO [UNKNOWN-CTE]")
	c.ok("SELECT INBOX")
	c.transact("FETCH 1 (BODY[1] BINARY.SIZE[1] BINARY[1] BODY[2])", "OK", "* 1 FETCH (FLAGS (\\Seen \\Recent) BODY[1] {8}\r\nYQBiDQr/ BINARY[1] ~{6}\r\n"+body+" BODY[2] {4}\r\ntext BINARY.SIZE[1] 6)")
	c.transact("FETCH 1 BODY.PEEK[1.MIME]", "OK", "**base64**")
	c.transact("FETCH 1 BODY.PEEK[]", "OK", "* 1 FETCH (BODY[] {**")

	c.transact("APPEND INBOX UTF8 (~"+literal("Subject: ä\r\n\r\n")+")", "BAD")
	c.ok("UNSELECT")
	c.ok("ENABLE UTF8=ACCEPT")
	c.transact("APPEND INBOX UTF8 (~"+literal("Subject: ä\r\n\r\n")+")", "OK")
	c.ok("SELECT INBOX")
	c.transact("FETCH 2 ENVELOPE", "OK", `* 2 FETCH (ENVELOPE (NIL "ä" NIL NIL NIL NIL NIL NIL NIL NIL))`)
}

func TestQuota(t *testing.T) {
	srv, st := newServer(t)
	st.SetQuota("alice", 200)
	c := start(t, serve(t, srv))
	msg := strings.ReplaceAll(simple, "\n", "\r\n")
	c.transact("APPEND INBOX "+literal(msg), "OK")
	c.transact("APPEND INBOX "+literal(msg), "NO [OVERQUOTA]")
	c.ok("SELECT INBOX")
	c.transact("COPY 1 INBOX", "NO [OVERQUOTA]")
	c.transact("MOVE 1 INBOX", "OK", "**", "**", "**", "**")
}
