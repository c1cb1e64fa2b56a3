package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const mkfsBin = "/usr/sbin/mkfs.ext4"

// disk is a journaled ext4 in a file. Its path is "" until it is mounted.
type disk struct{ dir, path string }

func (d *disk) mount() error {
	var err error
	if d.dir, err = os.MkdirTemp("", "peerbench-*"); err != nil {
		return err
	}
	os.Chmod(d.dir, 0o755)
	image, path := filepath.Join(d.dir, "image"), filepath.Join(d.dir, "disk")
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(8<<30), f.Close(), os.Mkdir(path, 0o755))
	if err != nil {
		return err
	}
	for _, args := range [][]string{{mkfsBin, "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image}, {"mount", "-o", "loop,noatime", image, path}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	d.path = path
	return nil
}

func (d *disk) close() {
	if d.path != "" {
		exec.Command("umount", d.path).Run()
		os.RemoveAll(d.dir)
		d.path = ""
	}
}

// treeCPU is what a process and all below it have used.
func treeCPU(root int) (time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	type process struct{ parent, own, reaped int }
	all := make(map[int]process)
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		pid, rest, _ := strings.Cut(string(text), " ")
		f := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		if len(f) < 15 {
			continue
		}
		n := make([]int, 16)
		for i := range f[:15] {
			n[i], _ = strconv.Atoi(f[i])
		}
		id, _ := strconv.Atoi(pid)
		all[id] = process{parent: n[1], own: n[11] + n[12], reaped: n[13] + n[14]}
	}
	ticks := 0
	for id, p := range all {
		for up := id; up > 1; up = all[up].parent {
			if up == root {
				ticks += p.own + p.reaped
				break
			}
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
