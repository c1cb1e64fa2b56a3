package maildir_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/postrider/postrider/mime/maildir"
)

func Example() {
	tmp, err := os.MkdirTemp("", "maildir")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(tmp)
	d := maildir.Dir(filepath.Join(tmp, "Maildir"))
	if err := d.Make(); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := d.Deliver(strings.NewReader("Subject: Hello\r\n\r\nHi\r\n"), maildir.Options{Flags: []string{`\Seen`}}); err != nil {
		fmt.Println(err)
		return
	}
	for m, err := range d.Messages() {
		if err != nil {
			fmt.Println(err)
			return
		}
		r, err := m.Open()
		if err != nil {
			fmt.Println(err)
			return
		}
		b, err := io.ReadAll(r)
		r.Close()
		fmt.Printf("%q %q %v\n", m.Flags, b, err)
	}
	// Output:
	// ["\\Seen"] "Subject: Hello\r\n\r\nHi\r\n" <nil>
}
