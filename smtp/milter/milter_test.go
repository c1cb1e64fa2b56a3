package milter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// TestConversation: what a filter hears of one message and the next.
func TestConversation(t *testing.T) {
	f := &filter{}
	m := &Client{DialContext: f.dial, Macros: map[string]string{"{extra}": "yes"}}
	got := talk(t, m, false, whole+"MAIL FROM:<>\r\nRSET\r\n")
	want := `C [192.0.2.1]|4` + "\x12\x67" + `192.0.2.1
H x.test
M <a@b.test>|SIZE=100|BODY=8BITMIME
R <c@d.test>
R <e@f.test>
T 
L Subject|One
	and two
L X-A|1
L x-a|2
N 
B Body
.dot

E 
M <>
A 
Q `
	if c := strings.ReplaceAll(f.commands(false), "\r\n", "\n"); c != want {
		t.Errorf("%q\nwant\n%q", c, want)
	}
	macros := f.commands(true)
	for _, s := range []string{"D Cj|mx.test|v|Postrider|{daemon_name}|mx.test|_|[192.0.2.1]|{client_name}|[192.0.2.1]|{client_addr}|192.0.2.1|{client_port}|4711|{extra}|yes",
		"|{mail_addr}|a@b.test|{mail_host}|b.test|{extra}|yes", "D R{rcpt_addr}|c@d.test|{rcpt_host}|d.test"} {
		if !strings.Contains(macros, s) {
			t.Errorf("no %q in %q", s, macros)
		}
	}
	if got.data != text || !strings.Contains(got.replies, "250 2.0.0 queued") || f.open != 0 {
		t.Errorf("%+v, %d open", got, f.open)
	}
	if b := strings.Join(got.backend, ","); b != "mail a@b.test,rcpt c@d.test,rcpt e@f.test,data,reset,mail ,reset,close" {
		t.Error(b)
	}
}

func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers map[byte]string
		reply   string
		data    bool
	}{
		{"accept at connect", map[byte]string{cmdConnect: "a", cmdMail: "r"}, "250 2.0.0 queued", true},
		{"reject at connect", map[byte]string{cmdConnect: "r"}, "550 5.7.1 Rejected by a mail filter", false},
		{"tempfail at hello", map[byte]string{cmdHello: "t"}, "451 4.7.1 Service unavailable, try again later", false},
		{"mail", map[byte]string{cmdMail: "y550 5.7.9 not you\x00"}, "550 5.7.9 not you", false},
		{"mail shutdown", map[byte]string{cmdMail: "4"}, "421 4.7.1 Service", false},
		{"rcpt", map[byte]string{cmdRcpt: "y450 later 100%%\x00"}, "450 4.0.0 later 100%", false},
		{"data", map[byte]string{cmdData: "r"}, "550 5.7.1 Rejected", false},
		{"header", map[byte]string{cmdHeader: "y554 5.6.0 bad header\x00"}, "554 5.6.0 bad header", false},
		{"end of header", map[byte]string{cmdHeaderEnd: "t"}, "451 4.7.1", false},
		{"body", map[byte]string{cmdBody: "y550-5.7.1 one\r\n550 5.7.1 two\x00"}, "550-5.7.1 one\r\n550 5.7.1 two\r\n", false},
		{"end", map[byte]string{cmdEnd: "p|p|r"}, "550 5.7.1", false},
		{"discard", map[byte]string{cmdEnd: "d"}, "250 2.0.0 OK", false},
		{"discard at rcpt", map[byte]string{cmdRcpt: "d"}, "250 2.0.0 OK", false},
		{"accept at rcpt", map[byte]string{cmdRcpt: "a", cmdEnd: "r"}, "250 2.0.0 queued", true},
		{"accept in header", map[byte]string{cmdHeader: "a", cmdEnd: "r"}, "250 2.0.0 queued", true},
		{"skip body", map[byte]string{cmdBody: "s"}, "250 2.0.0 queued", true},
	} {
		f := &filter{answers: tt.answers}
		got := talk(t, &Client{DialContext: f.dial}, false, whole)
		if !strings.Contains(got.replies, tt.reply) || (got.data == text) != tt.data || (got.data != "") != tt.data {
			t.Errorf("%s: %q, data %q", tt.name, got.replies, got.data)
		}
	}
}

