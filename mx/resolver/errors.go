package resolver

import (
	"errors"
	"net"
)

// Causes of an [*Error].
var (
	// ErrNXDomain: there is no such name (RFC 8020).
	ErrNXDomain = errors.New("no such domain")
	// ErrNoData: the name has no record of this type (RFC 2308 §2.2).
	ErrNoData = errors.New("no such record")
	// ErrServer: the servers answered that they cannot (SERVFAIL, REFUSED…).
	ErrServer = errors.New("server failure")
	// ErrBogus: a server says that DNSSEC found the answer forged or broken
	// (RFC 4035 §4.3, by RFC 8914's codes).
	ErrBogus = errors.New("bogus: DNSSEC validation failed")
	// ErrTimeout: no server answered in time.
	ErrTimeout = errors.New("timeout")
	// ErrMalformed: the answer cannot be understood, or is beyond the limits.
	ErrMalformed = errors.New("malformed answer")
	// ErrName: the name cannot be asked for.
	ErrName = errors.New("invalid name")
)

// Error is why a name has no answer. errors.As finds a *net.DNSError in it,
// as code made for *net.Resolver expects, and errors.Is its causes.
type Error struct {
	Name   string // as asked for
	Type   string // "MX", "A", …
	Server string // the last one asked, "" = none
	Err    error  // one of the causes above, a context's error, or the network's
}

func (e *Error) Error() string {
	s := "lookup " + e.Type + " " + e.Name
	if e.Server != "" {
		s += " on " + e.Server
	}
	return s + ": " + e.Err.Error()
}

// NXDomain reports that the name itself does not exist.
func (e *Error) NXDomain() bool { return errors.Is(e.Err, ErrNXDomain) }

// NotFound reports that there is no such record, whether or not the name exists.
func (e *Error) NotFound() bool {
	return errors.Is(e.Err, ErrNXDomain) || errors.Is(e.Err, ErrNoData)
}

// Timeout reports that no answer came in time.
func (e *Error) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.Is(e.Err, ErrTimeout) || errors.As(e.Err, &t) && t.Timeout()
}

// Temporary reports that asking again later may help.
func (e *Error) Temporary() bool { return !e.NotFound() && !errors.Is(e.Err, ErrName) }

// Unwrap returns the cause, and the error that *net.Resolver would give.
func (e *Error) Unwrap() []error {
	return []error{e.Err, &net.DNSError{
		Err: e.Err.Error(), UnwrapErr: e.Err, Name: e.Name, Server: e.Server,
		IsNotFound: e.NotFound(), IsTimeout: e.Timeout(), IsTemporary: e.Temporary(),
	}}
}
