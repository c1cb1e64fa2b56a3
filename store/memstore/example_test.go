package memstore_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

func Example() {
	ctx := context.Background()
	s := memstore.New()
	if err := s.CreateAccount(ctx, "ann"); err != nil {
		fmt.Println(err)
		return
	}
	acc, err := s.Account(ctx, "ann")
	if err != nil {
		fmt.Println(err)
		return
	}
	added, err := acc.Append(ctx, store.Inbox, []store.Draft{{
		Body: strings.NewReader("Subject: Hello\r\n\r\nHow are you?\r\n"),
	}}, store.AppendOptions{})
	fmt.Println(added.Messages[0].UID, added.Messages[0].Size, err)

	set, err := acc.SetFlags(ctx, store.Inbox, store.AllUIDs(), store.FlagOp{Flags: store.Flags{System: store.Seen}})
	fmt.Println(set.Changed, err)
	// Output:
	// 1 32 <nil>
	// 1 <nil>
}
