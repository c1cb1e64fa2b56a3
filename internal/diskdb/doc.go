// Package diskdb is a Pebble database in a directory of its own, as the
// engines on disk keep one: locked against a second process, of a known
// format, and guarded against a full disk, which the database itself can do
// nothing about.
//
// What the disk damages is an error to who reads it. One case is left: a file
// of values that was removed between two runs ends the process when a
// compaction wants it, and Close has an error. A backup is the way out.
package diskdb
