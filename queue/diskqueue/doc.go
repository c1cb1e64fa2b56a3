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
// files. A full disk gives queue.ErrFull early enough that outcomes still fit.
// One process at a time uses a directory; its leases end with it.
//
// How it lies on the disk, format 1, is described in format.go.
package diskqueue
