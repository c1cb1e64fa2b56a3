package imapserver_test

import (
	"context"
	"strings"
	"testing"

	"github.com/postrider/postrider/store"
)

// startRev2 is start with IMAP4rev2 turned on.
func startRev2(t testing.TB, addr string) *client {
	c := start(t, addr)
	c.transact("ENABLE IMAP4rev2", "OK", "* ENABLED IMAP4rev2")
	return c
}

// TestRev2Select: LIST with the true attributes, CLOSED before anything of the
// new mailbox, nothing of RECENT and UNSEEN (RFC 9051 §6.3.2, Appendix E).
func TestRev2Select(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, simple)
	c := startRev2(t, serve(t, srv))
	c.ok("CREATE Sent (USE (\\Sent))")
	c.ok("CREATE Sent/2024")
	c.ok("SUBSCRIBE Sent")
	c.transact("SELECT Sent", "OK [READ-WRITE]", "* FLAGS **", "* 0 EXISTS", "* OK [PERMANENTFLAGS **", "* OK [UIDNEXT **", "* OK [UIDVALIDITY **", `* LIST (\Subscribed \HasChildren \Sent) "/" Sent`)
	c.transact("EXAMINE inbox", "OK [READ-ONLY]", "* OK [CLOSED] **", "* FLAGS **", "* 1 EXISTS", "* OK [PERMANENTFLAGS ()**", "* OK [UIDNEXT **", "* OK [UIDVALIDITY **", `* LIST (\HasNoChildren) "/" INBOX`)
	c.transact("SELECT none", "NO [NONEXISTENT]", "* OK [CLOSED] **")
	c.transact("FETCH 1 UID", "BAD Select a mailbox first")
	c.transact("SELECT INBOX", "OK", "**", "**", "**", "**", "**", "**")
	c.transact("ENABLE UTF8=ACCEPT", "BAD")
	c.transact("CLOSE x", "BAD")
	c.transact("CLOSE", "OK")
}

// TestRev2Recent: no RECENT, no \Recent, and ESEARCH for SEARCH.
func TestRev2Recent(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, simple)
	c := startRev2(t, serve(t, srv))
	c.ok("SELECT INBOX")
	add(t, st, "INBOX", 0, simple)
	c.transact("NOOP", "OK", "* 2 EXISTS")
	c.transact("FETCH 1:2 FLAGS", "OK", "* 1 FETCH (FLAGS ())", "* 2 FETCH (FLAGS ())")
	c.transact("SEARCH RECENT", "OK", `* ESEARCH (TAG "t6")`)
	c.transact("UID SEARCH RETURN (COUNT) OLD", "OK", `* ESEARCH (TAG "t7") UID COUNT 2`)
	c.write("i IDLE\r\n")
	c.want(c.line(), "+ idling")
	add(t, st, "INBOX", 0, simple)
	c.want(c.line(), "* 3 EXISTS")
	c.write("DONE\r\n")
	c.want(c.line(), "i OK **")
	// Unasked flags come with their UID.
	d := start(t, serve(t, srv))
	d.ok("SELECT INBOX")
	d.ok(`STORE 2 +FLAGS.SILENT (\Seen)`)
	c.transact("NOOP", "OK", `* 2 FETCH (UID 2 FLAGS (\Seen))`)
}

// TestSearchSaved: BAD leaves "$" as it was, NO empties it (RFC 9051
// §6.4.4.1).
func TestSearchSaved(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, simple, simple)
	c := startRev2(t, serve(t, srv))
	c.ok("SELECT INBOX")
	c.transact("SEARCH RETURN (SAVE) 2", "OK")
	c.transact("SEARCH RETURN (SAVE) FROB", "BAD")
	c.transact("SEARCH RETURN (SAVE) ALL)", "BAD")
	c.transact("FETCH $ UID", "OK", "* 2 FETCH (UID 2)")
	c.transact("SEARCH CHARSET x ALL", "NO [BADCHARSET")
	c.transact("FETCH $ UID", "OK", "* 2 FETCH (UID 2)")
	c.transact("SEARCH RETURN (SAVE) CHARSET x ALL", "NO [BADCHARSET")
	c.transact("FETCH $ UID", "OK")
	c.transact("COPY $ INBOX", "OK COPY")
	c.transact("SEARCH RETURN (SAVE) 2", "OK")
	c.ok("SELECT INBOX")
	c.transact("UID FETCH $ UID", "OK")
}

