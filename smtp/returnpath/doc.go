// Package returnpath makes reverse-paths that say more than an address when
// they come back: VERP tells which recipient a bounce is about, SRS lets a
// forwarder's mail pass SPF and finds the way back, and BATV tells bounces of
// one's own mail from those of forged mail.
//
//	v := returnpath.VERP{}
//	from := v.Encode(bounces, rcpt) // bounces+ann=example.org@lists.example
//
// SRS and BATV are keyed: whoever has not the secret can make none that is
// taken. All values may be used from many goroutines.
package returnpath
