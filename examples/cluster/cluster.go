package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/smtp/smtptest"
	"github.com/postrider/postrider/store/pgstore"
)

const (
	domain = "cluster.example"
	alice  = "alice@" + domain
	bob    = "bob@" + domain
)

// cluster is a database and the nodes over it, each a process of its own that
// can be killed.
type cluster struct {
	pg          *postgres // nil = another's, as the environment says
	dsn, schema string
	db          *pgxpool.Pool
	password    string // of all users
	dir         string // for certificates and logs
	roots       *x509.CertPool
	logs        io.Writer // of the nodes; nil = files in dir
	args        []string  // for each node
}

// newCluster makes what the nodes need: the database with its tables and
// users, and a certificate. schema names where the tables are; "" = in one
// that close removes.
func newCluster(ctx context.Context, schema string, args ...string) (_ *cluster, err error) {
	c := &cluster{dsn: os.Getenv(envDSN), schema: schema, password: strings.ToLower(rand.Text()[:12])}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.dsn == "" {
		if c.pg, err = startPostgres(); err != nil {
			return nil, err
		}
		c.dsn = c.pg.dsn
	}
	if c.schema == "" {
		c.schema = "cluster_" + strings.ToLower(rand.Text()[:12])
	}
	if c.db, err = connect(ctx, c.dsn); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("", "cluster"); err != nil {
		return nil, err
	}
	cert, key := filepath.Join(c.dir, "cert.pem"), filepath.Join(c.dir, "key.pem")
	if c.roots, err = certificate(cert, key); err != nil {
		return nil, err
	}
	c.args = append([]string{"-schema", c.schema, "-domain", domain, "-cert", cert, "-key", key, "-attached"}, args...)
	return c, c.prepare(ctx)
}

// prepare makes the tables before the nodes would, and the users.
func (c *cluster) prepare(ctx context.Context) error {
	mail, err := pgstore.Open(ctx, c.db, pgstore.Options{Schema: c.schema})
	if err != nil {
		return err
	}
	defer mail.Close()
	queued, err := pgqueue.Open(ctx, c.db, pgqueue.Options{Schema: c.schema})
	if err != nil {
		return err
	}
	defer queued.Close()
	u := users{c.db, c.table("users")}
	if err := u.create(ctx); err != nil {
		return err
	}
	for _, name := range []string{alice, bob} {
		if err := u.add(ctx, mail, name, c.password); err != nil {
			return err
		}
	}
	return nil
}

// table is the full name of a table.
func (c *cluster) table(name string) string { return pgx.Identifier{c.schema, name}.Sanitize() }

// close removes the database if it is ours, and else nothing but a schema of
// the name newCluster made up. The nodes must have ended.
func (c *cluster) close() error {
	var err error
	if c.db != nil {
		if c.pg == nil && strings.HasPrefix(c.schema, "cluster_") {
			_, err = c.db.Exec(context.Background(), `DROP SCHEMA IF EXISTS `+pgx.Identifier{c.schema}.Sanitize()+` CASCADE`)
		}
		c.db.Close()
	}
	if c.pg != nil {
		err = errors.Join(err, c.pg.remove())
	}
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}

// certificate writes one that is good for trying things out.
func certificate(certFile, keyFile string) (*x509.CertPool, error) {
	cert, roots, err := smtptest.Certificate("localhost", "127.0.0.1", "a."+domain, "b."+domain, "c."+domain, "d."+domain)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	return roots, errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o644),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
}

// process is a node that runs.
type process struct {
	name, host string
	addr       map[string]string // of its ports
	cmd        *exec.Cmd
	stdin      io.Closer
	ended      chan struct{}
}

// services are the names of a node's ports.
var services = [...]string{"smtp", "submissions", "imaps", "pop3s"}

// start starts a node on the ports that it had before, if it ran before.
func (c *cluster) start(name string, before *process) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, host: name + "." + domain, addr: map[string]string{}, ended: make(chan struct{})}
	args := append([]string{"node", "-name", name}, c.args...)
	for _, s := range services {
		addr := "127.0.0.1:0"
		if before != nil {
			addr = before.addr[s]
		}
		args = append(args, "-"+s, addr)
	}
	p.cmd = exec.Command(exe, args...)
	p.cmd.Env = append(os.Environ(), envDSN+"="+c.dsn)
	logs := c.logs
	if logs == nil {
		f, err := os.OpenFile(filepath.Join(c.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		defer f.Close() // the process has its own
		logs = f
	}
	p.cmd.Stderr = logs
	// It ends with us, whatever ends us.
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ready := false
	for sc := bufio.NewScanner(out); !ready && sc.Scan(); {
		if f := strings.Fields(sc.Text()); len(f) == 2 {
			p.addr[f[0]] = f[1]
		}
		ready = sc.Text() == "ready"
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	if !ready {
		<-p.ended
		log, _ := os.ReadFile(filepath.Join(c.dir, name+".log"))
		return nil, fmt.Errorf("node %s did not start: %s", name, log)
	}
	return p, nil
}

// kill ends a node in the middle of whatever it does.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// stop lets it end what it does.
func (p *process) stop() error {
	p.stdin.Close()
	<-p.ended
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("node %s: %s", p.name, p.cmd.ProcessState)
	}
	return nil
}
