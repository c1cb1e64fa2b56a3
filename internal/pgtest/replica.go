package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Replica starts a server that follows s by streaming replication, and takes
// no writes until it is promoted. It is asynchronous until s has it in
// synchronous_standby_names. Stop it as any other.
func (s *Server) Replica() (*Server, error) {
	if !s.Own() {
		return nil, errors.New("pgtest: a replica needs a server of the test's own")
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	r := &Server{bin: s.bin, dir: dir, owner: s.owner}
	r.DSN = fmt.Sprintf("host=%s user=postrider dbname=postgres sslmode=disable", dir)
	if r.owner != nil {
		uid, _ := strconv.Atoi(r.owner.Uid)
		gid, _ := strconv.Atoi(r.owner.Gid)
		err = os.Chown(dir, uid, gid)
	}
	if err == nil {
		err = r.run("pg_basebackup", "-D", r.data(), "-h", s.dir, "-U", "postrider", "-R", "-X", "stream", "-c", "fast", "--no-sync")
	}
	if err == nil {
		err = r.append(fmt.Sprintf("unix_socket_directories = '%s'\n", dir)) // the last one counts
	}
	if err == nil {
		err = r.Restart()
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return r, nil
}

func (s *Server) append(settings string) error {
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(settings)
	return errors.Join(err, f.Close())
}

// Promote ends the following: from then on the replica takes writes.
func (s *Server) Promote() error {
	return s.run("pg_ctl", "-D", s.data(), "-w", "-s", "promote")
}

// Either connects to whichever of two servers takes writes.
func Either(a, b *Server) string {
	return fmt.Sprintf("host=%s,%s user=postrider dbname=postgres sslmode=disable target_session_attrs=read-write", a.dir, b.dir)
}
