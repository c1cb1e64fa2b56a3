package mime_test

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// A message with a text, its HTML form and a file. Date and MessageID are set
// here only so that the output is always the same.
func ExampleMessage() {
	m := &mime.Message{
		From:      []mime.Address{{Name: "Ann", Address: smtp.Address{Local: "ann", Domain: "example.com"}}},
		To:        []mime.Address{{Name: "Jürgen", Address: smtp.Address{Local: "bob", Domain: "example.org"}}},
		Bcc:       []mime.Address{{Address: smtp.Address{Local: "archive", Domain: "example.com"}}},
		Subject:   "Hello",
		Date:      time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC),
		MessageID: "1@example.com",
		Text:      "Hi there\n",
	}
	var b strings.Builder
	if _, err := m.WriteTo(&b); err != nil {
		fmt.Println(err)
	}
	fmt.Println(strings.ReplaceAll(b.String(), "\r\n", "\n"))
	env, err := m.Envelope()
	fmt.Println(env.From.Path(), len(env.To), err)
	// Output:
	// Date: Sat, 3 Feb 2024 04:05:06 +0000
	// From: Ann <ann@example.com>
	// To: =?utf-8?q?J=C3=BCrgen?= <bob@example.org>
	// Subject: Hello
	// Message-ID: <1@example.com>
	// MIME-Version: 1.0
	// Content-Type: text/plain; charset=utf-8
	// Content-Transfer-Encoding: 7bit
	//
	// Hi there
	//
	// <ann@example.com> 2 <nil>
}

const received = "From: =?iso-8859-1?q?J=FCrgen?= <bob@example.org>\r\n" +
	"Subject: pictures\r\n" +
	"Content-Type: multipart/mixed; boundary=b\r\n" +
	"\r\n" +
	"--b\r\n" +
	"Content-Type: text/plain; charset=iso-8859-1\r\n" +
	"Content-Transfer-Encoding: quoted-printable\r\n" +
	"\r\n" +
	"Gr=FC=DFe\r\n" +
	"--b\r\n" +
	"Content-Type: image/png\r\n" +
	"Content-Transfer-Encoding: base64\r\n" +
	"Content-Disposition: attachment; filename*=utf-8''B%C3%A4r.png\r\n" +
	"\r\n" +
	"iVBORw0KGgo=\r\n" +
	"--b--\r\n"

// Read the structure of a message, then what is of interest in it.
func ExampleParse() {
	r := strings.NewReader(received)
	root, err := mime.Parse(r, r.Size(), mime.Limits{})
	if err != nil {
		fmt.Println(err) // only errors of r
		return
	}
	from, _ := root.Header.Addresses("From")
	fmt.Println(from[0].Name, "wrote about", root.Header.Text("Subject"))
	for _, p := range root.Parts {
		switch {
		case p.Type == "text":
			text, _ := io.ReadAll(p.Text(r))
			fmt.Printf("%q\n", text)
		default:
			n, _ := io.Copy(io.Discard, p.Decoded(r))
			fmt.Println(p.FileName(), p.Type+"/"+p.Subtype, n, "octets")
		}
	}
	// Output:
	// Jürgen wrote about pictures
	// "Grüße"
	// Bär.png image/png 8 octets
}

// A Parser is an io.Writer: it can see a message that goes by to elsewhere.
func ExampleParser() {
	var p mime.Parser
	io.Copy(io.MultiWriter(io.Discard, &p), strings.NewReader(received))
	root := p.Close()
	fmt.Println(root.Subtype, len(root.Parts), root.Parts[1].BodyOffset, root.Parts[1].Size)
	// Output: mixed 2 355 12
}

// Changing a header leaves all other fields byte for byte as they are.
func ExampleHeader() {
	h := mime.ParseHeader([]byte("Subject:  odd\r\n   folding\r\nX-Spam: no\r\n\r\n"))
	h.Prepend("Received", "from client.example.com by mx.example.org")
	h.Set("X-Spam", "yes")
	fmt.Printf("%q\n", h.Bytes())
	fmt.Println(h.Add("X-Name", "evil\r\nBcc: victim@example.net"))
	// Output:
	// "Received: from client.example.com by mx.example.org\r\nSubject:  odd\r\n   folding\r\nX-Spam: yes\r\n"
	// mime: field would break the header
}