// TestOneRecipientRefused: the backend, which had accepted it, does not keep it.
func TestOneRecipientRefused(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		f := &filter{answers: map[byte]string{}}
		var n int
		m := &Client{DialContext: func(ctx context.Context, a, b string) (net.Conn, error) {
			nc, err := f.dial(ctx, a, b)
			return rejectSecond{nc, &n}, err
		}}
		in := whole
		if lmtp {
			in = strings.Replace(in, "EHLO", "LHLO", 1)
		}
		got := talk(t, m, lmtp, in)
		want := "mail a@b.test,rcpt c@d.test,rcpt e@f.test,reset,mail a@b.test,rcpt c@d.test,data,reset,close"
		if b := strings.Join(got.backend, ","); b != want || got.data != text {
			t.Errorf("%s\n%q", b, got.replies)
		}
	}
}

// rejectSecond turns the answer to the second RCPT into a rejection.
type rejectSecond struct {
	net.Conn
	n *int
}

func (c rejectSecond) Write(p []byte) (int, error) {
	*c.n += strings.Count(string(p), "R<")
	return c.Conn.Write(p)
}

func (c rejectSecond) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if *c.n == 2 && n > 0 && p[n-1] == 'c' {
		p[n-1], *c.n = 'r', 3
	}
	return n, err
}

func u32(n byte) string { return "\x00\x00\x00" + string(rune(n)) }

func TestChanges(t *testing.T) {
	for _, tt := range []struct {
		name, changes, data string
		backend             string
	}{
		{"add", "hX-New\x00value\x00", "Subject: One\r\n\tand two\r\nX-A: 1\r\nx-a: 2\r\nX-New: value\r\n\r\nBody\r\n.dot\r\n", ""},
		{"insert", "i" + u32(0) + "X-New\x00a\n b\nc\r\nd\n\ne\x00", "X-New: a\r\n b\r\n\tc\r\n\td\r\n\te\r\nSubject: One\r\n\tand two\r\nX-A: 1\r\nx-a: 2\r\n\r\nBody\r\n.dot\r\n", ""},
		{"insert far", "i" + u32(99) + "X-New\x00a\x00", "Subject: One\r\n\tand two\r\nX-A: 1\r\nx-a: 2\r\nX-New: a\r\n\r\nBody\r\n.dot\r\n", ""},
		{"change", "m" + u32(2) + "X-A\x00new\x00|m" + u32(1) + "SUBJECT\x00other\x00", "SUBJECT: other\r\nX-A: 1\r\nX-A: new\r\n\r\nBody\r\n.dot\r\n", ""},
		{"remove", "m" + u32(1) + "X-A\x00\x00|m" + u32(5) + "X-A\x00\x00|m" + u32(1) + "No\x00\x00", "Subject: One\r\n\tand two\r\nx-a: 2\r\n\r\nBody\r\n.dot\r\n", ""},
		{"change what is not there", "m" + u32(1) + "X-B\x003\x00", "Subject: One\r\n\tand two\r\nX-A: 1\r\nx-a: 2\r\nX-B: 3\r\n\r\nBody\r\n.dot\r\n", ""},
		{"body", "bnew|b body\r\n", "Subject: One\r\n\tand two\r\nX-A: 1\r\nx-a: 2\r\n\r\nnew body\r\n", ""},
		{"empty body", "b", "Subject: One\r\n\tand two\r\nX-A: 1\r\nx-a: 2\r\n\r\n", ""},
		{"body and header", "bnew\r\n|hX\x00y\x00", "Subject: One\r\n\tand two\r\nX-A: 1\r\nx-a: 2\r\nX: y\r\n\r\nnew\r\n", ""},
		{"from", "e<new@b.test>\x00", text, "mail a@b.test,rcpt c@d.test,rcpt e@f.test,reset,mail new@b.test,rcpt c@d.test,rcpt e@f.test,data,reset,close"},
		{"from nobody", "e<>\x00SIZE=1\x00", text, "mail a@b.test,rcpt c@d.test,rcpt e@f.test,reset,mail ,rcpt c@d.test,rcpt e@f.test,data,reset,close"},
		{"add recipient", "+<g@h.test>\x00|2<i@j.test>\x00NOTIFY=NEVER\x00|+<c@d.test>\x00", text,
			"mail a@b.test,rcpt c@d.test,rcpt e@f.test,reset,mail a@b.test,rcpt c@d.test,rcpt e@f.test,rcpt g@h.test,rcpt i@j.test,data,reset,close"},
		{"remove recipient", "-<C@D.test>\x00", text, "mail a@b.test,rcpt c@d.test,rcpt e@f.test,reset,mail a@b.test,rcpt e@f.test,data,reset,close"},
		{"remove all", "-<c@d.test>\x00|-e@f.test\x00", "", "mail a@b.test,rcpt c@d.test,rcpt e@f.test,reset,close"},
	} {
		f := &filter{answers: map[byte]string{cmdEnd: tt.changes + "|c"}}
		got := talk(t, &Client{DialContext: f.dial}, false, whole)
		if got.data != tt.data || !strings.Contains(got.replies, "\r\n250 2.0.0 ") {
			t.Errorf("%s: data %q\n%q", tt.name, got.data, got.replies)
		}
		if b := strings.Join(got.backend, ","); tt.backend != "" && b != tt.backend {
			t.Errorf("%s: %s", tt.name, b)
		}
	}
}

