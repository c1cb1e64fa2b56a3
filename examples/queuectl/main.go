// Queuectl shows what is queued and changes it, in a terminal or as a web page:
//
//	queuectl -data DIR [list]                  what waits, the soonest first
//	queuectl -data DIR hold -dest example.org  set aside; release lets it go on
//	queuectl -data DIR retry ID…               try again now
//	queuectl -data DIR drop -from a@spam.test  remove, without a notice; bounce tells the sender
//	queuectl -data DIR suspend -dest a.test    stop deliveries until resume, of what comes later too
//	queuectl -data DIR web                     a page for the browser
//
// DIR is the -data of examples/relay or examples/mailserver. While the server
// runs, its socket there is used; else the directory itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postrider/postrider/examples/internal/control"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/smtp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr, colourful(os.Stdout))
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "queuectl:", err)
		os.Exit(1)
	}
}

// colourful reports whether a file is a terminal that may be painted on.
func colourful(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// changes are the commands that change something, and how their work is called.
func changes() map[string]string {
	return map[string]string{"hold": "held", "release": "released", "retry": "due now", "drop": "dropped",
		"bounce": "bounced", "suspend": "suspended", "resume": "resumed"}
}

// command is the command line.
type command struct {
	data, verb string
	filter     queue.Filter
	all        bool
	limit      int
	listen     string
}

func parse(args []string, usage io.Writer) (*command, error) {
	c := &command{verb: "list"}
	f := flag.NewFlagSet("queuectl", flag.ContinueOnError)
	f.SetOutput(usage)
	f.Usage = func() {
		fmt.Fprintln(usage, "usage: queuectl -data DIR [list|hold|release|retry|drop|bounce|suspend|resume|web] [flags] [ID…]")
		f.PrintDefaults()
	}
	address := func(to *smtp.Address) func(string) error {
		return func(s string) (err error) {
			*to, err = smtp.ParseAddress(s)
			return err
		}
	}
	f.StringVar(&c.data, "data", "", "data `directory` of the server")
	f.Func("dest", "only what goes to this `domain`", func(s string) (err error) {
		c.filter.Dest, err = smtp.ParseDomain(s)
		return err
	})
	f.StringVar(&c.filter.Tenant, "tenant", "", "only mail of this `tenant`")
	f.StringVar(&c.filter.Campaign, "campaign", "", "only mail of this `campaign`")
	f.Func("from", "only mail from this `address`", address(&c.filter.From))
	f.Func("to", "only mail to this `address`", address(&c.filter.To))
	f.BoolVar(&c.filter.Held, "held", false, "only what is held")
	f.BoolVar(&c.all, "all", false, "change all there is, when nothing else says what")
	f.IntVar(&c.limit, "limit", 50, "how many entries to list; 0 = all")
	f.StringVar(&c.listen, "listen", "127.0.0.1:8025", "`host:port` of the page")
	// Flags may stand before and after the command, and between IDs.
	words := args
	named := false
	for {
		if err := f.Parse(words); err != nil {
			return nil, err
		}
		if words = f.Args(); len(words) == 0 {
			break
		}
		if !named {
			c.verb, named = words[0], true
		} else {
			id, err := queue.ParseID(words[0])
			if err != nil {
				return nil, fmt.Errorf("%q is no ID: want 26 letters and digits", words[0])
			}
			c.filter.IDs = append(c.filter.IDs, id)
		}
		words = words[1:]
	}
	_, change := changes()[c.verb]
	switch {
	case !change && c.verb != "list" && c.verb != "web":
		return nil, fmt.Errorf("unknown command %q", c.verb)
	case c.data == "":
		return nil, errors.New("-data: which directory?")
	case change && !c.all && describe(c.filter) == "all":
		return nil, fmt.Errorf("%s what? Name IDs, a domain, an address … or -all", c.verb)
	}
	return c, nil
}

// describe says in words what a filter chooses.
func describe(f queue.Filter) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	for _, id := range f.IDs {
		add("ID", id.String())
	}
	add("to domain", f.Dest)
	add("of tenant", f.Tenant)
	add("of campaign", f.Campaign)
	add("from", f.From.String())
	add("to", f.To.String())
	if f.Held {
		parts = append(parts, "held")
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, ", ")
}

func run(ctx context.Context, args []string, out, warn io.Writer, colour bool) error {
	cmd, err := parse(args, warn)
	if err != nil {
		return err
	}
	c, closeQueue, err := open(ctx, cmd.data)
	if err != nil {
		return err
	}
	defer closeQueue()
	switch cmd.verb {
	case "list":
		s, err := look(ctx, c, cmd.filter, cmd.limit)
		if err != nil {
			return err
		}
		return print(out, s, colour)
	case "web":
		return serve(ctx, cmd.listen, c, out)
	}
	n, err := c.Do(ctx, cmd.verb, cmd.filter)
	if err != nil {
		return err
	}
	if cmd.verb == "suspend" || cmd.verb == "resume" {
		fmt.Fprintf(out, "%s: %s\n", changes()[cmd.verb], describe(cmd.filter))
		return nil
	}
	fmt.Fprintf(out, "%d %s\n", n, changes()[cmd.verb])
	if n == 0 && !cmd.all {
		return errors.New("nothing was found")
	}
	return nil
}

// open connects to the server that uses a directory. When there is none, it is
// the server for a moment.
func open(ctx context.Context, data string) (*control.Client, func(), error) {
	c, err := control.Dial(ctx, data)
	if err == nil {
		return c, c.Close, nil
	}
	dir := filepath.Join(data, "queue")
	if _, err := os.Stat(dir); err != nil { // opening it would make one
		return nil, nil, fmt.Errorf("-data: %w", err)
	}
	disk, err := diskqueue.Open(dir, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("-data: %w", err)
	}
	srv, err := control.Serve(data, &queue.Queue{Storage: disk})
	if err != nil {
		disk.Close()
		return nil, nil, err
	}
	end := func() {
		srv.Close()
		disk.Close()
	}
	if c, err = control.Dial(ctx, data); err != nil {
		end()
		return nil, nil, err
	}
	return c, func() {
		c.Close()
		end()
	}, nil
}
