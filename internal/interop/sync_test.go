package interop

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// state describes a mailbox: for each message its flags and what it is, with
// neither UIDs nor order.
func (c *imapConn) state(box string) string {
	c.t.Helper()
	c.ok("EXAMINE " + box)
	var lines []string
	if c.count(box) == 0 {
		return "" // RFC 9051 §9: "*" in an empty mailbox is BAD
	}
	for _, l := range c.ok("FETCH 1:* (FLAGS BODY.PEEK[])") {
		i, j := strings.Index(l, "FLAGS ("), strings.Index(l, "BODY[] {")
		if i < 0 || j < 0 {
			continue
		}
		flags := strings.Fields(strings.SplitN(l[i+7:], ")", 2)[0])
		flags = deleteFlag(flags, `\Recent`)
		sort.Strings(flags)
		body := l[j:]
		// mbsync marks what it copies with a field of its own.
		var keep []string
		for _, h := range strings.Split(body[strings.Index(body, "\r\n")+2:], "\r\n") {
			if !strings.HasPrefix(h, "X-TUID: ") {
				keep = append(keep, h)
			}
		}
		lines = append(lines, fmt.Sprintf("%v %x", flags, sha256.Sum256([]byte(strings.Join(keep, "\n")))))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func deleteFlag(flags []string, f string) []string {
	out := flags[:0]
	for _, x := range flags {
		if !strings.EqualFold(x, f) {
			out = append(out, x)
		}
	}
	return out
}

// tree describes a Maildir++-less folder tree of mbsync: every file's folder
// and flags.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		lines = append(lines, strings.TrimPrefix(p, dir))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// TestMbsync mirrors a mailbox of 500 messages both ways.
func TestMbsync(t *testing.T) {
	need(t, "mbsync")
	s := start(t)
	dir := t.TempDir()
	box := fill(t, s, 500)
	box.ok("SELECT INBOX")
	box.ok(`STORE 1:50 +FLAGS.SILENT (\Seen)`)
	box.ok(`STORE 51:60 +FLAGS.SILENT (\Flagged \Answered)`)
	rc := filepath.Join(dir, "mbsyncrc")
	local := filepath.Join(dir, "Mail")
	if err := os.Mkdir(local, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, rc, fmt.Sprintf(`IMAPAccount a
Host localhost
Port %s
User %s
Pass %s
SSLType IMAPS
CertificateFile %s

IMAPStore remote
Account a

MaildirStore local
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel all
Far :remote:
Near :local:
Patterns *
Create Both
Expunge Both
Sync All
SyncState *
`, s.port(t, "imaps"), bob, bobPass, s.certFile, local, local))
	mbsync := func() { t.Helper(); run(t, dir, "mbsync", "-c", rc, "-a") }
	same := func(step string) {
		t.Helper()
		before, files := box.state("INBOX")+"\n--\n"+box.state("Archive"), tree(t, local)
		mbsync()
		if after := box.state("INBOX") + "\n--\n" + box.state("Archive"); after != before {
			t.Errorf("%s: the second run changed the server", step)
		}
		if tree(t, local) != files {
			t.Errorf("%s: the second run changed the Maildir", step)
		}
	}
	files := func(folder string) []string {
		t.Helper()
		var out []string
		for _, sub := range []string{"cur", "new"} {
			m, _ := filepath.Glob(filepath.Join(local, folder, sub, "*"))
			out = append(out, m...)
		}
		sort.Strings(out)
		return out
	}

	mbsync()
	if n := len(files("INBOX")); n != 500 {
		t.Fatalf("%d messages in the Maildir, want 500", n)
	}
	same("first copy")

	// The server changes: flags, a move, deletions, new mail.
	box.ok("SELECT INBOX")
	box.ok(`STORE 100:120 +FLAGS.SILENT (\Flagged)`)
	box.ok(`MOVE 1:30 Archive`)
	box.ok(`STORE 1:10 +FLAGS.SILENT (\Deleted)`)
	box.ok("EXPUNGE")
	fill(t, s, 5)
	mbsync()
	if n, a := len(files("INBOX")), len(files("Archive")); n != 465 || a != 30 {
		t.Fatalf("after changes on the server: %d and %d messages, want 465 and 30", n, a)
	}
	same("changes on the server")

	// The Maildir changes: a flag, a move, deletions, a new message.
	in := files("INBOX")
	flagged := filepath.Join(local, "INBOX", "cur", strings.SplitN(filepath.Base(in[0]), ":", 2)[0]+":2,FS")
	if err := os.Rename(in[0], flagged); err != nil {
		t.Fatal(err)
	}
	for _, f := range in[1:11] { // trashed: T is \Deleted
		name := strings.SplitN(filepath.Base(f), ":", 2)[0] + ":2,ST"
		if err := os.Rename(f, filepath.Join(local, "INBOX", "cur", name)); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range in[11:16] { // moved: a new name without mbsync's UID
		if err := os.Rename(f, filepath.Join(local, "Archive", "new", fmt.Sprintf("17000000%d.M1P1.here", i))); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(local, "INBOX", "new", "1700001000.M1P1.here"), "From: "+bob+"\nSubject: from the Maildir\n\n.dot\nbody new\n")
	mbsync()
	if n, a := box.count("INBOX"), box.count("Archive"); n != 465-10-5+1 || a != 35 {
		t.Fatalf("after changes in the Maildir: %d and %d messages, want 451 and 35", n, a)
	}
	same("changes in the Maildir")
}

func TestOfflineimap(t *testing.T) {
	need(t, "offlineimap")
	s := start(t)
	dir := t.TempDir()
	box := fill(t, s, 30)
	box.ok("CREATE Work/Reports")
	local := filepath.Join(dir, "Mail")
	rc := filepath.Join(dir, "offlineimaprc")
	write(t, rc, fmt.Sprintf(`[general]
accounts = a
metadata = %s/meta
[Account a]
localrepository = local
remoterepository = remote
[Repository local]
type = Maildir
localfolders = %s
[Repository remote]
type = IMAP
remotehost = localhost
remoteport = %s
remoteuser = %s
remotepass = %s
ssl = yes
sslcacertfile = %s
`, dir, local, s.port(t, "imaps"), bob, bobPass, s.certFile))
	sync := func() { t.Helper(); run(t, dir, "offlineimap", "-c", rc, "-o", "-u", "basic") }
	count := func(folder string) int {
		m, _ := filepath.Glob(filepath.Join(local, folder, "*", "*"))
		return len(m)
	}
	sync()
	if n := count("INBOX"); n != 30 {
		t.Fatalf("%d messages, want 30", n)
	}
	if _, err := os.Stat(filepath.Join(local, "Work.Reports")); err != nil {
		t.Error(err)
	}
	// A flag from here, a deletion from there, a new message from here.
	m, _ := filepath.Glob(filepath.Join(local, "INBOX", "*", "*"))
	name := strings.SplitN(filepath.Base(m[0]), ":", 2)[0]
	if err := os.Rename(m[0], filepath.Join(local, "INBOX", "cur", name+":2,FS")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(local, "INBOX", "new", "1700001000_1.1.here"), "From: "+bob+"\nSubject: new\n\n.dot\nbody new\n")
	box.ok("SELECT INBOX")
	box.ok(`STORE 20:24 +FLAGS.SILENT (\Deleted)`)
	box.ok("EXPUNGE")
	sync()
	if n := count("INBOX"); n != 26 {
		t.Errorf("%d messages in the Maildir, want 26", n)
	}
	if n := box.count("INBOX"); n != 26 {
		t.Errorf("%d messages on the server, want 26", n)
	}
	box.ok("SELECT INBOX")
	if got := strings.Join(box.ok("SEARCH FLAGGED"), " "); !strings.Contains(got, "SEARCH ") || got == "* SEARCH" {
		t.Errorf("the flag did not arrive: %q", got)
	}
	before := box.state("INBOX")
	sync()
	if box.state("INBOX") != before {
		t.Error("a run without changes changed the server")
	}
}

func TestNeomutt(t *testing.T) {
	need(t, "neomutt", "script")
	s := start(t)
	dir := t.TempDir()
	box := fill(t, s, 3)
	rc := filepath.Join(dir, "muttrc")
	conf := func(user, pass string) {
		write(t, rc, fmt.Sprintf(`set from="%s" realname="Tester" use_from=yes
set ssl_ca_certificates_file="%s" ssl_starttls=yes ssl_force_tls=yes ssl_usesystemcerts=no
set smtp_url="smtp://%s@localhost:%s/" smtp_pass="%s"
set imap_user="%s" imap_pass="%s" folder="imap://localhost:%s/" spoolfile="imap://localhost:%s/INBOX"
set record="" confirmappend=no confirmcreate=no delete=yes quit=yes header_cache="" sleep_time=0 timeout=5 mail_check=1
`, user, s.certFile, user, s.port(t, "submission"), pass, user, pass, s.port(t, "imap"), s.port(t, "imap")))
	}
	conf(alice, alicePass)
	write(t, filepath.Join(dir, "body"), "Hello from neomutt\n")
	write(t, filepath.Join(dir, "note.txt"), "attached\n")
	run(t, dir, "sh", "-c", "neomutt -n -F "+rc+" -s 'Grüße aus mutt' -a note.txt -- "+bob+" < body")
	box.wait("INBOX", 4)

	// Tag by subject, move, flag and leave, as a person would.
	conf(bob, bobPass)
	push := `push "<limit>message 1<enter><save-message>=Archive<enter><limit>all<enter><first-entry><flag-message><sync-mailbox><quit>"`
	run(t, dir, "script", "-qec", "stty rows 40 cols 120; neomutt -n -F "+rc+" -e '"+push+"'", "/dev/null")
	box.wait("Archive", 1)
	box.wait("INBOX", 3)
	box.ok("SELECT INBOX")
	if got := strings.Join(box.ok("SEARCH FLAGGED"), " "); got != "* SEARCH 1" {
		t.Errorf("the flag did not arrive: %q", got)
	}
}
