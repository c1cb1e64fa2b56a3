// Package storetest tells whether a store keeps the laws that servers rely
// on. Whoever implements store.Store runs it in a test of their own:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, storetest.Config{
//			Open: func() (one, two store.Store, err error) {
//				s := mystore.New()
//				return s, s, nil
//			},
//		})
//	}
//
// Each law is a subtest, and a failure says which law is broken and how it
// showed. Laws about an optional interface are skipped when the store does not
// have it. A store that is a [Crasher] is stopped between any two steps of its
// disk. [Strict] is for the other side: it wraps a store so that a program
// which relies on more than the contract fails.
package storetest
