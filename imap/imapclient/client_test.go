package imapclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/postrider/postrider/imap"
)

// script plays a server: lines "C: …" are expected, "S: …" are sent; "S- …"
// is sent without CRLF. \r, \n and \0 are
// what they say. At its end the connection is closed.
func script(t testing.TB, lines string) net.Conn {
	t.Helper()
	cl, srv := net.Pipe()
	done := make(chan struct{})
	unescape := strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00")
	go func() {
		defer close(done)
		defer srv.Close()
		r := bufio.NewReader(srv)
		for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
			line = strings.TrimLeft(line, "\t ")
			text, _ := strings.CutPrefix(line[2:], " ")
			text = unescape.Replace(text)
			switch line[:2] {
			case "C:":
				got, err := r.ReadString('\n')
				if got != text+"\r\n" {
					t.Errorf("client sent %q (%v), want %q", got, err, text)
					return
				}
			case "S:":
				io.WriteString(srv, text+"\r\n")
			case "S-":
				io.WriteString(srv, text)
			}
		}
	}()
	t.Cleanup(func() { cl.Close(); <-done })
	return cl
}

func client(t testing.TB, h Handler, lines string) *Client {
	t.Helper()
	d := &Dialer{Security: Plain, Timeout: 5 * time.Second, MaxLiteral: 1000, MaxLine: 2000, Handler: h}
	c, err := d.Client(t.Context(), script(t, "S: * OK [CAPABILITY IMAP4rev1 SASL-IR IDLE] ready\n"+lines), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestLogin(t *testing.T) {
	ctx := t.Context()
	c := client(t, Handler{}, `C: a1 LOGIN "alice" "se\"cret"
		S: a1 NO [AUTHENTICATIONFAILED] wrong
		C: a2 LOGIN "alice" {3}
		S: + go on
		C: ü!
		S: a2 OK [CAPABILITY IMAP4rev1 MOVE] in
		C: a3 LOGOUT
		S: * BYE bye
		S: a3 OK done`)
	var e *imap.Error
	if err := c.Login(ctx, "alice", `se"cret`); !errors.As(err, &e) || e.Type != imap.NO || e.Code != imap.CodeAuthenticationFailed || e.Text != "wrong" {
		t.Fatal(err)
	}
	if err := c.Login(ctx, "alice", "ü!"); err != nil {
		t.Fatal(err)
	}
	if caps, err := c.Capabilities(ctx); err != nil || !caps.Has(imap.CapMove) {
		t.Error(caps, err)
	}
	if err := c.Logout(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Noop(ctx); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestAuthenticate(t *testing.T) {
	ctx := t.Context()
	c := client(t, Handler{}, "C: a1 AUTHENTICATE PLAIN AGEAYg==\nS: a1 OK in\nC: a2 CAPABILITY\nS: * CAPABILITY IMAP4rev1 X \nS: a2 OK")
	if err := c.Authenticate(ctx, sasl.NewPlainClient("", "a", "b")); err != nil {
		t.Fatal(err)
	}
	if caps, err := c.Capabilities(ctx); err != nil || len(caps) != 2 {
		t.Error(caps, err)
	}
	d := &Dialer{Security: Plain}
	c, err := d.Client(ctx, script(t, "S: * OK\nC: a1 CAPABILITY\nS: * CAPABILITY IMAP4rev1\nS: a1 OK\nC: a2 AUTHENTICATE LOGIN\nS: + VXNlcm5hbWU6\nC: YQ==\nS: + UGFzc3dvcmQ6\nC: Yg==\nS: a2 OK"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Authenticate(ctx, sasl.NewLoginClient("a", "b")); err != nil {
		t.Error(err)
	}
	c = client(t, Handler{}, "C: a1 AUTHENTICATE PLAIN AGEAYg==\nS: + eA==\nC: *\nS: a1 BAD cancelled\nC: a2 NOOP\nS: a2 OK")
	if err := c.Authenticate(ctx, sasl.NewPlainClient("", "a", "b")); !errors.Is(err, sasl.ErrUnexpectedServerChallenge) {
		t.Error(err)
	}
	if err := c.Noop(ctx); err != nil {
		t.Error(err)
	}
}

func TestSelectAndUnilateral(t *testing.T) {
	ctx := t.Context()
	var got []string
	h := Handler{
		Exists:  func(n uint32) { got = append(got, fmt.Sprint("exists ", n)) },
		Expunge: func(n uint32) { got = append(got, fmt.Sprint("expunge ", n)) },
		Fetch:   func(m *imap.FetchData) { got = append(got, fmt.Sprint("fetch ", m.Seq, m.Flags)) },
		Alert:   func(s string) { got = append(got, "alert "+s) },
	}
	c := client(t, h, `C: a1 SELECT p&AOQ-
		S: * FLAGS (\Seen kw)
		S: * 3 EXISTS
		S: * 1 RECENT
		S: * OK [UIDVALIDITY 7] x
		S: * OK [UIDNEXT 10] x
		S: * OK [UNSEEN 2] x
		S: * OK [PERMANENTFLAGS (\Seen \*)] x
		S: * LIST () "/" p&AOQ-
		S: a1 OK [READ-WRITE] in
		C: a2 NOOP
		S: * 2 EXPUNGE
		S: * 5 EXISTS
		S: * 1 FETCH (FLAGS (\Seen) MODSEQ (12))
		S: * UNKNOWN (a (b "c")(d) {3}\r\nx\ry) [q] \*
		S: * OK [ALERT] disk full
		S: a2 OK
		C: a3 SELECT nope
		S: a3 NO [NONEXISTENT] no`)
	s, err := c.Select(ctx, "pä")
	if err != nil {
		t.Fatal(err)
	}
	want := &imap.SelectData{Flags: []imap.Flag{`\Seen`, "kw"}, PermanentFlags: []imap.Flag{`\Seen`, `\*`}, Messages: 3, Recent: 1,
		FirstUnseen: 2, UIDNext: 10, UIDValidity: 7, List: &imap.ListData{Delim: '/', Mailbox: "pä"}}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v", s)
	}
	got = nil
	if err := c.Noop(ctx); err != nil {
		t.Fatal(err)
	}
	if g := fmt.Sprint(got); g != `[expunge 2 exists 5 fetch 1 [\Seen] alert disk full]` || c.Mailbox().Messages != 5 {
		t.Error(g, c.Mailbox().Messages)
	}
	var e *imap.Error
	if _, err := c.Select(ctx, "nope"); !errors.As(err, &e) || e.Code != imap.CodeNonExistent || c.Mailbox() != nil {
		t.Error(err)
	}
}

func TestFetch(t *testing.T) {
	ctx := t.Context()
	answer := `S: * 1 FETCH (UID 5 FLAGS (\Seen) RFC822.SIZE 44 INTERNALDATE " 1-Feb-2024 10:00:00 +0100" X-NEW (a (b)(c)) BODY[HEADER.FIELDS (Subject)] {6}
		S- a\r\nb\r\n
		S:  BODY[1]<0> "xy" BODY[2] NIL)
		S: * 2 FETCH (BODY[] {0}
		S: )`
	c := client(t, Handler{}, "C: a1 UID FETCH 5:6 (UID FLAGS BODY.PEEK[])\n"+answer+"\nS: a1 OK\nC: a2 FETCH 1 (UID)\n"+answer+"\nS: a2 OK\nC: a3 FETCH 1 (BODY.PEEK[])\n"+answer+"\nS: a3 OK\nC: a4 NOOP\nS: a4 OK")
	var all []*imap.FetchData
	for m, err := range c.Fetch(ctx, imap.UIDs(imap.NumSet{{First: 5, Last: 6}}), imap.FetchOptions{Flags: true, Sections: []imap.Section{{Peek: true}}}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Noop(ctx); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		all = append(all, m)
	}
	if len(all) != 2 {
		t.Fatal(len(all))
	}
	m := all[0]
	if m.UID != 5 || m.Size != 44 || !m.InternalDate.Equal(time.Date(2024, 2, 1, 9, 0, 0, 0, time.UTC)) || len(m.Sections) != 3 {
		t.Fatalf("%+v", m)
	}
	if s := m.Sections; string(s[0].Data) != "a\r\nb\r\n" || string(s[1].Data) != "xy" || s[1].Partial == nil || !s[2].Nil {
		t.Errorf("%+v", s)
	}
	// A loop that ends early leaves the connection in step.
	for range c.Fetch(ctx, imap.Seqs(imap.NumSetOf(1)), imap.FetchOptions{UID: true}) {
		break
	}
	// Bodies streamed, one of them left unread.
	var bodies []string
	boom := errors.New("boom")
	err := c.FetchBodies(ctx, imap.Seqs(imap.NumSetOf(1)), imap.FetchOptions{Sections: []imap.Section{{Peek: true}}}, func(m *imap.FetchData, s *imap.Section, r io.Reader) error {
		if len(bodies) == 0 {
			bodies = append(bodies, "unread")
			return nil
		}
		b, _ := io.ReadAll(r)
		bodies = append(bodies, fmt.Sprint(m.Seq, " ", m.UID, " ", s.String(), " ", string(b)))
		return boom
	})
	if !errors.Is(err, boom) || len(bodies) != 2 || bodies[1] != "1 5 BODY[1]<0> xy" {
		t.Error(err, bodies)
	}
	if err := c.Noop(ctx); err != nil {
		t.Error(err)
	}
}

func TestStructure(t *testing.T) {
	const env = `("Thu, 1 Feb 2024 10:00:00 +0000" "s" (("A" NIL "a" "x.y")) NIL NIL ((NIL NIL "g" NIL)(NIL NIL "b" "x.y")(NIL NIL NIL NIL)) NIL NIL NIL "<id>")`
	c := client(t, Handler{}, "C: a1 FETCH 1 (ENVELOPE BODYSTRUCTURE)\n"+
		`S: * 1 FETCH (ENVELOPE `+env+` BODYSTRUCTURE (("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7BIT" 12 1 NIL ("INLINE" NIL) ("en" "de") NIL)`+
		`("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 99 `+env+` ("TEXT" "HTML" NIL NIL NIL "8BIT" 3 1) 5)("IMAGE" "PNG" ("NAME" "a.png") "<c>" NIL "BASE64" 1000 NIL ("ATTACHMENT" ("FILENAME" "a.png")) NIL NIL (x y) 7) "MIXED" ("BOUNDARY" "b") NIL NIL))`+
		"\nS: a1 OK")
	for m, err := range c.Fetch(t.Context(), imap.Seqs(imap.NumSetOf(1)), imap.FetchOptions{Envelope: true, BodyStructure: true}) {
		if err != nil {
			t.Fatal(err)
		}
		e := m.Envelope
		if e.Subject != "s" || e.MessageID != "<id>" || len(e.From) != 1 || e.From[0] != (imap.Address{Name: "A", Mailbox: "a", Host: "x.y"}) || len(e.To) != 3 {
			t.Errorf("%+v", e)
		}
		var parts []string
		m.BodyStructure.Walk(func(part []int, b *imap.BodyStructure) bool {
			parts = append(parts, fmt.Sprint(part, b.Type, "/", b.Subtype, " ", b.Size))
			return true
		})
		if got := strings.Join(parts, ", "); !strings.Contains(got, "image/png 1000") || !strings.HasPrefix(got, "[]multipart/mixed 0, [1]text/plain 12, [2]message/rfc822 99") {
			t.Error(got)
		}
		b := m.BodyStructure
		if !b.Extended || b.Params["boundary"] != "b" || b.Parts[0].Disposition != "inline" || len(b.Parts[0].Language) != 2 ||
			b.Parts[1].Message.Subtype != "html" || b.Parts[2].DispositionParams["filename"] != "a.png" {
			t.Errorf("%+v", b)
		}
	}
}

func TestCommands(t *testing.T) {
	ctx := t.Context()
	c := client(t, Handler{}, `C: a1 LIST (SUBSCRIBED) "" "*" RETURN (CHILDREN STATUS (MESSAGES))
		S: * LIST (\Subscribed) "/" INBOX ("CHILDINFO" ("SUBSCRIBED"))
		S: * STATUS INBOX (MESSAGES 3)
		S: * LIST () NIL "a b"
		S: a1 OK
		C: a2 STATUS INBOX (UIDNEXT)
		S: * STATUS INBOX (UIDNEXT 9)
		S: a2 OK
		C: a3 UID SEARCH CHARSET UTF-8 UNSEEN SINCE 1-Feb-2024 HEADER Subject {3}
		S: + ok
		C:  ü NOT (LARGER 5) OR (ALL) (KEYWORD kw)
		S: * SEARCH 1 2 3 7
		S: a3 OK
		C: a4 SEARCH RETURN (MIN COUNT) ALL
		S: * ESEARCH (TAG "a4") MIN 2 COUNT 4 ALL 2:5
		S: a4 OK
		C: a5 STORE 1:2 +FLAGS.SILENT (\Seen kw)
		S: * 1 FETCH (FLAGS (\Seen kw))
		S: a5 OK
		C: a6 UID COPY 1:2 x
		S: a6 OK [COPYUID 7 1:2 5:6] done
		C: a7 MOVE 1 x
		S: * OK [COPYUID 7 1 9] moved
		S: * 1 EXPUNGE
		S: a7 OK
		C: a8 UID EXPUNGE 4
		S: * 4 EXPUNGE
		S: a8 OK
		C: a9 CREATE Sent (USE (\Sent))
		S: a9 OK
		C: a10 ENABLE IMAP4rev2
		S: * ENABLED IMAP4rev2
		S: a10 OK
		C: a11 DELETE "pä"
		S: a11 NO [HASCHILDREN] no`)
	l, err := c.List(ctx, "", "*", imap.ListOptions{SelectSubscribed: true, ReturnChildren: true, ReturnStatus: []imap.StatusItem{imap.StatusMessages}})
	if err != nil || len(l) != 2 || l[0].Status.Items[imap.StatusMessages] != 3 || !l[0].Has(imap.AttrSubscribed) || l[1].Delim != 0 || l[1].Mailbox != "a b" {
		t.Fatal(l, err)
	}
	st, err := c.Status(ctx, "INBOX", imap.StatusUIDNext)
	if err != nil || st.Items[imap.StatusUIDNext] != 9 {
		t.Fatal(st, err)
	}
	found, err := c.Search(ctx, true, &imap.SearchCriteria{NotFlags: []imap.Flag{imap.FlagSeen}, Since: time.Date(2024, 2, 1, 0, 0, 0, 0, time.UTC),
		Header: []imap.SearchHeader{{Name: "Subject", Value: " ü"}}, Not: []imap.SearchCriteria{{Larger: 5}}, Or: [][2]imap.SearchCriteria{{{}, {Flags: []imap.Flag{"kw"}}}}}, imap.SearchOptions{})
	if err != nil || found.All.String() != "1:3,7" {
		t.Fatal(found, err)
	}
	found, err = c.Search(ctx, false, &imap.SearchCriteria{}, imap.SearchOptions{ReturnMin: true, ReturnCount: true})
	if err != nil || found.Min != 2 || !found.HasCount || found.Count != 4 || found.All.Len() != 4 {
		t.Fatal(found, err)
	}
	told, err := c.Store(ctx, imap.Seqs(imap.NumSet{{First: 1, Last: 2}}), imap.StoreAdd, true, imap.FlagSeen, "kw")
	if err != nil || len(told) != 1 {
		t.Fatal(told, err)
	}
	cp, err := c.Copy(ctx, imap.UIDs(imap.NumSet{{First: 1, Last: 2}}), "x")
	if err != nil || cp.UIDValidity != 7 || cp.Dest.String() != "5:6" {
		t.Fatal(cp, err)
	}
	if cp, err = c.Move(ctx, imap.Seqs(imap.NumSetOf(1)), "x"); err != nil || cp.Dest.String() != "9" {
		t.Fatal(cp, err)
	}
	if seqs, err := c.Expunge(ctx, imap.NumSetOf(4)); err != nil || fmt.Sprint(seqs) != "[4]" {
		t.Fatal(seqs, err)
	}
	if err := c.Create(ctx, "Sent", imap.AttrSent); err != nil {
		t.Fatal(err)
	}
	if on, err := c.Enable(ctx, imap.CapIMAP4rev2); err != nil || len(on) != 1 {
		t.Fatal(on, err)
	}
	var e *imap.Error
	if err := c.Delete(ctx, "pä"); !errors.As(err, &e) || e.Code != imap.CodeHasChildren {
		t.Fatal(err)
	}
}

func TestAppend(t *testing.T) {
	ctx := t.Context()
	c := client(t, Handler{}, `C: a1 APPEND INBOX (\Seen) " 1-Feb-2024 10:00:00 +0000" {5}
		S: * 4 EXISTS
		S: + go
		C: hello
		S: a1 OK [APPENDUID 7 12] done
		C: a2 APPEND INBOX {5}
		S: a2 NO [TOOBIG] no
		C: a3 NOOP
		S: a3 OK
		C: a4 APPEND INBOX {5}
		S: + go`)
	a, err := c.Append(ctx, "INBOX", strings.NewReader("hello"), 5, AppendOptions{Flags: []imap.Flag{imap.FlagSeen}, Date: time.Date(2024, 2, 1, 10, 0, 0, 0, time.UTC)})
	if err != nil || a.UIDValidity != 7 || a.UIDs.String() != "12" {
		t.Fatal(a, err)
	}
	var e *imap.Error
	if _, err := c.Append(ctx, "INBOX", strings.NewReader("hello"), 5, AppendOptions{}); !errors.As(err, &e) || e.Code != imap.CodeTooBig {
		t.Fatal(err)
	}
	if err := c.Noop(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(ctx, "INBOX", strings.NewReader("hel"), 5, AppendOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if err := c.Noop(ctx); err == nil {
		t.Error("alive after half a literal")
	}
}

func TestIdle(t *testing.T) {
	var exists uint32
	c := client(t, Handler{Exists: func(n uint32) { exists = n }}, `C: a1 IDLE
		S: + idling
		S: * 9 EXISTS
		C: DONE
		S: a1 OK
		C: a2 IDLE
		S: + idling
		C: DONE
		S: * 10 EXISTS
		S: a2 OK
		C: a3 NOOP
		S: a3 OK
		C: a4 IDLE
		S: a4 NO not now`)
	if err := c.Idle(t.Context()); err != nil || exists != 9 {
		t.Fatal(err, exists)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := c.Idle(ctx); !errors.Is(err, context.DeadlineExceeded) || exists != 10 {
		t.Fatal(err, exists)
	}
	if err := c.Noop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var e *imap.Error
	if err := c.Idle(t.Context()); !errors.As(err, &e) {
		t.Fatal(err)
	}
}

// IDLE is renewed before the server logs out.
func TestIdleRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client(t, Handler{}, "C: a1 IDLE\nS: +\nC: DONE\nS: a1 OK\nC: a2 IDLE\nS: +\nC: DONE\nS: a2 OK\nC: a3 IDLE\nS: +\nC: DONE\nS: a3 OK")
		ctx, cancel := context.WithTimeout(t.Context(), 70*time.Minute)
		defer cancel()
		start := time.Now()
		if err := c.Idle(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 70*time.Minute {
			t.Error(err, time.Since(start))
		}
	})
}

// What a server may send to break a client: each is an error, soon, and
// within the limits.
func TestHostileServer(t *testing.T) {
	ctx := t.Context()
	fetch := func(c *Client) error {
		for _, err := range c.Fetch(ctx, imap.Seqs(imap.NumSetOf(1)), imap.FetchOptions{UID: true}) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	noop := func(c *Client) error { return c.Noop(ctx) }
	const asked = "C: a1 FETCH 1 (UID)\n"
	for name, c := range map[string]struct {
		lines string
		do    func(c *Client) error
		want  error
	}{
		"garbage":             {"C: a1 NOOP\nS: ???", noop, ErrProtocol},
		"wrong tag":           {"C: a1 NOOP\nS: a2 OK", noop, ErrProtocol},
		"tagged PREAUTH":      {"C: a1 NOOP\nS: a1 PREAUTH", noop, ErrProtocol},
		"unasked continue":    {"C: a1 NOOP\nS: + go", noop, ErrProtocol},
		"long line":           {"C: a1 NOOP\nS: * OK " + strings.Repeat("x", 5000), noop, ErrProtocol},
		"big literal":         {asked + "S: * 1 FETCH (BODY[] {999999999999}", fetch, ErrProtocol},
		"literals in sum":     {asked + "S: * 1 FETCH (BODY[1] {600}\nS- " + strings.Repeat("x", 600) + "\nS: BODY[2] {600}", fetch, ErrProtocol},
		"announced only":      {asked + "S: * 1 FETCH (BODY[] {900}\nS- x", fetch, io.ErrUnexpectedEOF},
		"deep structure":      {asked + "S: * 1 FETCH (BODYSTRUCTURE " + strings.Repeat("(", 1500), fetch, ErrProtocol},
		"deep unknown":        {"C: a1 NOOP\nS: * X " + strings.Repeat("(", 1500), noop, ErrProtocol},
		"unclosed list":       {asked + "S: * 1 FETCH (UID 1", fetch, ErrProtocol},
		"number out of range": {asked + "S: * 1 FETCH (UID 99999999999)", fetch, ErrProtocol},
		"bad envelope":        {asked + "S: * 1 FETCH (ENVELOPE (NIL))", fetch, ErrProtocol},
		"cut":                 {"C: a1 NOOP\nS- * OK", noop, io.ErrUnexpectedEOF},
		"gone":                {"C: a1 NOOP", noop, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			cl := client(t, Handler{}, c.lines)
			if err := c.do(cl); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if err := cl.Noop(ctx); err == nil {
				t.Error("alive after that")
			}
		})
	}
	var e *imap.Error
	if err := noop(client(t, Handler{}, "C: a1 NOOP\nS: * BYE [UNAVAILABLE] later")); !errors.As(err, &e) || e.Type != imap.BYE || e.Code != imap.CodeUnavailable {
		t.Error(err)
	}
	if _, err := (&Dialer{Security: Plain}).Client(ctx, script(t, "S: * BYE full"), ""); !errors.As(err, &e) || e.Type != imap.BYE {
		t.Error(err)
	}
}

func TestHangingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl, srv := net.Pipe()
		defer srv.Close()
		start := time.Now()
		_, err := (&Dialer{Security: Plain}).Client(t.Context(), cl, "localhost")
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
			t.Error(err, time.Since(start))
		}
		cl, srv2 := net.Pipe()
		defer srv2.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = (&Dialer{Security: ImplicitTLS}).Client(ctx, cl, "localhost")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestStartTLS(t *testing.T) {
	ctx := t.Context()
	if _, err := new(Dialer).Client(ctx, script(t, "S: * OK\nC: a1 STARTTLS\nS: a1 BAD what?"), ""); !errors.Is(err, ErrNoTLS) {
		t.Error(err)
	}
	if _, err := new(Dialer).Client(ctx, script(t, "S: * PREAUTH"), ""); !errors.Is(err, ErrNoTLS) {
		t.Error(err)
	}
	if _, err := new(Dialer).Client(ctx, script(t, "S: * OK\nC: a1 STARTTLS\nS- a1 OK\\r\\n* OK injected\\r\\n"), ""); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

// FuzzClient has a server say anything.
func FuzzClient(f *testing.F) {
	f.Add([]byte("* OK [CAPABILITY IMAP4rev1] x\r\n* 3 EXISTS\r\n* FLAGS (\\Seen)\r\n* OK [UIDNEXT 3] x\r\na1 OK\r\n" +
		"* LIST () \"/\" x\r\na2 OK\r\n* SEARCH 1 2\r\n* ESEARCH (TAG \"a3\") ALL 1:2\r\na3 OK\r\n" +
		"* 1 FETCH (UID 1 FLAGS () BODY[] {3}\r\nabc ENVELOPE (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) BODYSTRUCTURE (\"text\" \"plain\" NIL NIL NIL \"7bit\" 1 1))\r\na4 OK\r\n+ go\r\na5 OK [APPENDUID 1 2]\r\n+ idle\r\n* 4 EXISTS\r\na6 OK\r\n"))
	f.Add([]byte("* PREAUTH\r\n* STATUS x (MESSAGES 1)\r\n* X {3}\r\nabc\r\na1 NO [X y] z\r\na2 OK\r\n* BYE\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		ctx := t.Context()
		d := &Dialer{Security: Plain, MaxLiteral: 1 << 16, MaxLine: 1 << 16}
		c, err := d.Client(ctx, saysConn{strings.NewReader(string(in))}, "")
		if err != nil {
			return
		}
		defer c.Close()
		c.Select(ctx, "x")
		c.List(ctx, "", "*", imap.ListOptions{})
		c.Search(ctx, true, &imap.SearchCriteria{}, imap.SearchOptions{})
		for m, err := range c.Fetch(ctx, imap.Seqs(imap.NumSetOf(1)), imap.FetchAll()) {
			if (m == nil) == (err == nil) {
				t.Fatal(m, err)
			}
		}
		c.Append(ctx, "x", strings.NewReader("hello"), 5, AppendOptions{})
		c.Idle(ctx)
		c.Logout(ctx)
		if err := c.Noop(ctx); err == nil {
			t.Error("alive after Logout")
		}
	})
}

// saysConn is a peer that says what it has to say, whatever it is told.
type saysConn struct{ io.Reader }

func (saysConn) Write(p []byte) (int, error)      { return len(p), nil }
func (saysConn) Close() error                     { return nil }
func (saysConn) LocalAddr() net.Addr              { return nil }
func (saysConn) RemoteAddr() net.Addr             { return nil }
func (saysConn) SetDeadline(time.Time) error      { return nil }
func (saysConn) SetReadDeadline(time.Time) error  { return nil }
func (saysConn) SetWriteDeadline(time.Time) error { return nil }