// TestLMTPResults: an answer for each recipient that the peer named, whatever
// the filter made of the envelope.
func TestLMTPResults(t *testing.T) {
	in := strings.Replace(whole, "EHLO", "LHLO", 1)
	for changes, want := range map[string]string{
		"c":                   "250 2.0.0 for 0\r\n250 2.0.0 for 1\r\n",
		"-<c@d.test>\x00|c":   "250 2.0.0 OK\r\n250 2.0.0 for 0\r\n",
		"+<new@d.test>\x00|c": "250 2.0.0 for 0\r\n250 2.0.0 for 1\r\n",
		"r":                   "550 5.7.1 Rejected by a mail filter\r\n550 5.7.1 Rejected by a mail filter\r\n",
		"d":                   "250 2.0.0 OK\r\n250 2.0.0 OK\r\n",
	} {
		f := &filter{answers: map[byte]string{cmdEnd: changes}}
		got := talk(t, &Client{DialContext: f.dial}, true, in)
		if !strings.Contains(got.replies, "354 End data with <CR><LF>.<CR><LF>\r\n"+want+"221 ") {
			t.Errorf("%q: %q", changes, got.replies)
		}
	}
}

func TestNegotiated(t *testing.T) {
	const all = 0x1ff &^ actQuarantine &^ 0x100
	f := &filter{negotiation: negotiation(6, all, noConnect|noHello|noMail|noRcpt|noData|noHeaders|noHeaderEnd|noBody), answers: map[byte]string{cmdEnd: "hX\x00y\x00|a"}}
	if got := talk(t, &Client{DialContext: f.dial}, false, whole); f.commands(false) != "E \nQ " || !strings.Contains(got.data, "\r\nX: y\r\n\r\n") {
		t.Errorf("%q, %+v", f.commands(false), got)
	}
	f = &filter{negotiation: negotiation(6, all, nrHeader|nrBody|leadingSpace), answers: map[byte]string{cmdEnd: "hX\x00\ty\x00|a"}}
	if got := talk(t, &Client{DialContext: f.dial}, false, whole); !strings.Contains(f.commands(false), "L Subject| One\n\tand two\n") || !strings.Contains(got.data, "\r\nX:\ty\r\n\r\n") {
		t.Errorf("%q, %+v", f.commands(false), got)
	}
	f = &filter{negotiation: negotiation(2, 0x3f&^actQuarantine, 0)}
	if got := talk(t, &Client{DialContext: f.dial}, false, whole); strings.Contains(f.commands(false), "\nT ") || got.data != text {
		t.Errorf("version 2: %q, %+v", f.commands(false), got)
	}
}

