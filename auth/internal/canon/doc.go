// Package canon is what every kind of signature over a message shares: the
// header kept as it came, the canonical forms of RFC 6376 §3.4, a hash of the
// body in one pass, and tag lists.
package canon
