// Package memqueue is a queue.Storage in memory: for tests, for programs whose
// mail may die with them, and as the model of how a storage behaves.
//
//	q := &queue.Queue{Storage: new(memqueue.Storage), Transport: t}
//
// It is indexed by lane, so that a million entries that wait for one domain
// cost the others nothing. Bodies over a limit lie in temporary files. What is
// still queued when the program ends can be named with List.
package memqueue
