package imapserver_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postrider/postrider/store"
)

func TestSearch(t *testing.T) {
	srv, st := newServer(t)
	srv.MaxErrors = -1
	add(t, st, "INBOX", store.Seen, simple)
	add(t, st, "INBOX", store.Flagged|store.Answered, nested)
	add(t, st, "INBOX", 0, "Subject: third\nDate: Wed, 3 Jan 2024 23:59:00 -0800\nTo: x@example.org\nContent-Type: text/plain; charset=iso-8859-1\n\nSch\xf6ne Sache \xdcBER alles\n")
	add(t, st, "INBOX", store.Deleted|store.DraftFlag, "Subject: fourth\n\n"+strings.Repeat("0123456789\n", 1000)+"needle at the end")
	c := start(t, serve(t, srv))
	c.ok("SELECT INBOX")
	c.ok("STORE 3 +FLAGS.SILENT (Work $Junk)")
	for _, q := range []struct{ keys, want string }{
		{"ALL", "1 2 3 4"},
		{"SEEN", "1"},
		{"UNSEEN", "2 3 4"},
		{"FLAGGED ANSWERED", "2"},
		{"UNFLAGGED UNANSWERED", "1 3 4"},
		{"DELETED", "4"},
		{"UNDELETED UNDRAFT", "1 2 3"},
		{"DRAFT", "4"},
		{"RECENT", "1 2 3 4"},
		{"NEW", "2 3 4"},
		{"OLD", ""},
		{"KEYWORD work", "3"},
		{"UNKEYWORD $JUNK", "1 2 4"},
		{"KEYWORD none", ""},
		{"2:3", "2 3"},
		{"*", "4"},
		{"3:*", "3 4"},
		{"100", ""},
		{"UID 2,4:9", "2 4"},
		{"UID *", "4"},
		{"NOT 2:3", "1 4"},
		{"NOT (SEEN)", "2 3 4"},
		{"OR SEEN DELETED", "1 4"},
		{"OR (SEEN 1) (OR 2 DRAFT)", "1 2 4"},
		{"(2 (ALL) NOT SEEN)", "2"},
		{"LARGER 5000", "4"},
		{"SMALLER 150", "1 3"},
		{"LARGER 145 SMALLER 5000", "2 3"},
		{"LARGER 0", "1 2 3 4"},
		{"SMALLER 0", ""},
		{"SINCE 6-May-2024", "1 2 3 4"},
		{"BEFORE 6-May-2024", ""},
		{`ON "6-May-2024"`, "1 2 3 4"},
		{"NOT ON 06-May-2024", ""},
		{"SENTSINCE 2-Jan-2024", "2 3"},
		{"SENTON 3-Jan-2024", "3"},
		{"SENTBEFORE 3-Jan-2024", "1 2"},
		{"NOT SENTBEFORE 3-Jan-2024", "3 4"},
		{"SUBJECT hello", "1"},
		{"SUBJECT HELL", "1"},
		{`SUBJECT ""`, "1 2 3 4"},
		{"FROM ann", "1"},
		{"FROM example.org", "1 2"},
		{"TO group", "2"},
		{"CC undisclosed", "2"},
		{"BCC x", ""},
		{"HEADER X-Spam no", "2"},
		{`HEADER X-Spam ""`, "2"},
		{"HEADER Message-ID 1@example", "1"},
		{"BODY there", "1"},
		{"BODY hello", ""},
		{"TEXT hello", "1"},
		{"TEXT inner", "2"},
		{"BODY inner", "2"},
		{`BODY "inner text"`, "2"},
		{"TEXT X-Spam", "2"},
		{"TEXT attachment", "2"},
		{"BODY attachment", ""},
		{"BODY needle", "4"},
		{`BODY "9` + "\" BODY end", "4"},
		{"NOT TEXT e", ""},
		{"OR BODY needle SEEN", "1 4"},
		{"CHARSET us-ascii SEEN", "1"},
		{"CHARSET utf-8 SUBJECT " + literal("GRÜ"), "2"},
		{"CHARSET utf-8 FROM " + literal("jürgen"), "2"},
		{"CHARSET utf-8 BODY " + literal("schöne"), "2 3"},
		{"CHARSET utf-8 BODY " + literal("über ALLES"), "3"},
		{"CHARSET utf-8 TEXT " + literal("grüße"), "2"},
	} {
		want := "* SEARCH"
		if q.want != "" {
			want += " " + q.want
		}
		c.transact("SEARCH "+q.keys, "OK", want)
	}
	for _, bad := range []string{"", " ", "FROB", "()", "(", "(SEEN", "NOT", "OR SEEN", "SUBJECT", "LARGER x", "SINCE 31-Feb-2024", "SINCE yesterday", "1:", "UID", "RETURN (FROB) ALL", "RETURN (MIN)", "HEADER x", "SEEN)", "KEYWORD (x)"} {
		c.transact("SEARCH "+bad, "BAD")
	}
	c.transact("SEARCH CHARSET koi8-r SUBJECT x", "NO [BADCHARSET (US-ASCII UTF-8)]")
	c.transact("SEARCH "+strings.Repeat("NOT ", 60)+"SEEN", "BAD")
	c.transact("SEARCH "+strings.Repeat("SEEN ", 1001)+"SEEN", "NO [LIMIT]")
	c.transact("NOOP", "OK")
}

