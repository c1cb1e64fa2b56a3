package searchtext_test

import (
	"fmt"
	"strings"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/searchtext"
)

// words collects what an index would take.
type words struct {
	folder searchtext.Folder
	buf    []byte
}

func (w *words) Wants(bool) bool { return len(w.buf) < 1<<20 }
func (w *words) Begin(bool)      { w.buf = append(w.folder.End(w.buf), '\n') }
func (w *words) Write(p []byte)  { w.buf = w.folder.Append(w.buf, p) }

func Example() {
	r := strings.NewReader("Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nContent-Type: text/plain; charset=iso-8859-1\r\n" +
		"Content-Transfer-Encoding: quoted-printable\r\n\r\nSCH=D6NE Sache\r\n")
	root, err := mime.Parse(r, r.Size(), mime.Limits{})
	if err != nil {
		fmt.Println(err)
		return
	}
	var w words
	var s searchtext.Scanner
	if err := s.Scan(root, r, &w); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Contains(string(w.buf), "subject: grüße"), strings.Contains(string(w.buf), "schöne sache"))
	// Output: true true
}