func TestQuarantine(t *testing.T) {
	var reasons []string
	f := &filter{negotiation: negotiation(6, actQuarantine, 0), answers: map[byte]string{cmdEnd: "qvirus\x00|c"}}
	m := &Client{DialContext: f.dial, Quarantine: func(_ context.Context, c *smtpserver.Conn, reason string) error {
		reasons = append(reasons, reason)
		if len(reasons) > 1 {
			return smtp.Errorf(451, smtp.EnhancedCode{4, 3, 0}, "No room")
		}
		return nil
	}}
	if got := talk(t, m, false, whole); got.data != text {
		t.Errorf("%+v", got)
	}
	if got := talk(t, m, false, whole); got.data != "" || !strings.Contains(got.replies, "451 4.3.0 No room") || !slices.Equal(reasons, []string{"virus", "virus"}) {
		t.Errorf("%+v, %q", got, reasons)
	}
}

// TestTrouble: a filter that is away or breaks the protocol defers mail, or
// lets it pass unchanged.
func TestTrouble(t *testing.T) {
	away := &Client{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errAway }}
	many := strings.Repeat("hX\x00y\x00|", maxAdded+1) + "c"
	cases := map[string]*Client{"away": away}
	for name, f := range map[string]*filter{
		"old version":        {negotiation: negotiation(1, 0, 0)},
		"new version":        {negotiation: negotiation(7, 0, 0)},
		"short negotiation":  {negotiation: []byte("x")},
		"unoffered change":   {negotiation: negotiation(6, actQuarantine, 0), answers: map[byte]string{cmdEnd: "qvirus\x00|c"}},
		"unoffered step":     {negotiation: negotiation(6, 0, 1<<30)},
		"hangs up":           {answers: map[byte]string{cmdMail: ""}},
		"hangs up at rcpt":   {answers: map[byte]string{cmdRcpt: ""}},
		"hangs up at data":   {answers: map[byte]string{cmdData: ""}},
		"hangs up at end":    {answers: map[byte]string{cmdEnd: ""}},
		"nonsense":           {answers: map[byte]string{cmdMail: "Z"}},
		"change before end":  {answers: map[byte]string{cmdMail: "hX\x00y\x00"}},
		"bad reply":          {answers: map[byte]string{cmdMail: "y250 fine\x00"}},
		"short reply":        {answers: map[byte]string{cmdEnd: "y5\x00"}},
		"empty packet":       {answers: map[byte]string{cmdEnd: "|c"}},
		"bad field":          {answers: map[byte]string{cmdEnd: "hX: y\x00z\x00|c"}},
		"no field":           {answers: map[byte]string{cmdEnd: "h|c"}},
		"no index":           {answers: map[byte]string{cmdEnd: "m12|c"}},
		"bad recipient":      {answers: map[byte]string{cmdEnd: "+<a b>\x00|c"}},
		"null recipient":     {answers: map[byte]string{cmdEnd: "+<>\x00|c"}},
		"bad sender":         {answers: map[byte]string{cmdEnd: "hX\x00y\x00|-<c@d.test>\x00|e<new@b.test>\x00|e<a\r\n@b>\x00|c"}},
		"not negotiated":     {negotiation: negotiation(6, 0, 0), answers: map[byte]string{cmdEnd: "hX\x00y\x00|c"}},
		"too many changes":   {answers: map[byte]string{cmdEnd: many}},
		"skip at the end":    {answers: map[byte]string{cmdEnd: "s"}},
		"too large a body":   {answers: map[byte]string{cmdEnd: "b" + strings.Repeat("x", 600) + "|b" + strings.Repeat("x", 600) + "|c"}},
		"too large a packet": {answers: map[byte]string{cmdEnd: "b" + strings.Repeat("x", maxPacket) + "|c"}},
	} {
		cases[name] = &Client{DialContext: f.dial, MaxBody: 1000}
	}
	for name, m := range cases {
		got := talk(t, m, false, whole)
		if !strings.Contains(got.replies, "451 4.7.1 Service unavailable, try again later\r\n") || got.data != "" {
			t.Errorf("%s: %q", name, got.replies)
		}
		m.FailOpen = true
		if got := talk(t, m, false, whole); got.data != text || !strings.Contains(got.replies, "250 2.0.0 queued") ||
			strings.Contains(strings.Join(got.backend, ","), "new@") {
			t.Errorf("%s, open: %q %q", name, got.replies, got.backend)
		}
	}
	if err := away.Check(context.Background()); !errors.Is(err, errAway) {
		t.Errorf("Check: %v", err)
	}
	good := &filter{}
	if err := (&Client{DialContext: good.dial}).Check(context.Background()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// TestSilentFilter: a filter that does not answer costs Timeout, and at the
// end of a message EndTimeout.
func TestSilentFilter(t *testing.T) {
	for cmd, want := range map[byte]time.Duration{cmdMail: 30 * time.Second, cmdEnd: 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			silent := &silentAt{cmd: cmd}
			began := time.Now()
			got := talk(t, &Client{DialContext: silent.dial}, false, whole)
			if !strings.Contains(got.replies, "451 4.7.1 ") || time.Since(began) != want {
				t.Errorf("%q after %v, want %v", got.replies, time.Since(began), want)
			}
		})
	}
}

