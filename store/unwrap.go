package store

// As returns v as a T: v itself, or the first that is one among what it wraps.
// A Store or Account that wraps another, and has all that the other has beside
// what it adds, says so by a method Unwrap that returns a Store or Account.
// So a wrapper need not repeat the optional interfaces.
func As[T any](v any) (T, bool) {
	for {
		if t, ok := v.(T); ok {
			return t, true
		}
		switch w := v.(type) {
		case interface{ Unwrap() Account }:
			v = w.Unwrap()
		case interface{ Unwrap() Store }:
			v = w.Unwrap()
		default:
			var none T
			return none, false
		}
	}
}
