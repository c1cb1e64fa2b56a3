package imapserver_test

import (
	"strings"
	"testing"
)

const nested = `From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>, "Quoted, Name" <q@example.org>
To: Group: a@example.org, b@example.org;, c@example.org
Cc: undisclosed:;
Subject: =?utf-8?b?R3LDvMOfZQ==?=
Date: Tue, 2 Jan 2024 10:00:00 +0000
Message-ID: <2@example.org>
In-Reply-To: <1@example.org>
X-Spam: no
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b1"
Content-Language: de, en

preamble
--b1
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable
Content-Disposition: inline

Sch=C3=B6ne Gr=C3=BC=C3=9Fe
--b1
Content-Type: message/rfc822

From: inner@example.org
Subject: inner
Content-Type: multipart/alternative; boundary="b2"

--b2
Content-Type: text/html

<p>inner text</p>
--b2--

--b1
Content-Type: application/octet-stream; name="x.bin"
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="x.bin"; size=3
Content-ID: <cid@x>
Content-MD5: abc
Content-Location: http://x/

AAEC
--b1
Content-Type: text/plain
Content-Transfer-Encoding: x-odd

odd
--b1--
`

func TestFetchCheap(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 1, simple, simple, simple)
	c := start(t, serve(t, srv))
	c.transact("EXAMINE INBOX", "OK", "**", "**", "**", "**", "**", "**")
	size := " RFC822.SIZE 145"
	c.transact("FETCH 1:2 (FLAGS UID RFC822.SIZE)", "OK", `* 1 FETCH (UID 1 FLAGS (\Seen \Recent)`+size+")", `* 2 FETCH (UID 2 FLAGS (\Seen \Recent)`+size+")")
	c.transact("FETCH * UID", "OK", `* 3 FETCH (UID 3)`)
	c.transact("FETCH 3:2,* UID", "OK", `* 2 FETCH (UID 2)`, `* 3 FETCH (UID 3)`)
	c.transact("FETCH 4 UID", "BAD")
	c.transact("FETCH 0 UID", "BAD")
	c.transact("FETCH 1 ()", "BAD")
	c.transact("FETCH 1 (UID", "BAD")
	c.transact("FETCH 1 FROB", "BAD")
	c.transact("FETCH 1 (FAST)", "BAD")
	c.transact("FETCH 1", "BAD")
	c.transact("UID FETCH 4:* FLAGS", "OK", `* 3 FETCH (UID 3 FLAGS (\Seen \Recent))`)
	c.transact("UID FETCH 7 FLAGS", "OK")
	c.transact("FETCH 1 FAST", "OK", `* 1 FETCH (FLAGS (\Seen \Recent)`+size+` INTERNALDATE " 6-May-2024 07:08:09 +0000")`)
	c.transact("FETCH 1 ALL", "OK", `* 1 FETCH (FLAGS (\Seen \Recent)`+size+` INTERNALDATE " 6-May-2024 07:08:09 +0000" ENVELOPE ("Mon, 1 Jan 2024 12:00:00 +0100" "Hello" (("Ann" NIL "ann" "example.org")) (("Ann" NIL "ann" "example.org")) (("Ann" NIL "ann" "example.org")) ((NIL NIL "bob" "example.org")) NIL NIL NIL "<1@example.org>"))`)
	c.transact("FETCH 1 FULL", "OK", `* 1 FETCH (** BODY ("text" "plain" NIL NIL NIL "7bit" 10 1))`)
}

