// Package pgtest runs a private PostgreSQL server for tests, from whatever
// binaries are installed: on a Unix socket in a temporary folder, as a user
// without privileges.
package pgtest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// Env names a server that tests use instead of their own, as a connection
// string. Each test makes a schema of its own there.
const Env = "POSTRIDER_PG_DSN"

// EnvBin names the folder of the programs to use instead of those that are
// installed: initdb, pg_ctl and postgres, of another version perhaps.
const EnvBin = "POSTRIDER_PG_BIN"

// ErrNone says that there is no PostgreSQL to be had.
var ErrNone = errors.New("pgtest: PostgreSQL is not installed (no initdb in PATH or /usr/lib/postgresql), and neither " + Env + " nor " + EnvBin + " is set")

// Server is one running server.
type Server struct {
	// DSN connects to it.
	DSN string

	bin, dir string
	disk     string     // what is mounted
	owner    *user.User // who runs it when we are root
}

// settings suit tests: little memory, nothing in the way. What a test kills is
// the server and not the machine, so that nothing need reach the disk, except
// in benchmarks.
const settings = `
listen_addresses = ''
max_connections = 200
shared_buffers = 64MB
unix_socket_directories = '%s'
fsync = %s
`

// Start starts a server. Stop it when the tests are over.
func Start() (*Server, error) {
	if dsn := os.Getenv(Env); dsn != "" {
		return &Server{DSN: dsn}, nil
	}
	return start(0)
}

// ErrRoom says that this machine cannot make a small disk.
var ErrRoom = errors.New("pgtest: a server on a small disk needs root, and a right to mount")

// StartSmall starts a server whose tables have so many octets of disk. Its
// write-ahead log is elsewhere: without room for that PostgreSQL crashes.
func StartSmall(octets int64) (*Server, error) {
	if os.Geteuid() != 0 {
		return nil, ErrRoom
	}
	return start(octets)
}

func start(octets int64) (*Server, error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir}
	if os.Geteuid() == 0 {
		// PostgreSQL refuses to run as root.
		if s.owner, err = unprivileged(); err == nil {
			uid, _ := strconv.Atoi(s.owner.Uid)
			gid, _ := strconv.Atoi(s.owner.Gid)
			err = os.Chown(dir, uid, gid)
		}
		if err != nil {
			os.RemoveAll(dir)
			return nil, err
		}
	}
	s.DSN = fmt.Sprintf("host=%s user=postrider dbname=postgres sslmode=disable", dir)
	if octets > 0 {
		if err := s.mount(octets); err != nil {
			os.RemoveAll(dir)
			return nil, err
		}
	}
	err = s.run("initdb", "-D", s.data(), "--waldir", filepath.Join(dir, "wal"), "-U", "postrider", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if err == nil {
		err = s.configure()
	}
	if err == nil {
		err = s.Restart()
	}
	if err != nil {
		s.unmount()
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// mount puts the data on a disk of its own, in memory.
func (s *Server) mount(octets int64) error {
	disk := filepath.Join(s.dir, "data")
	if err := os.Mkdir(disk, 0o700); err != nil {
		return err
	}
	options := fmt.Sprintf("size=%d,mode=0700", octets)
	if s.owner != nil {
		options += ",uid=" + s.owner.Uid + ",gid=" + s.owner.Gid
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", disk).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %w: %s", ErrRoom, err, out)
	}
	s.disk = disk
	return nil
}

func (s *Server) unmount() error {
	if s.disk == "" {
		return nil
	}
	// Processes that are still ending do not stand in its way.
	return exec.Command("umount", "-l", s.disk).Run()
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) configure() error {
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	fsync := "on"
	if testing.Testing() && flag.Lookup("test.bench").Value.String() == "" {
		fsync = "off"
	}
	_, err = fmt.Fprintf(f, settings, s.dir, fsync)
	return errors.Join(err, f.Close())
}

// Restart starts the server after Kill.
func (s *Server) Restart() error {
	return s.run("pg_ctl", "-D", s.data(), "-l", filepath.Join(s.dir, "log"), "-w", "-s", "start")
}

// Kill ends the server as a crash would: nothing is written any more.
func (s *Server) Kill() error {
	return s.run("pg_ctl", "-D", s.data(), "-m", "immediate", "-w", "-s", "stop")
}

// Own reports whether the server may be killed.
func (s *Server) Own() bool { return s.dir != "" }

// Stop ends the server and removes its data.
func (s *Server) Stop() error {
	if !s.Own() {
		return nil
	}
	return errors.Join(s.Kill(), s.unmount(), os.RemoveAll(s.dir))
}

// run runs a program of PostgreSQL's as the server's owner.
func (s *Server) run(name string, args ...string) error {
	args = append([]string{filepath.Join(s.bin, name)}, args...)
	if s.owner != nil {
		args = append([]string{"runuser", "-u", s.owner.Username, "--"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// The server inherits what pg_ctl has open: a pipe would keep Run waiting.
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	if name == "pg_ctl" {
		cmd.Stdout, cmd.Stderr, cmd.Stdin = nil, nil, null
	}
	if err := cmd.Run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		return fmt.Errorf("pgtest: %s: %w\n%s%s", name, err, out.Bytes(), log)
	}
	return nil
}

// find returns the folder of the newest PostgreSQL's programs.
func find() (string, error) {
	if bin := os.Getenv(EnvBin); bin != "" {
		return bin, nil
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			return filepath.Dir(p), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", ErrNone
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(newest), nil
}

func unprivileged() (*user.User, error) {
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return u, nil
		}
	}
	return nil, errors.New("pgtest: there is no user postgres or nobody to run the server as")
}
