// Package dnserr reads the errors of resolvers: whatever has the method
// shapes of *net.Resolver may say why there is no answer.
package dnserr

import (
	"errors"
	"net"
)

// NXDomain reports whether err says that the name does not exist at all. A
// *net.DNSError cannot say so: its IsNotFound covers NODATA too.
func NXDomain(err error) bool {
	var nx interface{ NXDomain() bool }
	return errors.As(err, &nx) && nx.NXDomain()
}

// NotFound reports whether err is an answer, namely that there are no such
// records, rather than a failure to get one.
func NotFound(err error) bool {
	if err == nil {
		return false
	}
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound || NXDomain(err)
}