func TestESearch(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, simple, simple, simple, simple, simple)
	c := start(t, serve(t, srv))
	c.ok("SELECT INBOX")
	c.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
	c.ok("EXPUNGE")
	c.ok("STORE 3 +FLAGS.SILENT (\\Flagged)")
	esearch := func(command, want string) {
		t.Helper()
		c.transact(command, "OK", fmt.Sprintf("* ESEARCH (TAG \"t%d\")%s", c.n+1, want))
	}
	esearch("SEARCH RETURN () ALL", " ALL 1:4")
	esearch("SEARCH RETURN (MIN MAX COUNT ALL) ALL", " MIN 1 MAX 4 COUNT 4 ALL 1:4")
	esearch("UID SEARCH RETURN (ALL) ALL", " UID ALL 1,3:5")
	esearch("UID SEARCH RETURN (MAX) UNFLAGGED", " UID MAX 5")
	esearch("SEARCH RETURN (MIN COUNT) KEYWORD none", " COUNT 0")
	esearch("SEARCH RETURN () KEYWORD none", "")

	// SEARCHRES (RFC 5182).
	c.transact("SEARCH RETURN (SAVE) 2:3", "OK")
	c.transact("FETCH $ UID", "OK", "* 2 FETCH (UID 3)", "* 3 FETCH (UID 4)")
	c.transact("UID SEARCH UID $ FLAGGED", "OK", "* SEARCH 4")
	c.transact("SEARCH $ NOT FLAGGED", "OK", "* SEARCH 2")
	esearch("SEARCH RETURN (SAVE MIN) ALL", " MIN 1")
	c.transact("FETCH $ UID", "OK", "* 1 FETCH (UID 1)")
	esearch("SEARCH RETURN (SAVE MIN MAX) ALL", " MIN 1 MAX 4")
	c.transact("FETCH $ UID", "OK", "* 1 FETCH (UID 1)", "* 4 FETCH (UID 5)")
	esearch("SEARCH RETURN (SAVE COUNT MIN) 1:2", " MIN 1 COUNT 2")
	c.transact("STORE $ +FLAGS (\\Deleted)", "OK", "* 1 FETCH **", "* 2 FETCH **")
	c.transact("EXPUNGE", "OK", "* 1 EXPUNGE", "* 1 EXPUNGE")
	c.transact("FETCH $ UID", "OK")
	c.transact("UID SEARCH RETURN (SAVE) ALL", "OK")
	c.transact("COPY $ nope", "NO [TRYCREATE]")
	c.transact("SEARCH RETURN (SAVE) CHARSET x ALL", "NO [BADCHARSET")
	c.transact("FETCH $ UID", "OK")

	c.ok("UNSELECT")
	c.ok("ENABLE IMAP4rev2")
	c.ok("SELECT INBOX")
	esearch("SEARCH ALL", " ALL 1:2")
}
