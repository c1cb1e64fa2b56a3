package main

import (
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestDiskFull lets the disk run full under the program: it answers 452, goes
// on living, loses nothing, and takes mail again when there is room.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("POSTRIDER_REQUIRE") != "" {
			t.Fatal("only root can mount a file system")
		}
		t.Skip("only root can mount a file system")
	}
	data := t.TempDir()
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=96m"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(data, 0)
	far := newFarSide(t)
	far.well.Store(true)
	far.shut.Store(true)
	p := child(t, append(far.args, "-data", data, "-retry", "500ms")...)
	nc, c, err := logIn(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nc.SetDeadline(time.Now().Add(2 * time.Minute))
	n := 0
	try := func() error {
		n++
		id := fmt.Sprint("full-", n)
		for _, s := range []struct {
			line string
			code int
		}{{"MAIL FROM:<alice@example.test>", 250}, {"RCPT TO:<x@a.far.test>", 250}, {"DATA", 354}} {
			if err := command(c, s.code, s.line); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(nc, loadText(id, []int{3_000, 40_000, 200_000}[n%3])+".\r\n"); err != nil {
			return err
		}
		if _, _, err := c.ReadResponse(250); err != nil {
			return err
		}
		return far.ack(id, []string{"x@a.far.test"})
	}
	full := func(what string) {
		t.Helper()
		var reply *textproto.Error
		for {
			err := try()
			if err == nil {
				continue
			}
			if !errors.As(err, &reply) || reply.Code != 452 {
				t.Fatalf("%s: %v, want 452", what, err)
			}
			break
		}
		if err := command(c, 250, "RSET"); err != nil {
			t.Fatal(err)
		}
	}
	full("full of mail")
	far.mu.Lock()
	taken := len(far.acked)
	far.mu.Unlock()
	// Somebody takes the rest, while outcomes are written.
	filler := filepath.Join(data, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(chunk)
	}
	f.Close()
	full("with no octet left")
	<-time.After(time.Second)
	full("some time later")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	far.shut.Store(false)
	for far.missing() > 0 {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("not all of it comes")
		}
	}
	for err := try(); err != nil; err = try() {
		var reply *textproto.Error
		if !errors.As(err, &reply) || reply.Code != 452 {
			t.Fatalf("with room again: %v", err)
		}
		if err := command(c, 250, "RSET"); err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
	c.Close()
	for far.missing() > 0 {
		<-time.After(20 * time.Millisecond)
	}
	p.cmd.Process.Signal(os.Interrupt)
	if err := p.end(); err != nil {
		t.Errorf("the server ended with %v\n%s", err, p.log.Bytes())
	}
	if left, _ := queued(t, data); len(left) > 0 {
		t.Errorf("%d parcels are still queued", len(left))
	}
	far.judge(t, nil)
	t.Logf("%d messages fit, then 452; all of them came, once", taken)
}
