package diskqueue

import "github.com/cockroachdb/pebble/v2/vfs"

// SetFS gives a storage another file system than the system's.
func (o *Options) SetFS(disk vfs.FS) { o.fs = disk }
