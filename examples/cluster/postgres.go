package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
)

// envDSN names the database to use, as a connection string.
const envDSN = "POSTRIDER_PG_DSN"

var errNoPostgres = errors.New("PostgreSQL is not installed: there is no initdb in PATH or /usr/lib/postgresql.\n" +
	"Install it (apt-get install postgresql, brew install postgresql), or set " + envDSN + " to a database that may be used,\n" +
	"such as postgres://user:password@host/database")

// postgres is a private server: on a Unix socket in a temporary folder, as a
// user without privileges, gone when the program ends.
type postgres struct {
	dsn      string
	bin, dir string
	owner    string // who runs it when we are root
}

func startPostgres() (_ *postgres, err error) {
	p := &postgres{}
	if p.bin, err = findPostgres(); err != nil {
		return nil, err
	}
	if p.dir, err = os.MkdirTemp("", "cluster-pg"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(p.dir)
		}
	}()
	if os.Geteuid() == 0 { // as whom PostgreSQL refuses to run
		u, err := user.Lookup("postgres")
		if err != nil {
			if u, err = user.Lookup("nobody"); err != nil {
				return nil, err
			}
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(p.dir, uid, gid); err != nil {
			return nil, err
		}
		p.owner = u.Username
	}
	p.dsn = "host=" + p.dir + " user=postrider dbname=postgres"
	if err := p.tool("initdb", "-D", p.data(), "-U", "postrider", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	return p, p.start()
}

func (p *postgres) data() string { return filepath.Join(p.dir, "data") }

func (p *postgres) start() error {
	return p.tool("pg_ctl", "-D", p.data(), "-l", filepath.Join(p.dir, "log"), "-w", "-s",
		"-o", "-c listen_addresses='' -c unix_socket_directories="+p.dir, "start")
}

// crash ends the server in the middle of whatever it does.
func (p *postgres) crash() error {
	return p.tool("pg_ctl", "-D", p.data(), "-m", "immediate", "-w", "-s", "stop")
}

func (p *postgres) remove() error { return errors.Join(p.crash(), os.RemoveAll(p.dir)) }

// tool runs a program of PostgreSQL's.
func (p *postgres) tool(name string, args ...string) error {
	args = append([]string{filepath.Join(p.bin, name)}, args...)
	if p.owner != "" {
		args = append([]string{"runuser", "-u", p.owner, "--"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = p.dir
	var out bytes.Buffer
	if name != "pg_ctl" { // whose server would keep the pipe open
		cmd.Stdout, cmd.Stderr = &out, &out
	}
	if err := cmd.Run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(p.dir, "log"))
		return fmt.Errorf("%s: %w\n%s%s", name, err, out.Bytes(), log)
	}
	return nil
}

// findPostgres returns the folder of PostgreSQL's programs.
func findPostgres() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			return filepath.Dir(p), nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // Debian's
	if len(found) == 0 {
		return "", errNoPostgres
	}
	return filepath.Dir(found[len(found)-1]), nil
}
