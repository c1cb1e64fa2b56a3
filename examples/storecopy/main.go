// Storecopy copies mail from one store to another, UIDs and all, with a
// progress bar. Run again it brings over what has changed since; so a server
// can move while it is in use: copy, stop it, copy once more, start the new one.
//
//	go run ./examples/storecopy disk:/var/mail/old disk:/var/mail/new
//	go run ./examples/storecopy disk:/var/mail/old pg:postgres://mail@db/app
//	go run ./examples/storecopy -account ann -mailbox Old mbox:old.mbox disk:/var/mail/new
//	go run ./examples/storecopy -account ann disk:/var/mail/new maildir:/tmp/ann
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/postrider/postrider/store/transfer"
)

// job is the command line.
type job struct {
	from, to         place
	account, mailbox string
}

func parse(args []string, usage io.Writer) (*job, error) {
	f := flag.NewFlagSet("storecopy", flag.ContinueOnError)
	f.SetOutput(usage)
	f.Usage = func() {
		fmt.Fprintf(usage, "usage: storecopy [-account ID] [-mailbox NAME] FROM TO\n\nFROM and TO are disk:DIR, pg:DSN, maildir:DIR or mbox:FILE.\n\n")
		f.PrintDefaults()
	}
	j := new(job)
	f.StringVar(&j.account, "account", "", "`ID` of the account to copy; empty = all of them")
	f.StringVar(&j.mailbox, "mailbox", "INBOX", "`NAME` of the mailbox that an mbox is read into or written from")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() != 2 {
		f.Usage()
		return nil, errors.New("want FROM and TO")
	}
	var err error
	if j.from, err = parsePlace(f.Arg(0)); err != nil {
		return nil, err
	}
	if j.to, err = parsePlace(f.Arg(1)); err != nil {
		return nil, err
	}
	switch {
	case !j.from.store() && !j.to.store():
		return nil, errors.New("one of FROM and TO must be a store: disk:DIR or pg:DSN")
	case (!j.from.store() || !j.to.store()) && j.account == "":
		return nil, errors.New("a file is of one account: say which one with -account")
	}
	return j, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	j, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = j.run(ctx, newScreen(os.Stdout))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "storecopy:", err)
		os.Exit(1)
	}
}

// run copies. What was copied before an error stays, and need not be copied
// again.
func (j *job) run(ctx context.Context, s *screen) error {
	if !j.from.store() {
		return j.read(ctx, s)
	}
	if !j.to.store() {
		return j.write(ctx, s)
	}
	from, closeFrom, err := j.from.open(ctx)
	if err != nil {
		return err
	}
	defer closeFrom()
	to, closeTo, err := j.to.open(ctx)
	if err != nil {
		return err
	}
	defer closeTo()
	accounts := []string{j.account}
	if j.account == "" {
		if accounts, err = from.Accounts(ctx); err != nil {
			return err
		}
	}
	for _, id := range accounts {
		src, err := from.Account(ctx, id)
		if err != nil {
			return fmt.Errorf("account %s: %w", id, err)
		}
		dst, err := account(ctx, to, id)
		if err != nil {
			return fmt.Errorf("account %s: %w", id, err)
		}
		s.begin(id)
		report, err := transfer.Copy(ctx, dst, src, transfer.Options{Progress: s.progress})
		s.end(report)
		if err != nil {
			return fmt.Errorf("account %s: %w", id, err)
		}
	}
	return nil
}
