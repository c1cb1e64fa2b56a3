package mbox_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/postrider/postrider/mime/mbox"
)

func ExampleReader() {
	const file = "From ann@example.org Wed May  1 09:08:07 2024\nStatus: R\nSubject: Hello\n\n>From here on\n\n"
	for m, err := range mbox.NewReader(strings.NewReader(file)).Messages() {
		if err != nil {
			fmt.Println(err)
			return
		}
		b, err := io.ReadAll(m)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %s %q\n%q\n", m.From, m.Date.Format(time.DateOnly), m.Flags, b)
	}
	// Output:
	// ann@example.org 2024-05-01 ["\\Seen"]
	// "Subject: Hello\r\n\r\nFrom here on\r\n"
}

func ExampleWriter() {
	w := mbox.NewWriter(os.Stdout)
	h := mbox.Head{From: "ann@example.org", Date: time.Date(2024, 5, 1, 9, 8, 7, 0, time.UTC), Flags: []string{`\Seen`}}
	if err := w.Add(h, strings.NewReader("Subject: Hello\r\n\r\nFrom here on\r\n")); err != nil {
		fmt.Println(err)
	}
	// Output:
	// From ann@example.org Wed May  1 09:08:07 2024
	// Subject: Hello
	// Status: R
	//
	// >From here on
}