func TestFetchStructure(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, nested)
	c := start(t, serve(t, srv))
	c.ok("SELECT INBOX")
	c.transact("FETCH 1 ENVELOPE", "OK", `* 1 FETCH (ENVELOPE ("Tue, 2 Jan 2024 10:00:00 +0000" "=?utf-8?b?R3LDvMOfZQ==?=" (("=?utf-8?q?J=C3=BCrgen?=" NIL "j" "example.org")("Quoted, Name" NIL "q" "example.org")) ** ((NIL NIL "Group" NIL)(NIL NIL "a" "example.org")(NIL NIL "b" "example.org")(NIL NIL NIL NIL)(NIL NIL "c" "example.org")) ((NIL NIL "undisclosed" NIL)(NIL NIL NIL NIL)) NIL "<1@example.org>" "<2@example.org>"))`)
	inner := `("message" "rfc822" NIL NIL NIL "7bit" ** (NIL "inner" ((NIL NIL "inner" "example.org")) ** NIL NIL NIL NIL NIL) (("text" "html" NIL NIL NIL "7bit" 17 0`
	c.transact("FETCH 1 BODY", "OK", `* 1 FETCH (BODY (("text" "plain" ("charset" "utf-8") NIL NIL "quoted-printable" 27 0)`+inner+`) "alternative") 9)("application" "octet-stream" ("name" "x.bin") "<cid@x>" NIL "base64" 4)("application" "octet-stream" NIL NIL NIL "x-odd" 3) "mixed"))`)
	c.transact("FETCH 1 BODYSTRUCTURE", "OK", `* 1 FETCH (BODYSTRUCTURE (("text" "plain" ("charset" "utf-8") NIL NIL "quoted-printable" 27 0 NIL ("inline" NIL) NIL NIL)`+inner+` NIL NIL NIL NIL) "alternative" ("boundary" "b2") NIL NIL NIL) 9 NIL NIL NIL NIL)("application" "octet-stream" ("name" "x.bin") "<cid@x>" NIL "base64" 4 "abc" ("attachment" ("filename" "x.bin" "size" "3")) NIL "http://x/")("application" "octet-stream" NIL NIL NIL "x-odd" 3 NIL NIL NIL NIL) "mixed" ("boundary" "b1") NIL ("de" "en") NIL))`)
}

func TestFetchSections(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 1, nested)
	c := start(t, serve(t, srv))
	c.ok("SELECT INBOX")
	whole := strings.ReplaceAll(nested, "\n", "\r\n")
	head, text, _ := strings.Cut(whole, "\r\n\r\n")
	head += "\r\n\r\n"
	inner := whole[strings.Index(whole, "From: inner"):strings.Index(whole, "\r\n--b1\r\nContent-Type: application")]
	innerHead, innerText, _ := strings.Cut(inner, "\r\n\r\n")
	for item, want := range map[string]string{
		"BODY.PEEK[]":                                 whole,
		"BODY.PEEK[HEADER]":                           head,
		"BODY.PEEK[TEXT]":                             text,
		"BODY.PEEK[]<3.10>":                           whole[3:13],
		"BODY.PEEK[]<100000.10>":                      "",
		"BODY.PEEK[HEADER]<0.5>":                      "From:",
		"BODY.PEEK[HEADER.FIELDS (Subject X-none)]":   "Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\r\n",
		"BODY.PEEK[HEADER.FIELDS (X-Spam)]":           "X-Spam: no\r\n\r\n",
		"BODY.PEEK[HEADER.FIELDS (X-Spam DATE)]<2.4>": "te: ",
		"BODY.PEEK[HEADER.FIELDS.NOT (from to cc subject date message-id in-reply-to mime-version content-type)]": "X-Spam: no\r\nContent-Language: de, en\r\n\r\n",
		"BODY.PEEK[1]":                      "Sch=C3=B6ne Gr=C3=BC=C3=9Fe",
		"BODY.PEEK[1.MIME]":                 "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Disposition: inline\r\n\r\n",
		"BODY.PEEK[2]":                      inner,
		"BODY.PEEK[2.HEADER]":               innerHead + "\r\n\r\n",
		"BODY.PEEK[2.TEXT]":                 innerText,
		"BODY.PEEK[2.1]":                    "<p>inner text</p>",
		"BODY.PEEK[2.1.MIME]":               "Content-Type: text/html\r\n\r\n",
		"BODY.PEEK[2.HEADER.FIELDS (FROM)]": "From: inner@example.org\r\n\r\n",
		"BINARY.PEEK[1]":                    "Schöne Grüße",
		"BINARY.PEEK[1]<4.4>":               "\xb6ne ",
		"BINARY.PEEK[2]":                    inner,
		"BODY[]":                            whole,
		"RFC822":                            whole,
		"RFC822.HEADER":                     head,
		"RFC822.TEXT":                       text,
	} {
		name := strings.ReplaceAll(item, ".PEEK", "")
		if i := strings.Index(name, "<"); i >= 0 {
			name = name[:strings.LastIndexByte(name, '.')] + ">"
		}
		un, tag := c.cmd("FETCH 1 (" + item + ")")
		if !strings.HasPrefix(tag, "OK") || len(un) != 1 {
			t.Errorf("%s: %q %s", item, un, tag)
			continue
		}
		_, got, _ := strings.Cut(un[0], "}\r\n")
		got = strings.TrimSuffix(got, ")")
		if !strings.HasPrefix(un[0], "* 1 FETCH ("+name+" {") || got != want {
			t.Errorf("%s: got %q, want %q", item, un[0], want)
		}
	}
	c.transact("FETCH 1 BINARY.PEEK[3]", "OK", "* 1 FETCH (BINARY[3] ~{3}\r\n\x00\x01\x02)")
	c.transact("FETCH 1 (BINARY.SIZE[1] BINARY.SIZE[3])", "OK", "* 1 FETCH (BINARY.SIZE[1] 15 BINARY.SIZE[3] 3)")
	c.transact("FETCH 1 BINARY[4]", "NO [UNKNOWN-CTE]")
	c.transact("FETCH 1 BINARY.SIZE[4]", "NO [UNKNOWN-CTE]")
	c.transact("FETCH 1 (BODY.PEEK[9] BODY.PEEK[1.1] BODY.PEEK[1.HEADER])", "OK", "* 1 FETCH (BODY[9] NIL BODY[1.1] NIL BODY[1.HEADER] NIL)")
	c.transact("FETCH 1 BODY.PEEK[1.2", "BAD")
	c.transact("FETCH 1 BODY.PEEK[FOO]", "BAD")
}

