// Journey follows one e-mail from the program that composes it to the ones
// that read it: two mail domains and a DNS server on loopback, real sockets,
// a few seconds, every step checked.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/postrider/postrider/examples/internal/page"
)

func main() {
	verbose := flag.Bool("v", false, "show what the machines say to each other")
	out := flag.String("out", "", "keep messages and transcripts in this `directory`")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "journey: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	p := page.New(os.Stdout, *verbose, *out)
	if err := travel(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "\njourney:", err)
		os.Exit(1)
	}
}

// travel is the whole journey.
func travel(ctx context.Context, p *page.Page) error {
	p.Title(fmt.Sprintf("One e-mail, from %s to %s", sender.Address, recipient.Address))
	t := &trip{Page: p}
	if err := t.prepare(ctx); err != nil {
		return err
	}
	for i, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Compose", t.compose},
		{"Submit, over STARTTLS and over implicit TLS", t.submit},
		{"Complete, sign, queue", t.sign},
		{"Wait for a receiver that is down, bounce what is refused", t.wait},
		{"Resolve the MX and transfer", t.transfer},
		{"Check and store", t.store},
		{"Read over IMAP and POP3", t.read},
	} {
		p.Begins(i+1, step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		p.Ends()
	}
	if err := t.close(ctx); err != nil {
		return err
	}
	return p.Finish("Arrived.")
}
