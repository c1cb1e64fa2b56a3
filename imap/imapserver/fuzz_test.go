package imapserver_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// sessionSeeds are commands for FuzzSession.
var sessionSeeds = []string{
	"CAPABILITY", "NOOP", "ID NIL", `ID ("a" "b")`, "LOGIN alice secret", "LOGIN {5+}\r\nalice {6}\r\nsecret", "AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==", "AUTHENTICATE PLAIN\r\n*",
	"STARTTLS", "ENABLE IMAP4rev2 UTF8=ACCEPT", "SELECT INBOX", "EXAMINE inbox", "UNSELECT", "CLOSE", "CHECK", "EXPUNGE", "UID EXPUNGE 1:*", "LOGOUT",
	"CREATE a/b", "CREATE x (USE (\\Sent))", "DELETE a/b", "RENAME INBOX y/z", "RENAME a c", "SUBSCRIBE a", "UNSUBSCRIBE a", "NAMESPACE",
	`LIST "" *`, `LIST (SUBSCRIBED RECURSIVEMATCH) "" (% *) RETURN (STATUS (MESSAGES SIZE RECENT) CHILDREN)`, `LSUB "" %`, "STATUS INBOX (MESSAGES UNSEEN SIZE)",
	"APPEND INBOX (\\Seen) \"17-Jul-1996 02:44:25 -0700\" {5+}\r\nhello", "APPEND INBOX ~{3+}\r\na\x00b {2+}\r\nxy", "APPEND INBOX UTF8 (~{3+}\r\nabc)", "IDLE\r\nDONE",
	"FETCH 1:* FULL", "UID FETCH * (BODYSTRUCTURE BODY[1.MIME]<0.5> BINARY[1] BINARY.SIZE[3] BODY[HEADER.FIELDS (a)] RFC822.TEXT)", "FETCH $ (BODY.PEEK[2.1.TEXT])",
	"STORE 1:2 +FLAGS.SILENT (\\Deleted Foo)", "UID STORE * -FLAGS \\Seen", "COPY 1 INBOX", "UID MOVE 1:* x",
	"SEARCH RETURN (SAVE MIN COUNT) OR (SEEN TEXT a) NOT BODY b", "UID SEARCH CHARSET UTF-8 SUBJECT {2+}\r\n\xc3\xa4 SINCE 1-Jan-2020 $ UID 1:* KEYWORD x LARGER 5",
}

// FuzzSession runs commands in each state of a session. Every command must be
// answered and the session must end; no panic may reach the log.
func FuzzSession(f *testing.F) {
	for _, s := range sessionSeeds {
		for state := range 4 {
			f.Add(byte(state), "a "+s+"\r\n")
		}
	}
	f.Add(byte(2), "a "+strings.Join(sessionSeeds, "\r\na ")+"\r\n")
	f.Fuzz(func(t *testing.T, state byte, input string) {
		srv, st := newServer(t)
		srv.Log = panicLog(t)
		srv.MaxMessage, srv.MaxLiteral, srv.MaxLine = 10000, 1000, 5000
		add(t, st, "INBOX", 0, simple, nested, simple)
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() { srv.ServeConn(far); close(done) }()
		near.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			prefix := [...]string{"", "l LOGIN alice secret\r\n", "l LOGIN alice secret\r\ns SELECT INBOX\r\n", "l LOGIN alice secret\r\ne ENABLE IMAP4rev2\r\ns EXAMINE INBOX\r\n"}
			io.WriteString(near, prefix[state%4]+input+"\r\nDONE\r\n\r\nzz LOGOUT\r\n")
			// A literal that was announced and never sent: cut.
			near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}()
		io.Copy(io.Discard, bufio.NewReader(near))
		near.Close()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatal("the session does not end")
		}
	})
}