// BINARY decodes uuencode too, which RFC 3516 §4.3 leaves to the server.
func TestFetchBinaryUUEncode(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 1, "Subject: x\nContent-Type: application/x\nContent-Transfer-Encoding: x-uuencode\n\nbegin 644 cat.txt\n#0V%T\n`\nend\n")
	c := start(t, serve(t, srv))
	c.ok("SELECT INBOX")
	c.transact("FETCH 1 (BINARY.SIZE[1] BINARY.PEEK[1])", "OK", "* 1 FETCH (BINARY[1] {3}\r\nCat BINARY.SIZE[1] 3)")
}

func TestFetchSetsSeen(t *testing.T) {
	srv, st := newServer(t)
	add(t, st, "INBOX", 0, simple, simple, simple)
	addr := serve(t, srv)
	c := start(t, addr)
	c.ok("EXAMINE INBOX")
	c.transact("FETCH 1 BODY[TEXT]", "OK", "* 1 FETCH (BODY[TEXT] {10}\r\nHi there\r\n)")
	c.transact("FETCH 1 FLAGS", "OK", `* 1 FETCH (FLAGS (\Recent))`)
	c.ok("SELECT INBOX")
	c.transact("FETCH 1 BODY.PEEK[TEXT]", "OK", "* 1 FETCH (BODY[TEXT] {10}\r\nHi there\r\n)")
	c.transact("FETCH 1:2 BODY[TEXT]", "OK", "* 1 FETCH (FLAGS (\\Seen \\Recent) BODY[TEXT] {10}\r\nHi there\r\n)", "* 2 FETCH (FLAGS (\\Seen \\Recent) BODY[TEXT] {10}\r\nHi there\r\n)")
	c.transact("FETCH 1 RFC822.TEXT", "OK", "* 1 FETCH (RFC822.TEXT {10}\r\nHi there\r\n)")
	c.transact("FETCH 3 RFC822.HEADER", "OK", "* 3 FETCH (RFC822.HEADER {**")
	c.transact("SEARCH UNSEEN", "OK", "* SEARCH 3")
	c.transact("FETCH 1:3 FLAGS", "OK", "* 1 FETCH (FLAGS (\\Seen \\Recent))", "* 2 FETCH (FLAGS (\\Seen \\Recent))", "* 3 FETCH (FLAGS (\\Recent))")
}