type silentAt struct{ cmd byte }

func (s *silentAt) dial(ctx context.Context, a, b string) (net.Conn, error) {
	f := &filter{}
	nc, err := f.dial(ctx, a, b)
	return &mute{Conn: nc, cmd: s.cmd}, err
}

// mute swallows the answer to one command.
type mute struct {
	net.Conn
	cmd  byte
	hush bool
}

func (m *mute) Write(p []byte) (int, error) {
	i := 0
	for i+5 <= len(p) {
		n := int(p[i])<<24 | int(p[i+1])<<16 | int(p[i+2])<<8 | int(p[i+3])
		if p[i+4] == m.cmd {
			m.hush = true
		}
		i += 4 + n
	}
	if m.hush {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

// TestClose: the server's Close does not wait for a filter.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := &silentAt{cmd: cmdMail}
		var res talkResult
		m := &Client{DialContext: silent.dial}
		s := &smtpserver.Server{Backend: smtpserver.Wrap(smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) {
			return inner{&res.backend, &res.data}, nil
		}), m.Wrap)}
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() { s.ServeConn(theirs); close(done) }()
		go io.Copy(io.Discard, ours)
		io.WriteString(ours, "EHLO x\r\nMAIL FROM:<a@b.test>\r\n")
		synctest.Wait()
		began := time.Now()
		s.Close()
		<-done
		// The goodbye to a filter that does not read may take its second.
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("Close took %v", d)
		}
	})
}

