package imap_test

import (
	"fmt"

	"github.com/postrider/postrider/imap"
)

func ExampleParseNumSet() {
	s, err := imap.ParseNumSet("7,1:3,9:*")
	if err != nil {
		fmt.Println(err)
		return
	}
	// In a mailbox of ten messages:
	fmt.Println(s.Contains(10, 10), s.Resolve(10))
	// Output: true 1:3,7,9:10
}

func ExampleEncodeUTF7() {
	fmt.Println(imap.EncodeUTF7("Entwürfe & Ideen"))
	// Output: Entw&APw-rfe &- Ideen
}

func ExampleSection() {
	s := imap.Section{Part: []int{2}, Kind: imap.SectionFields, Fields: []string{"From", "Date"}, Peek: true}
	fmt.Println(s.String())
	// Output: BODY.PEEK[2.HEADER.FIELDS (From Date)]
}
