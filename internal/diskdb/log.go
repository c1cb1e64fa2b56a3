package diskdb

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFile is a log of the database, which is written ahead with zeros: a sync
// of octets that lie where others lay before changes nothing about the file,
// and on a journaled file system takes half the time of one that makes the
// file longer. The database uses its logs again for that reason, and takes
// what it finds behind the end of one, zeros too, for its end; but it begins
// with many short ones. Where each sync is of much, that gains nothing and
// costs writing twice.
type logFile struct {
	vfs.File
	d      *DB
	at     int64 // where the next octet goes
	filled int64 // up to where something lies
	synced int64 // what at was at the last sync
	each   int64 // octets for each sync, about
}

const (
	leastAhead = 128 << 10
	mostAhead  = mib
	mostEach   = 32 << 10
)

// log opens a log for writing; f is new, or one that is used again.
func (t tables) log(name string, f vfs.File, c vfs.DiskWriteCategory) (vfs.File, error) {
	info, err := f.Stat()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	// Not all files that Create gives can be written at any place.
	if f, err = t.FS.OpenReadWrite(name, c); err != nil {
		return nil, err
	}
	return &logFile{File: f, d: t.d, filled: info.Size()}, nil
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

func (l *logFile) Write(p []byte) (int, error) {
	if end := l.at + int64(len(p)); end > l.filled && l.each < mostEach {
		n := min(max(l.at, leastAhead), mostAhead, int64(l.d.memTable)/8)
		if l.filled = max(l.filled, end); l.d.spare(n) {
			l.fill(end + n)
		}
	}
	n, err := l.File.Write(p)
	l.at += int64(n)
	return n, err
}

// fill writes zeros up to there. If that fails the log is none the worse.
func (l *logFile) fill(to int64) {
	zeros := make([]byte, min(to-l.filled, leastAhead))
	for l.filled < to {
		n, err := l.File.WriteAt(zeros[:min(to-l.filled, leastAhead)], l.filled)
		l.filled += int64(n)
		if err != nil {
			return
		}
	}
}

func (l *logFile) Sync() error {
	l.count()
	return l.File.Sync()
}

func (l *logFile) SyncData() error {
	l.count()
	return l.File.SyncData()
}

func (l *logFile) count() {
	l.each += (l.at - l.synced - l.each) / 8
	l.synced = l.at
}
