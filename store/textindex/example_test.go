package textindex_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
	"github.com/postrider/postrider/store/textindex"
)

func Example() {
	ctx := context.Background()
	s := memstore.New()
	s.CreateAccount(ctx, "ann")
	dir, _ := os.MkdirTemp("", "index")
	defer os.RemoveAll(dir)

	ix, err := textindex.Open(dir, s, textindex.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ix.Close()
	// Give ix to imapserver.Server.Store, and it searches with it. By hand:
	acc, _ := ix.Account(ctx, "ann")
	for _, text := range []string{"the invoice", "a letter", "Invoices!"} {
		d := store.Draft{Body: strings.NewReader("Subject: x\r\n\r\n" + text)}
		acc.Append(ctx, store.Inbox, []store.Draft{d}, store.AppendOptions{})
	}
	ix.Sync(ctx, "ann") // it would have happened soon
	x, _ := store.As[store.Searcher](acc)
	uids, through, err := x.Candidates(ctx, store.Inbox, []store.Term{{Text: "INVOICE"}})
	fmt.Println(uids, through, err)
	// Output: 1,3 3 <nil>
}
