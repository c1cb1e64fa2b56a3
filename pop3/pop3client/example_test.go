package pop3client_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/postrider/postrider/pop3/pop3client"
)

// Fetch what is new, leave it on the server.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	seen := map[string]bool{}

	d := &pop3client.Dialer{Security: pop3client.ImplicitTLS}
	c, err := d.Dial(ctx, "pop.example.com:995")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(ctx, "alice@example.com", os.Getenv("PASSWORD")); err != nil {
		log.Fatal(err)
	}
	ids, err := c.UIDL(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, id := range ids {
		if seen[id.ID] {
			continue
		}
		msg, err := c.Retr(ctx, id.Number)
		if err != nil {
			log.Fatal(err)
		}
		n, err := io.Copy(os.Stdout, msg)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(id.ID, n, "octets")
	}
	if err := c.Quit(ctx); err != nil {
		log.Fatal(err)
	}
}
