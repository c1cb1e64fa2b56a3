// Package queuetest checks storages of package queue, and scripts the far side
// for tests of programs that use a queue.
//
//	func TestStorage(t *testing.T) {
//		queuetest.Run(t, func(t *testing.T, c queuetest.Config) queue.Storage {
//			return &memqueue.Storage{Now: c.Now, MaxBytes: c.MaxBytes}
//		})
//	}
//
// [Run] takes any queue.Storage through what its documentation promises, and a
// [Crasher] through crashes before each step of its disk.
// [Transport] is a queue.Transport that answers what a test says.
package queuetest
