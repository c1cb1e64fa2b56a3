package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/imap/imapclient"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/storetest"
)

// TestLaws runs what every store must keep to, at its level.
func TestLaws(t *testing.T) {
	storetest.Run(t, storetest.Config{Level: storetest.ReadOnly, Account: reader, Open: func() (one, two store.Store, err error) {
		db, err := open(context.Background(), "")
		if err != nil {
			return nil, nil, err
		}
		t.Cleanup(func() { db.Close() })
		// More than a page, with holes.
		for i := range 900 {
			if _, err := db.Exec(`INSERT INTO posts (room_id, author, body, posted_at) VALUES (?, 'A', ?, ?)`, i%3+1, strings.Repeat("x\n", i), 1772614800+i); err != nil {
				return nil, nil, err
			}
		}
		_, err = db.Exec(`DELETE FROM posts WHERE id % 7 = 3`)
		return newForum(db), newForum(db), err
	}})
}

// TestRows shows that any row is a message.
func TestRows(t *testing.T) {
	for _, p := range []post{
		{id: 1},
		{id: 2, author: "A\r\nBcc: all@evil.test", email: "a@b\r\nX: y", subject: "One\r\nTwo: \x00three", body: "a\x00b\xff\n.\nFrom x\n"},
		{id: 3, author: strings.Repeat("long ", 500), email: "ö@forum.example", subject: strings.Repeat("ß", 2000), body: strings.Repeat("y", 5000)},
		{id: 4, replyTo: 3, email: "<>", at: -62135596800},
	} {
		text, err := p.compose()
		if err != nil {
			t.Errorf("%d: %v", p.id, err)
			continue
		}
		again, _ := p.compose()
		root, err := mime.Parse(bytes.NewReader(text), int64(len(text)), mime.Limits{})
		if err != nil || !bytes.Equal(text, again) || root.Header.Has("Bcc") || root.Header.Has("X") || root.Header.Has("Two") {
			t.Errorf("%d: %v\n%s", p.id, err, text)
		}
		if from, err := root.Header.Addresses("From"); err != nil || len(from) != 1 {
			t.Errorf("%d: From %v %v", p.id, from, err)
		}
	}
}

// TestFront reads the forum as a mail program does, from a file that somebody
// else writes to.
func TestFront(t *testing.T) {
	file := filepath.Join(t.TempDir(), "forum.db")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	writer, err := open(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, err := writer.Exec(`VACUUM INTO ?`, file); err != nil {
		t.Fatal(err)
	}
	if writer, err = sql.Open("sqlite3", "file:"+file); err != nil {
		t.Fatal(err)
	}
	defer writer.Close()

	serving, stop := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(serving, &config{db: file, listen: "127.0.0.1:0", password: "pw"}, pw)
		pw.Close()
	}()
	sc := bufio.NewScanner(pr)
	if !sc.Scan() {
		t.Fatal(<-done)
	}
	d := imapclient.Dialer{Security: imapclient.Plain}
	c, err := d.Dial(ctx, strings.TrimPrefix(sc.Text(), "imap "))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(ctx, reader, "pw"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{"INBOX": 4, "Rooms/Gemüse": 2, "Rooms/Roses": 2, "Rooms/Empty": 0} {
		if _, err := c.Select(ctx, name); err != nil || c.Mailbox().Messages != want || !c.Mailbox().ReadOnly {
			t.Errorf("%s: %v, %+v, want %d messages, read-only", name, err, c.Mailbox(), want)
		}
	}
	if _, err := c.Select(ctx, "INBOX"); err != nil {
		t.Fatal(err)
	}
	find := func(text string) []byte {
		t.Helper()
		found, err := c.Search(ctx, true, &imap.SearchCriteria{Text: []string{text}}, imap.SearchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var b []byte
		if found.Count == 0 && len(found.All) == 0 {
			return nil
		}
		for m, err := range c.Fetch(ctx, imap.UIDs(found.All), imap.FetchOptions{UID: true, Sections: []imap.Section{{Peek: true}}}) {
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, m.Sections[0].Data...)
		}
		return b
	}
	if got := string(find("vlies")); !strings.Contains(got, "In-Reply-To: <post-1@forum.example>\r\n") || !strings.HasSuffix(got, "\r\n\r\nUnter Vlies ja.\r\n") && !strings.HasSuffix(got, "\r\n\r\nUnter Vlies ja.") {
		t.Errorf("%s", got)
	}
	if got := string(find("leaves off")); !strings.Contains(got, `From: a guest <nobody@forum.example>`) || !strings.Contains(got, "Subject: (no subject)") {
		t.Errorf("%s", got)
	}
	// One post comes, one goes, in the forum.
	for _, q := range []string{`INSERT INTO posts (room_id, author, body, posted_at) VALUES (3, 'New', 'Somebody is here now', 1772700000)`, `DELETE FROM posts WHERE id = 2`} {
		if _, err := writer.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Noop(ctx); err != nil {
		t.Fatal(err)
	}
	if n := c.Mailbox().Messages; n != 4 || len(find("black spots")) > 0 || len(find("somebody is here")) == 0 {
		t.Errorf("%d messages after one came and one went", n)
	}
	// Nothing can be written.
	if err := c.Delete(ctx, "Rooms/Empty"); err == nil {
		t.Error("a room could be deleted")
	}
	if err := c.Logout(ctx); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"stray": "unexpected argument", "-cert a": "-cert and -key", "-db /no/such": "/no/such", "-cert /no -key /no": "/no", "-listen 127.0.0.1:99999": "99999",
	} {
		c, err := parse(strings.Fields(args), io.Discard)
		if err == nil {
			err = run(t.Context(), c, io.Discard)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
