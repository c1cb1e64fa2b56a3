// Package auth is where a receiver writes down what it found out about a
// message: the Authentication-Results header field of RFC 8601, built and
// parsed, and the result words that its sub-packages share.
//
// The checks themselves are next door, each usable alone:
//
//   - [github.com/postrider/postrider/auth/spf]: may this client send for that domain; records linted and made flat (RFC 7208)
//   - [github.com/postrider/postrider/auth/dkim]: sign, and verify signatures (RFC 6376, RFC 8301, RFC 8463)
//   - [github.com/postrider/postrider/auth/dmarc]: what the author's domain asks for (RFC 9989)
//   - [github.com/postrider/postrider/auth/arc]: what hosts on the way have found out, sealed (RFC 8617)
//   - [github.com/postrider/postrider/auth/verify]: all of them over one message in a single pass
//   - [github.com/postrider/postrider/auth/authtest]: domains that pass, for tests
//
// Whatever looks up names asks for an interface with the method shapes of
// *net.Resolver, so that a *net.Resolver fits as it is. Names are looked up
// with a final dot. How errors are read:
//
//   - An error in whose chain NXDomain() bool says true: the name does not exist.
//   - A *net.DNSError with IsNotFound, or no error and no records: there are
//     no such records. Whether the name exists is unknown; only DMARC's np tag
//     asks (see dmarc).
//   - Anything else: the lookup failed and may succeed later (temperror).
package auth
