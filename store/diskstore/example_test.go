package diskstore_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/diskstore"
)

// What was appended is there when the directory is opened again.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "mail-*")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	s, err := diskstore.Open(dir, &diskstore.Options{Compress: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = s.CreateAccount(ctx, "ann")
	if err != nil {
		fmt.Println(err)
		return
	}
	acc, err := s.Account(ctx, "ann")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = acc.Append(ctx, store.Inbox, []store.Draft{{
		Body:  strings.NewReader("Subject: Hello\r\n\r\nHow are you?\r\n"),
		Flags: store.NewFlags(store.Flagged),
	}}, store.AppendOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	s.Close()

	if s, err = diskstore.Open(dir, nil); err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	if acc, err = s.Account(ctx, "ann"); err != nil {
		fmt.Println(err)
		return
	}
	for m, err := range acc.Messages(ctx, store.Inbox, store.Query{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		b, err := acc.Open(ctx, m)
		if err != nil {
			fmt.Println(err)
			return
		}
		text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		b.Close()
		fmt.Printf("%d %v %q %v\n", m.UID, m.Flags.System.Has(store.Flagged), text, err)
	}
	r, err := s.Check(ctx)
	fmt.Println(r.Accounts, r.Messages, r.Problems, err)
	// Output:
	// 1 true "Subject: Hello\r\n\r\nHow are you?\r\n" <nil>
	// 1 1 [] <nil>
}
