// Package diskstore keeps mail on disk: a complete [store.Store] in one
// directory of one machine, on Pebble, with large bodies as files beside it.
//
//	s, err := diskstore.Open("/var/mail/postrider", nil)
//	err = s.CreateAccount(ctx, "alice")
//	acc, err := s.Account(ctx, "alice")
//	defer s.Close()
//
// A write is on the disk when it returns; concurrent writes share one flush.
// What nobody can have lost in a crash is also what readers see: nothing is
// shown before it is durable. A body is kept once however many copies and
// recipients share it. Changing a flag on a whole mailbox writes a few octets
// for each thousand messages, and expunging one record.
//
// [Store.Check] and [Store.Repair] look after damage, [Store.Backup] copies
// a store that is running. One process uses a directory at a time.
//
// layout.go describes what lies on the disk.
package diskstore
