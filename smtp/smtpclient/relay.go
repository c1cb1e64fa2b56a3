package smtpclient

import (
	"context"
	"net/netip"

	"github.com/postrider/postrider/smtp"
)

// Relay sends everything through one host: a smarthost, a provider's
// submission service, or an LMTP server. It is a transport for a queue, and
// may be used from many goroutines. The fields are those of [Target].
type Relay struct {
	Addr        string // host:port, or the absolute path of a Unix socket
	Name        string // in the host's certificate; "" = the host of Addr
	Source      netip.Addr
	Need        Security
	ImplicitTLS bool // TLS from the first octet, as port 465 does (RFC 8314)
	LMTP        bool
	Auth        *Auth
	// Pool keeps connections, and its Dialer has further settings; nil = a
	// connection for each Deliver, with the zero Dialer.
	Pool *Pool
}

// Deliver sends one message, and returns a result for each recipient of env,
// in order. ctx may end it up to the last octet before the final dot; see
// [Conn.Send].
func (r *Relay) Deliver(ctx context.Context, env *smtp.Envelope, body Body) []smtp.Result {
	t := Target{Addr: r.Addr, Name: r.Name, Source: r.Source, Need: r.Need, ImplicitTLS: r.ImplicitTLS, LMTP: r.LMTP, Auth: r.Auth}
	if r.Pool != nil {
		return r.Pool.Send(ctx, t, env, body)
	}
	return (&Dialer{}).Send(ctx, t, env, body)
}
