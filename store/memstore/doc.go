// Package memstore keeps mail in memory: a complete [store.Store] for tests,
// for demonstrations and for mail that need not outlive the process. It has
// history, atomic writes, quotas, watching and threads, and passes all of
// storetest.
//
//	s := memstore.New()
//	err := s.CreateAccount(ctx, "alice")
//	acc, err := s.Account(ctx, "alice")
//
// A write is durable here when it is in memory. Bodies are kept once, however
// many copies and recipients share them.
package memstore