// TestNetUnicode: names are made in NFC, are found by either form in every
// command, and the client is told (RFC 9051 §5.1, §6.3.9.7).
func TestNetUnicode(t *testing.T) {
	srv, st := newServer(t)
	c := startRev2(t, serve(t, srv))
	const nfd, nfc = "\"u\u0308\"", "\"\u00fc\""
	old := ` ("OLDNAME" (` + nfd + `))`
	c.transact("CREATE "+nfd, "OK", `* LIST (\HasNoChildren) "/" `+nfc+old)
	c.transact("CREATE "+nfc, "NO [ALREADYEXISTS]")
	c.transact("APPEND "+nfd+" {2+}\r\nhi", "OK [APPENDUID")
	c.transact("STATUS "+nfd+" (MESSAGES)", "OK", "* STATUS "+nfc+" (MESSAGES 1)")
	c.transact(`LIST "" `+nfd, "OK", `* LIST (\HasNoChildren) "/" `+nfc)
	c.transact("SUBSCRIBE "+nfd, "OK")
	c.transact(`LIST (SUBSCRIBED) "" *`, "OK", `* LIST (\Subscribed \HasNoChildren) "/" `+nfc)
	c.transact("SELECT "+nfd, "OK", "**", "**", "**", "**", "**", `* LIST (\Subscribed \HasNoChildren) "/" `+nfc+old)
	c.transact("SELECT "+nfc, "OK", "* OK [CLOSED] **", "**", "**", "**", "**", "**", `* LIST (\Subscribed \HasNoChildren) "/" `+nfc)
	c.transact("COPY 1 "+nfd, "OK [COPYUID", "* 2 EXISTS")
	c.transact("MOVE 1 "+nfd, "OK", "* OK [COPYUID **", "* 1 EXPUNGE", "* 2 EXISTS")
	c.transact("UNSUBSCRIBE "+nfd, "OK")
	c.transact(`LIST (SUBSCRIBED) "" *`, "OK")
	c.transact("RENAME "+nfd+" x", "OK", `* LIST (\HasNoChildren) "/" x`+old)
	c.transact("RENAME x "+nfd, "OK", `* LIST (\HasNoChildren) "/" `+nfc+` ("OLDNAME" (x))`)
	c.ok("UNSELECT")
	c.transact("DELETE "+nfd, "OK")
	c.transact("SELECT "+nfc, "NO [NONEXISTENT]")
	c.transact("CREATE \"a\u0085b\"", "NO [CANNOT]")
	c.transact("CREATE \"a\xff\"", "BAD")

	// What others put into the store under another form is still reached.
	acc, err := st.Account(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acc.CreateMailbox(t.Context(), store.NewMailbox{Name: "o\u0308"}); err != nil {
		t.Fatal(err)
	}
	c.transact("SELECT \"o\u0308\"", "OK", "**", "**", "**", "**", "**", "* LIST (\\HasNoChildren) \"/\" \"o\u0308\"")
	c.ok("UNSELECT")
	c.transact("RENAME \"o\u0308\" y", "OK")
	c.transact("DELETE y", "OK")
}

// TestNoMoreKeywords: at the limit PERMANENTFLAGS comes again, without \*
// (RFC 9051 §7.1).
func TestNoMoreKeywords(t *testing.T) {
	srv, st := newServer(t)
	st.Keywords = 2
	add(t, st, "INBOX", 0, simple)
	c := start(t, serve(t, srv))
	c.ok("SELECT INBOX")
	c.ok("STORE 1 +FLAGS.SILENT (a b)")
	c.transact("STORE 1 +FLAGS (c)", "NO [LIMIT]", `* OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft a b)] **`)
	c.transact("FETCH 1 FLAGS", "OK", `* 1 FETCH (FLAGS (a b \Recent))`)
	c.transact("STORE 1 -FLAGS (a)", "OK", "* 1 FETCH **")
}

// dropBox has mailboxes called "drop" that may be added to and not read.
type dropBox struct{ store.Store }

func (d dropBox) Account(ctx context.Context, id string) (store.Account, error) {
	a, err := d.Store.Account(ctx, id)
	return dropAccount{a}, err
}

type dropAccount struct{ store.Account }

func (a dropAccount) Mailboxes(ctx context.Context, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
	boxes, through, err := a.Account.Mailboxes(ctx, q)
	for i := range boxes {
		if boxes[i].Name == "drop" {
			boxes[i].Rights = "lip"
		}
	}
	return boxes, through, err
}

// TestDropBox: who may not read a mailbox learns no UIDs of it (RFC 9051
// §6.3.12, §6.4.7).
func TestDropBox(t *testing.T) {
	srv, st := newServer(t)
	srv.Store = dropBox{st}
	add(t, st, "INBOX", 0, simple)
	c := start(t, serve(t, srv))
	c.ok("CREATE drop")
	c.transact("APPEND drop {2+}\r\nhi", "OK APPEND")
	c.transact("SELECT drop", "NO [NOPERM]")
	c.transact("STATUS drop (MESSAGES)", "NO [NOPERM]")
	c.ok("SELECT INBOX")
	c.transact("COPY 1 drop", "OK COPY")
	c.transact("MOVE 1 drop", "OK MOVE", "* 1 EXPUNGE")
}

// TestNULOnTheWire: what no literal may hold does not go out in one.
func TestNULOnTheWire(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", store.Seen, "Subject: a\x00b\nX: c\x00\n\nd\x00e\n")
	c := start(t, serve(t, srv))
	c.ok("SELECT INBOX")
	for _, item := range []string{"BODY[]", "BODY[]<5.30>", "BODY[HEADER]", "BODY[TEXT]", "BODY[HEADER.FIELDS (SUBJECT)]", "BODY[HEADER.FIELDS (X)]<1.4>", "ENVELOPE", "RFC822", "BODYSTRUCTURE"} {
		un := c.ok("FETCH 1 " + item)
		if len(un) != 1 || strings.Contains(un[0], "\x00") {
			t.Errorf("%s: %q", item, un)
		}
	}
	c.transact("FETCH 1 BODY[TEXT]", "OK", "* 1 FETCH (BODY[TEXT] {5}\r\nd\x80e\r\n)")
}

// TestCopyUIDOrder: COPYUID comes before the EXPUNGE responses of MOVE, with
// the destination in the order of the source (RFC 9051 §6.4.8).
func TestCopyUIDOrder(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, simple, simple, simple, simple)
	c := startRev2(t, serve(t, srv))
	c.ok("CREATE x")
	c.ok("SELECT INBOX")
	c.transact("UID MOVE 4,1:2 x", "OK", "* OK [COPYUID ** 1:2,4 1:3] **", "* 1 EXPUNGE", "* 1 EXPUNGE", "* 2 EXPUNGE")
	c.transact("UID COPY 1:2 x", "OK UID COPY") // they are gone: nothing is copied
	c.transact("COPY 1 nope", "NO [TRYCREATE]")
	c.transact("MOVE 1 nope", "NO [TRYCREATE]")
	c.transact("SELECT nope", "NO [NONEXISTENT]", "* OK [CLOSED] **")
}
