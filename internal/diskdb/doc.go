// Package diskdb is a Pebble database in a directory of its own, as the
// engines on disk keep one: locked against a second process, of a known
// format, and guarded against a full disk, which the database itself can do
// nothing about.
package diskdb