func TestReadHeader(t *testing.T) {
	for in, want := range map[string]struct {
		names string
		body  string
	}{
		"A: 1\r\nB: 2\r\n\r\nbody\r\n": {"A,B", "body\r\n"},
		"A: 1\r\n\r\n":                 {"A", ""},
		"A: 1\r\n":                     {"A", ""},
		"\r\nbody":                     {"", "body"},
		"":                             {"", ""},
		" odd\r\nA : 1\r\n\r\n":        {",A", ""},
		"no colon\r\nA: 1\r\n\r\nx":    {",A", "x"},
		"two words: x\r\n\r\n":         {"", ""},
	} {
		fields, size, _, err := readHeader(bufio.NewReader(strings.NewReader(in)))
		var names []string
		raw := 0
		for _, f := range fields {
			names = append(names, f.name)
			raw += len(f.raw)
		}
		if strings.Join(names, ",") != want.names || in[size:] != want.body || err != nil {
			t.Errorf("%q: %q, body %q, %v", in, names, in[size:], err)
		}
	}
	_, _, _, err := readHeader(bufio.NewReader(io.LimitReader(endless{}, 64<<20)))
	if !errors.Is(err, errHeader) {
		t.Errorf("an endless header: %v", err)
	}
	got := talk(t, &Client{DialContext: (&filter{}).dial}, false, envelope+"DATA\r\n"+strings.Repeat("X: "+strings.Repeat("y", 60000)+"\r\n", 20)+"\r\n.\r\n")
	if !strings.Contains(got.replies, "552 5.3.4 Header") {
		t.Errorf("%q", got.replies)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("A: 1\r\n 2\r\n\r\nbody"), "X", "a\nb")
	f.Add([]byte("no colon\r\n\r\n"), "X-Y", "\r\n\r\nbody")
	f.Fuzz(func(t *testing.T, in []byte, name, value string) {
		fields, size, sep, err := readHeader(bufio.NewReader(bytes.NewReader(in)))
		if err != nil {
			return
		}
		var head []byte
		for _, f := range fields {
			head = append(head, f.raw...)
		}
		if string(append(head, sep...)) != string(in[:size]) {
			t.Fatalf("%q: not all of %q", head, in[:size])
		}
		one, ok := newField(name, value, false)
		if !ok {
			return
		}
		again, _, _, err := readHeader(bufio.NewReader(bytes.NewReader(append(one.raw, '\r', '\n'))))
		if err != nil || len(again) != 1 || again[0].name != name || !bytes.Equal(again[0].raw, one.raw) {
			t.Fatalf("%q: %q makes %+v, %v", name, one.raw, again, err)
		}
	})
}

// FuzzFilter: whatever a filter sends, the peer gets a reply and the message
// arrives once at most.
func FuzzFilter(f *testing.F) {
	f.Add([]byte("O"+string(negotiation(6, 0x7f&^actQuarantine, 0))), []byte("c"), []byte("hX\x00y\x00"), []byte("c"))
	f.Add([]byte("O"+string(negotiation(6, 0x5f, nrHeader|nrBody))), []byte("c"), []byte("m\x00\x00\x00\x01Subject\x00\x00"), []byte("y550 5.7.1 x\x00"))
	f.Add([]byte("O"+string(negotiation(2, 0x5f, 0))), []byte("a"), []byte("bnew"), []byte("e<>\x00"))
	f.Fuzz(func(t *testing.T, negotiate, each, change, last []byte) {
		dial := func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				go io.Copy(io.Discard, theirs)
				theirs.Write(packet(negotiate))
				for range 12 {
					theirs.Write(packet(each))
				}
				theirs.Write(append(packet(change), packet(last)...))
			}()
			return ours, nil
		}
		got := talk(t, &Client{DialContext: dial}, false, whole)
		n := 0
		for _, b := range got.backend {
			if b == "data" {
				n++
			}
		}
		if !strings.HasPrefix(got.replies, "220 ") || n > 1 {
			t.Fatalf("%+v", got)
		}
	})
}

func packet(b []byte) []byte {
	return append([]byte{0, 0, byte(len(b) >> 8), byte(len(b))}, b[:len(b)&0xffff]...)
}

func BenchmarkMessage(b *testing.B) {
	b.ReportAllocs()
	fields := []byte(strings.Repeat("X-Field: some value of a usual length\r\n", 20) + "\r\n")
	for b.Loop() {
		if _, _, _, err := readHeader(bufio.NewReader(bytes.NewReader(fields))); err != nil {
			b.Fatal(err)
		}
	}
}
