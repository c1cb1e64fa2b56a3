// Cluster is two complete mail servers over one PostgreSQL: SMTP in,
// submission, a queue, delivery, IMAP and POP3. It shows what that is good
// for: mail that comes in at one node is announced at the other at once, and
// whichever node is killed, nothing is lost and the other takes its work over.
//
//	go run ./examples/cluster         # the proof, step by step
//	go run ./examples/cluster run     # the two nodes, until Ctrl-C
//	go run ./examples/cluster node -h # one node
//
// The node, in node.go, is the part to copy. PostgreSQL is a private one made
// of the programs that are installed, or what POSTRIDER_PG_DSN names.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/postrider/postrider/examples/internal/page"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command, args := "", os.Args[1:]
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "":
		err = show(ctx, args)
	case "run":
		err = run(ctx, args)
	case "node":
		err = serve(ctx, args)
	default:
		err = fmt.Errorf("unknown command %q: want none, run or node", command)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// show is the proof.
func show(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("cluster", flag.ContinueOnError)
	lease := f.Duration("lease", 2*time.Second, "after what time without a sign of life a node is dead")
	verbose := f.Bool("v", false, "show the nodes' logs")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return prove(ctx, page.New(os.Stdout, *verbose, ""), *lease, *verbose)
}

// run runs the two nodes until it is interrupted.
func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("cluster run", flag.ContinueOnError)
	schema := f.String("schema", "postrider", "the database `schema` with the tables")
	if err := f.Parse(args); err != nil {
		return err
	}
	c, err := newCluster(ctx, *schema)
	if err != nil {
		return err
	}
	defer c.close()
	c.logs = os.Stderr
	var nodes []*process
	defer func() {
		for _, p := range nodes {
			p.stop()
		}
	}()
	for _, name := range []string{"a", "b"} {
		p, err := c.start(name, nil)
		if err != nil {
			return err
		}
		nodes = append(nodes, p)
		for _, s := range services {
			fmt.Printf("%s  %-12s %s\n", name, s, p.addr[s])
		}
	}
	fmt.Printf("users %s and %s, password %s, database %s\n", alice, bob, c.password, c.dsn)
	fmt.Printf("try: swaks --server %s --to %s\n", nodes[0].addr["smtp"], bob)
	fmt.Printf("     curl -k -u %s:%s 'imaps://%s/INBOX;MAILINDEX=1'\n", bob, c.password, nodes[1].addr["imaps"])
	fmt.Printf("     kill -9 %d\n", nodes[0].cmd.Process.Pid)
	for _, p := range nodes {
		select {
		case <-p.ended:
			fmt.Println(p.name, "has ended:", p.cmd.ProcessState)
		case <-ctx.Done():
		}
	}
	return nil
}

// serve is one node.
func serve(ctx context.Context, args []string) error {
	c, err := parseNode(args)
	if err != nil {
		return err
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", c.name))
	if c.attached {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() {
			io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	n, err := newNode(ctx, c)
	if err != nil {
		return err
	}
	return n.run(ctx, os.Stdout)
}
