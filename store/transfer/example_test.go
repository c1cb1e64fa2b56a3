package transfer_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/postrider/postrider/mime/mbox"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
	"github.com/postrider/postrider/store/transfer"
)

func ExampleFromMbox() {
	ctx := context.Background()
	s := memstore.New()
	if err := s.CreateAccount(ctx, "ann"); err != nil {
		log.Fatal(err)
	}
	ann, err := s.Account(ctx, "ann")
	if err != nil {
		log.Fatal(err)
	}
	file := strings.NewReader("From bob@example.org Thu Jan  1 00:00:00 1970\nSubject: Hello\n\nHi Ann\n")
	report, err := transfer.FromMbox(ctx, ann, store.Inbox, mbox.NewReader(file), transfer.Options{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Messages, "message")
	// Output: 1 message
}
