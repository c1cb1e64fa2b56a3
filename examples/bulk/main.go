// Bulk is a mail merge to copy: one message for each line of a CSV file, made
// from a template, queued on disk, sent as fast as the far side likes it, with
// a progress bar and a table of what became of them.
//
//	go run ./examples/bulk
//	go run ./examples/bulk -csv readers.csv -template spring.txt
//	go run ./examples/bulk -csv readers.csv -template spring.txt -data DIR -relay smtp.provider.example:587 -relay-user shop -dkim s1:key.pem
//
// Without -relay nothing leaves this machine: a far side within the program
// takes, greylists, refuses and bounces. With -data an interrupted run goes on
// where it was, and nobody gets a message twice.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

//go:embed campaign.txt
var campaignText string

// config is the command line.
type config struct {
	csv, template, campaign string
	n                       int // made-up recipients, without csv
	from                    mime.Address
	bounces                 smtp.Address
	bounceListen            string
	relay, relayUser        string
	data, dkim, suppress    string
	unsubscribe             string
	rate, concurrency       int
	patience                time.Duration
	retry                   time.Duration // the first one
	secret                  string        // of links and return paths
}

func parse(args []string, usage io.Writer) (*config, error) {
	c := &config{secret: os.Getenv("BULK_SECRET")}
	f := flag.NewFlagSet("bulk", flag.ContinueOnError)
	f.SetOutput(usage)
	var from, bounces string
	f.StringVar(&c.csv, "csv", "", "`file` of recipients: names of the columns first, one of them email; empty = made up")
	f.IntVar(&c.n, "n", 10_000, "how many recipients are made up")
	f.StringVar(&c.template, "template", "", "`file`: Subject: …, an empty line, the text, all with {{.column}} in it; empty = an example")
	f.StringVar(&c.campaign, "campaign", "spring", "`name`: an address gets one message of each campaign")
	f.StringVar(&from, "from", "The garden shop <news@shop.example>", "who sends")
	f.StringVar(&bounces, "bounces", "b@shop.example", "`address` that bounces come back to, with the message and its recipient put into it")
	f.StringVar(&c.bounceListen, "bounce-listen", "", "`host:port` for bounces, while this runs")
	f.StringVar(&c.relay, "relay", "", "provider's `host:port`; empty = a far side within this program")
	f.StringVar(&c.relayUser, "relay-user", "", "login there; the password is in $RELAY_PASSWORD")
	f.StringVar(&c.data, "data", "", "`directory` of the queue; empty = a temporary one")
	f.StringVar(&c.dkim, "dkim", "", "sign with `selector:keyfile`; one-click unsubscription needs it (RFC 8058)")
	f.StringVar(&c.suppress, "suppress", "", "`file` of addresses not to write to; those that are no good are added")
	f.StringVar(&c.unsubscribe, "unsubscribe", "https://shop.example/unsubscribe", "`URL` that unsubscribes; links, and addresses for bounces, are signed with $BULK_SECRET")
	f.IntVar(&c.rate, "rate", 0, "messages a second at most; 0 = no limit")
	f.IntVar(&c.concurrency, "concurrency", 50, "messages on their way at one time")
	f.DurationVar(&c.patience, "patience", 0, "how long to wait for those that were put off (default 3s, with -relay 10m)")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if c.secret == "" && c.relay == "" {
		c.secret = "demo" // nothing leaves this machine
	}
	var err error
	if c.from, err = mime.ParseAddress(from); err != nil {
		return nil, fmt.Errorf("-from: %w", err)
	}
	if c.bounces, err = smtp.ParseAddress(bounces); err != nil {
		return nil, fmt.Errorf("-bounces: %w", err)
	}
	if c.retry = time.Minute; c.relay == "" {
		c.retry = 500 * time.Millisecond
	}
	if c.patience == 0 {
		if c.patience = 10 * time.Minute; c.relay == "" {
			c.patience = 3 * time.Second
		}
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case c.csv == "" && c.relay != "":
		return nil, errors.New("-relay needs -csv: made-up people get no mail")
	case c.relay != "" && c.secret == "":
		return nil, errors.New("BULK_SECRET must be set, or anybody could unsubscribe others and make up bounces")
	case c.rate < 0 || c.concurrency < 1 || c.n < 0:
		return nil, errors.New("-rate, -concurrency and -n cannot be negative")
	}
	return c, nil
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, c, os.Stdout, terminal(os.Stdout))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bulk:", err)
		os.Exit(1)
	}
}

// run is one run of a campaign, from the file to the table.
func run(ctx context.Context, c *config, out io.Writer, look look) error {
	if c.data == "" {
		dir, err := os.MkdirTemp("", "bulk-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		c.data = dir
	} else if c.suppress == "" {
		c.suppress = filepath.Join(c.data, "suppressed")
	}
	text := campaignText
	if c.template != "" {
		b, err := os.ReadFile(c.template)
		if err != nil {
			return err
		}
		text = string(b)
	}
	m, err := newMerge(c, strings.ReplaceAll(text, "\r\n", "\n"))
	if err != nil {
		return fmt.Errorf("-template: %w", err)
	}
	rows, closeRows, err := recipients(c)
	if err != nil {
		return err
	}
	defer closeRows()
	s, err := newSender(c, m)
	if err != nil {
		return err
	}
	defer s.close()
	return s.run(ctx, rows, newBar(out, look))
}
