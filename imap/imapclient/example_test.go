package imapclient_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/imap/imapclient"
)

// List the unseen messages of the last week.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d := &imapclient.Dialer{Security: imapclient.ImplicitTLS}
	c, err := d.Dial(ctx, "imap.example.com:993")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(ctx, "alice@example.com", os.Getenv("PASSWORD")); err != nil {
		log.Fatal(err)
	}
	if _, err := c.Examine(ctx, "INBOX"); err != nil {
		log.Fatal(err)
	}
	found, err := c.Search(ctx, true, &imap.SearchCriteria{
		NotFlags: []imap.Flag{imap.FlagSeen},
		Since:    time.Now().AddDate(0, 0, -7),
	}, imap.SearchOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if found.All.Len() == 0 {
		return
	}
	for m, err := range c.Fetch(ctx, imap.UIDs(found.All), imap.FetchAll()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.UID, m.Size, m.Envelope.Subject)
	}
	if err := c.Logout(ctx); err != nil {
		log.Fatal(err)
	}
}

// Wait for new mail.
func ExampleClient_Idle() {
	ctx := context.Background()
	d := &imapclient.Dialer{Handler: imapclient.Handler{
		Exists: func(n uint32) { fmt.Println(n, "messages") },
	}}
	c, err := d.Dial(ctx, "imap.example.com:143")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	// … log in and select a mailbox, then:
	for {
		if err := c.Idle(ctx); err != nil {
			log.Fatal(err)
		}
	}
}
