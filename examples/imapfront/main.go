// Imapfront lets mail programs read a database that knows nothing of mail: a
// forum of two tables, rooms and posts, which nobody here designed. Each room
// is a mailbox, each post a message, and INBOX has them all. It is read-only.
//
//	cd examples/imapfront && go run . [-db forum.db] [-password …]
//	curl -u reader:PASSWORD 'imap://127.0.0.1:2143/INBOX;MAILINDEX=1'
//
// forum.go is the whole store: read it to put IMAP before tables of your own.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap/imapserver"
)

// config is the command line.
type config struct {
	db, listen, password, cert, key string
}

func parse(args []string, usage io.Writer) (*config, error) {
	c := &config{}
	f := flag.NewFlagSet("imapfront", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&c.db, "db", "", "SQLite `file` with the tables; empty = a forum made up, in memory")
	f.StringVar(&c.listen, "listen", "127.0.0.1:2143", "`host:port`")
	f.StringVar(&c.password, "password", "", "of the user reader; empty = one made at start")
	f.StringVar(&c.cert, "cert", "", "certificate `file`, PEM; empty = no TLS, for loopback")
	f.StringVar(&c.key, "key", "", "private key `file`, PEM")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case (c.cert == "") != (c.key == ""):
		return nil, errors.New("-cert and -key go together")
	}
	return c, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, c, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "imapfront:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, c *config, out io.Writer) error {
	db, err := open(ctx, c.db)
	if err != nil {
		return err
	}
	defer db.Close()
	if c.password == "" {
		c.password = rand.Text()[:12]
		fmt.Fprintln(out, "user reader has the password", c.password)
	}
	hash, err := login.Hash(c.password)
	if err != nil {
		return err
	}
	srv := &imapserver.Server{Store: newForum(db), InsecureAuth: c.cert == "",
		Auth: &login.Passwords{Lookup: func(_ context.Context, user string) (login.Record, error) {
			if user != reader {
				return login.Record{}, login.ErrNoUser
			}
			return login.Record{Hash: hash}, nil
		}}}
	if c.cert != "" {
		cert, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return err
		}
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	l, err := net.Listen("tcp", c.listen)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "imap", l.Addr())
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(drain); err != nil {
			slog.Warn("sessions are cut", "reason", err)
			srv.Close()
		}
	})
	err = srv.Serve(l)
	if !stop() { // it drains
		err = nil
	}
	srv.Close()
	return err
}

// schema is what the forum's own program once made. We only read it.
const schema = `
CREATE TABLE rooms (id INTEGER PRIMARY KEY, title TEXT NOT NULL);
CREATE TABLE posts (id INTEGER PRIMARY KEY AUTOINCREMENT, room_id INTEGER NOT NULL REFERENCES rooms(id), reply_to INTEGER,
	author TEXT, email TEXT, subject TEXT, body TEXT, posted_at INTEGER NOT NULL);
CREATE INDEX posts_room ON posts (room_id, id);`

// open opens a forum, or makes one up.
func open(ctx context.Context, file string) (*sql.DB, error) {
	if file != "" {
		if _, err := os.Stat(file); err != nil { // it would be made
			return nil, err
		}
		return sql.Open("sqlite3", "file:"+file+"?mode=ro")
	}
	db, err := sql.Open("sqlite3", "file::memory:")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // each connection would have a memory of its own
	if _, err := db.ExecContext(ctx, schema); err != nil {
		db.Close()
		return nil, err
	}
	for _, q := range []string{
		`INSERT INTO rooms VALUES (1, 'Gemüse'), (2, 'Roses'), (3, 'Empty')`,
		`INSERT INTO posts (room_id, reply_to, author, email, subject, body, posted_at) VALUES
			(1, NULL, 'Käthe', 'kaethe@forum.example', 'Radieschen im März', 'Geht das schon?', 1772355600),
			(2, NULL, 'Bob', 'bob@forum.example', 'Black spot', 'My Rosa gallica has black spots.' || char(10) || 'What now?', 1772442000),
			(1, 1, 'Ann', 'ann@forum.example', 'Re: Radieschen im März', 'Unter Vlies ja.', 1772528400),
			(2, 2, 'a guest', 'not an address', '', 'Take the leaves off.', 1772614800)`,
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			db.Close()
			return nil, err
		}
	}
	return db, nil
}
