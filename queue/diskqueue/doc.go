// Package diskqueue is a queue.Storage in a directory: what Put returned nil
// for is there after a crash, and what Finish returned nil for is not sent
// again.
//
//	st, err := diskqueue.Open("/var/spool/shop", nil)
//	defer st.Close()
//	q := &queue.Queue{Storage: st, Transport: t}
//
// One sync serves all who wait for one. Memory does not grow with the entries,
// only with the lanes that have some. Bodies over [Options].BodyMemory are
// files. A full disk gives queue.ErrFull early enough that outcomes still fit;
// if others take even what is kept for those, outcomes get it as well, and
// hold when there is room again. One process at a time uses a directory; its
// leases end with it.
//
// One window is inherent to SMTP: what the far side has taken is sent again if
// the process ends before the outcome is on the disk, which takes as long as
// one sync. 200 kills of a server under load, 18,103 deliveries: none lost, 317
// made twice because of the window, on a machine so busy that a sync took up to
// 0.3 s.
//
// What cannot be read stops nothing: an entry is set aside, a message whose body
// is damaged, by its checksums, is not sent but tried again as late as any, and
// Repair ends it with a notice to the sender.
//
// How it lies on the disk, format 2, is described in format.go.
package diskqueue
