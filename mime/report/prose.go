package report

import (
	"io"
	"slices"
	"strings"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

const maxProse = 50 // recipients that a bounce without a delivery status may name

// readProse classifies a message that is no report of a standard: by its
// header, and the text that people are to read.
func readProse(root *mime.Part, r io.ReaderAt) (*Notice, error) {
	h := &root.Header
	subject := foldSpace(h.Text("Subject"))
	n := new(Notice)
	text, err := firstText(root, r)
	if err != nil {
		return nil, err
	}
	switch {
	case isChallenge(subject, text):
		n.Class = Challenge
		n.about(h)
		return n, nil
	case isBounce(h, subject, text):
	case isAutoReply(h, subject):
		n.Class = AutoReply
		n.about(h)
		return n, nil
	default:
		return n, nil
	}

	// What was returned below the text tells of the original only.
	if i := cut(text); i >= 0 {
		_, rest, _ := strings.Cut(text[i:], "\n")
		if below := strings.TrimLeft(rest, " \t\n-"); below != "" {
			orig := mime.ParseHeader([]byte(below))
			n.MessageID = writableID(orig.MessageIDs("Message-ID"))
			if n.MessageID == "" {
				n.MessageID = idLine(below)
			}
		}
		text = text[:i]
	}
	walk(root, func(p *mime.Part) {
		if n.MessageID == "" && p.Message != nil {
			n.MessageID = writableID(p.Message.Header.MessageIDs("Message-ID"))
		}
		if n.MessageID == "" && p.Subtype == "rfc822-headers" {
			b, _ := io.ReadAll(io.LimitReader(p.Decoded(r), maxStatus))
			orig := mime.ParseHeader(b)
			n.MessageID = writableID(orig.MessageIDs("Message-ID"))
		}
	})
	if n.MessageID == "" {
		n.about(h)
	}

	late := strings.Contains(subject, "delay") || strings.Contains(subject, "warning:") || strings.Contains(subject, "deferred") || strings.Contains(subject, "not yet been") ||
		strings.Contains(foldSpace(text), "will be retried") || strings.Contains(foldSpace(text), "do not need to resend")
	n.Recipients = recipients(h, text)
	for i := range n.Recipients {
		b := &n.Recipients[i]
		b.Status = enhancedCode(b.Diagnostic)
		b.RemoteHost = remoteHost(b.Diagnostic)
		b.Class = ClassOf(b.Status, b.Diagnostic)
		if len(n.Recipients) == 1 && b.Status == (smtp.EnhancedCode{}) && replyCode(b.Diagnostic) == 0 {
			// The answer itself stands elsewhere.
			b.Status = enhancedCode(text)
			if b.Class == Unknown || b.Status != (smtp.EnhancedCode{}) || replyCode(text) != 0 {
				b.Class = ClassOf(b.Status, text)
			}
			if b.RemoteHost == "" {
				b.RemoteHost = remoteHost(text)
			}
		}
		if late {
			b.Class = Late
		}
	}
	n.sum()
	if n.Class == "" {
		if n.Class = ClassOf(enhancedCode(text), text+" "+subject); late {
			n.Class = Late
		}
	}
	return n, nil
}

// about takes the original from the fields of an answer.
func (n *Notice) about(h *mime.Header) {
	for _, name := range []string{"In-Reply-To", "X-Original-Message-ID", "References"} {
		if ids := h.MessageIDs(name); len(ids) > 0 {
			n.MessageID = writableID(ids[len(ids)-1:])
			return
		}
	}
}

func walk(p *mime.Part, f func(*mime.Part)) {
	f(p)
	for _, c := range p.Parts {
		walk(c, f)
	}
	if p.Message != nil {
		walk(p.Message, f)
	}
}

// firstText returns the first text of a message, in UTF-8 and with LF; HTML
// without its tags.
func firstText(root *mime.Part, r io.ReaderAt) (string, error) {
	var plain, html *mime.Part
	var look func(p *mime.Part)
	look = func(p *mime.Part) {
		switch {
		case p.Type == "text" && p.Subtype == "html" && html == nil:
			html = p
		case p.Type == "text" && p.Subtype == "plain" && plain == nil, p.IsMultipart() && len(p.Parts) == 0 && plain == nil:
			plain = p
		}
		for _, c := range p.Parts {
			look(c)
		}
	}
	look(root)
	p := plain
	if p == nil {
		p = html
	}
	if p == nil {
		return "", nil
	}
	b, err := io.ReadAll(io.LimitReader(p.Text(r), maxText))
	if err != nil {
		return "", err
	}
	text := strings.ToValidUTF8(strings.ReplaceAll(string(b), "\r\n", "\n"), "")
	if p == html {
		text = untag(text)
	}
	return text, nil
}

// untag removes the tags of HTML as far as a search for words needs it. A real
// parser would drop addresses between brackets that nobody escaped.
func untag(s string) string {
	var b strings.Builder
	for {
		text, rest, ok := strings.Cut(s, "<")
		b.WriteString(text)
		if !ok {
			break
		}
		tag, after, ok := strings.Cut(rest, ">")
		if !ok {
			break
		}
		if strings.Contains(tag, "@") {
			b.WriteString("<" + tag + ">") // an address that nobody escaped
		} else {
			b.WriteByte('\n')
		}
		s = after
	}
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&nbsp;", " ", "&quot;", `"`, "&#39;", "'", "&amp;", "&").Replace(b.String())
}

// cut returns where the original begins in the text of a bounce, -1 = nowhere.
func cut(text string) int {
	pos := 0
	for line := range strings.Lines(text) {
		l := strings.ToLower(line)
		dash := strings.HasPrefix(strings.TrimLeft(l, " \t"), "--")
		switch {
		case dash && (strings.Contains(l, "copy of") || strings.Contains(l, "original message") || strings.Contains(l, "original mail") ||
			strings.Contains(l, "message follows") || strings.Contains(l, "headers follow") || strings.Contains(l, "returned message") ||
			strings.Contains(l, "message header") || strings.Contains(l, "unsent message") || strings.Contains(l, "undelivered message")),
			strings.HasPrefix(l, "original message headers:"), strings.HasPrefix(l, "message header follows"), strings.HasPrefix(l, "original message follows"):
			return pos
		}
		pos += len(line)
	}
	return -1
}

// idLine finds a Message-ID field in the text of a returned message.
func idLine(text string) string {
	for line := range strings.Lines(text) {
		if len(line) > 11 && strings.EqualFold(line[:11], "message-id:") {
			h := mime.ParseHeader([]byte(line))
			return writableID(h.MessageIDs("Message-ID"))
		}
	}
	return ""
}

func isBounce(h *mime.Header, subject, text string) bool {
	if h.Has("X-Failed-Recipients") || h.Has("X-Failed-To") {
		return true
	}
	from := foldSpace(h.Text("From"))
	for _, s := range []string{"mailer-daemon", "mail delivery", "postmaster", "mailerdaemon", "mail administrator", "mdaemon"} {
		if strings.Contains(from, s) {
			return bounceWords(subject) || bounceWords(foldSpace(text[:min(len(text), 4096)]))
		}
	}
	return strings.TrimSpace(h.Get("Return-Path")) == "<>" && bounceWords(subject)
}

func bounceWords(s string) bool {
	return slices.ContainsFunc([]string{
		"undeliver", "failure notice", "delivery failure", "delivery status", "returned mail", "returned to sender", "delivery failed", "mail delivery fail",
		"delivery has failed", "delivery problem", "delivery error", "non-deliver", "nondeliver", "could not be delivered", "couldn't be delivered", "could not deliver", "not delivered",
		"unable to deliver", "delivery notification", "delivery report", "mail failure", "message delayed", "delivery delayed", "warning: message", "not yet been delivered", "warning: could not send", "delayed mail", "wasn't able to deliver", "rejected", "bounce",
		"message you sent", "user unknown", "mail system error", "delivery attempt", "unzustellbar", "non remis", "no entregado", "mail returned",
	}, func(w string) bool { return strings.Contains(s, w) })
}

func isAutoReply(h *mime.Header, subject string) bool {
	switch strings.ToLower(firstWord(h.Get("Auto-Submitted"))) {
	case "auto-replied", "auto-notified":
		return true
	}
	switch strings.ToLower(strings.TrimSpace(h.Get("Precedence"))) {
	case "auto_reply", "auto-reply":
		return true
	}
	for _, name := range []string{"X-Autoreply", "X-Autorespond", "X-Autoresponder", "X-Auto-Reply-From", "X-Vacation"} {
		if h.Has(name) && !strings.EqualFold(strings.TrimSpace(h.Get(name)), "no") {
			return true
		}
	}
	return slices.ContainsFunc([]string{
		" out of office", " out of the office", " automatic reply", " autoreply", " auto-reply", " auto reply", " automatische antwort", " abwesenheit",
		" réponse automatique", " respuesta automática", " risposta automatica", " on vacation", " away from my mail", " autoresponder",
	}, func(w string) bool { return strings.Contains(subject, w) })
}

func isChallenge(subject, text string) bool {
	for _, s := range []string{"please confirm your message", "confirm your email to", "[spamarrest]", "spam arrest", "challenge from", "boxbe waiting list", "confirm that you sent", "please verify your message", "action required to deliver"} {
		if strings.Contains(subject, s) {
			return true
		}
	}
	t := foldSpace(text[:min(len(text), 4096)])
	for _, s := range []string{"to prove that you are human", "tmda (tagged message delivery agent)", "confirm that you are a person", "reply to this message to release your", "sender verification link"} {
		if strings.Contains(t, s) {
			return true
		}
	}
	return false
}

// recipients finds the addresses that could not be reached, each with the
// lines that speak of it.
func recipients(h *mime.Header, text string) []Bounce {
	var found []Bounce
	add := func(addr, diagnostic string) {
		for i := range found {
			if strings.EqualFold(found[i].Recipient, addr) {
				if len(found[i].Diagnostic) < len(diagnostic) {
					found[i].Diagnostic = diagnostic
				}
				return
			}
		}
		if len(found) < maxProse {
			found = append(found, Bounce{Recipient: addr, Final: addr, Diagnostic: diagnostic})
		}
	}
	own := map[string]bool{}
	for _, name := range []string{"To", "From", "Cc", "Delivered-To"} {
		list, _ := h.Addresses(name)
		for _, a := range list {
			own[strings.ToLower(a.Address.String())] = true
		}
	}
	named := map[string]bool{}
	for _, name := range []string{"X-Failed-Recipients", "X-Failed-To"} {
		list, _ := h.Addresses(name)
		for _, a := range list {
			addr := a.Address.String()
			named[strings.ToLower(addr)] = true
			add(addr, "")
		}
	}
	var addr string
	var lines []string
	flush := func() {
		if addr != "" {
			add(addr, oneLine(strings.Join(lines, " ")))
		}
		addr, lines = "", nil
	}
	blank := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			// One empty line may stand between an address and its reason.
			if blank++; blank > 1 || len(lines) > 0 && addr != "" {
				flush()
			}
			continue
		}
		blank = 0
		a, rest := lineAddress(line)
		if a != "" && (!own[strings.ToLower(a)] || named[strings.ToLower(a)]) && (len(named) == 0 || named[strings.ToLower(a)]) {
			flush()
			addr = a
			if rest != "" {
				lines = append(lines, rest)
			}
			continue
		}
		if addr != "" && len(lines) < 20 {
			lines = append(lines, line)
		}
	}
	flush()
	return found
}

// lineAddress returns the address that a line begins with, or is about, and
// what follows it.
func lineAddress(line string) (addr, rest string) {
	at := strings.IndexByte(line, '@')
	if at < 1 {
		return "", ""
	}
	i, j := at, at+1
	for i > 0 && addressOctet(line[i-1]) {
		i--
	}
	for j < len(line) && addressOctet(line[j]) {
		j++
	}
	for j > at+1 && (line[j-1] == '.' || line[j-1] == '-') {
		j--
	}
	a, err := mime.ParseAddress(line[i:j])
	if err != nil || a.Domain == "" {
		return "", ""
	}
	before := strings.ToLower(strings.Trim(line[:i], " \t<\"'(*"))
	switch before {
	case "", "to", "to:", "recipient", "recipient:", "address:", "user:", "rcpt to:<", "error: err.nosuchuser:", "could not be delivered to:", "failed recipient:", "mailto:":
	default:
		if !strings.HasSuffix(before, " to") && !strings.HasSuffix(before, ":") && !strings.HasSuffix(before, "recipient") && !strings.HasSuffix(before, "address") {
			return "", ""
		}
		if strings.Contains(before, "contact") || strings.Contains(before, "mail to") || strings.Contains(before, "from") || strings.Contains(before, "sender") || strings.Contains(before, "id:") {
			return "", ""
		}
	}
	return a.Address.String(), strings.TrimLeft(line[j:], "> \t:;,.\"')")
}

func addressOctet(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80 || strings.IndexByte(".!#$%&*+-/=?^_`{|}~", c) >= 0
}

// remoteHost finds who gave an answer: "host mx.example.net[…] said:" of
// Postfix and Exim, "by mx.example.net. [192.0.2.1]" of Gmail, "192.0.2.1 does not like recipient" of qmail.
func remoteHost(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		if i+1 < len(words) && strings.EqualFold(w, "host") {
			name, _, _ := strings.Cut(words[i+1], "[")
			if strings.Contains(name, ".") {
				return strings.Trim(name, ":,();")
			}
		}
		if i+1 < len(words) && strings.HasPrefix(words[i+1], "[") && strings.Contains(w, ".") && addr(strings.Trim(words[i+1], "[],.:)")).IsValid() {
			return strings.Trim(w, ".(")
		}
		if (w == "does" || w == "failed") && i > 0 && i+1 < len(words) && (words[i+1] == "not" || words[i+1] == "after") && addr(words[i-1]).IsValid() {
			return words[i-1]
		}
	}
	return ""
}
