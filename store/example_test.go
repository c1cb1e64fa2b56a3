package store_test

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

func open() store.Account {
	s := memstore.New()
	if err := s.CreateAccount(context.Background(), "alice"); err != nil {
		log.Fatal(err)
	}
	a, err := s.Account(context.Background(), "alice")
	if err != nil {
		log.Fatal(err)
	}
	return a
}

// What a mail reader shows: a View follows a mailbox, and Diff tells what
// happened since the last look.
func ExampleView() {
	ctx := context.Background()
	acc := open()
	v, err := store.OpenView(ctx, acc, store.Inbox)
	if err != nil {
		log.Fatal(err)
	}
	shown := v.Snapshot()

	draft := store.Draft{Body: bytes.NewReader([]byte("Subject: hello\r\n\r\nhi\r\n"))}
	if _, err := acc.Append(ctx, store.Inbox, []store.Draft{draft, draft}, store.AppendOptions{}); err != nil {
		log.Fatal(err)
	}
	newer, err := v.Sync(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("new:", shown.Diff(newer).Added)
	shown = newer

	// One's own write needs no reading back.
	op := store.FlagOp{Flags: store.NewFlags(store.Seen, "$Important")}
	r, err := acc.SetFlags(ctx, store.Inbox, store.UIDs(2), op)
	if err != nil {
		log.Fatal(err)
	}
	if !v.FoldFlags(op, r) {
		v.Sync(ctx)
	}
	for i, row := range v.Snapshot().Rows(shown.Diff(v.Snapshot()).Changed) {
		fmt.Println("changed: message", i+1, "has", row.Flags.Keywords)
	}
	// Output:
	// new: 1:2
	// changed: message 2 has [$Important]
}

// A test-and-set over many processes: only one of them sends the receipt.
func ExampleFlagOp_ifAbsent() {
	ctx := context.Background()
	acc := open()
	if _, err := acc.Append(ctx, store.Inbox, make([]store.Draft, 1), store.AppendOptions{}); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		r, err := acc.SetFlags(ctx, store.Inbox, store.UIDs(1), store.FlagOp{Flags: store.NewFlags(0, "$MDNSent"), IfAbsent: true})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("mine:", !r.Changed.Empty())
	}
	// Output:
	// mine: true
	// mine: false
}
