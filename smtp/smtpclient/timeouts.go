package smtpclient

import "time"

// Timeouts bound each wait for the peer; 0 = the default named, negative = no
// limit. Except for Connect and TLS the defaults are those of RFC 5321
// §4.5.3.2.
type Timeouts struct {
	Connect  time.Duration // 30 s, opening the connection
	TLS      time.Duration // 1 min, the handshake
	Greeting time.Duration // 5 min, the banner
	Command  time.Duration // 5 min, the reply to EHLO, AUTH, MAIL, RCPT, RSET and NOOP
	Data     time.Duration // 2 min, the reply to DATA
	Block    time.Duration // 3 min, the peer's taking of each 32 KiB of the message
	Dot      time.Duration // 10 min, the reply after the message
	Quit     time.Duration // 5 s, the reply to QUIT; nothing depends on it
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

func (t Timeouts) withDefaults() Timeouts {
	t.Connect = orDefault(t.Connect, 30*time.Second)
	t.TLS = orDefault(t.TLS, time.Minute)
	t.Greeting = orDefault(t.Greeting, 5*time.Minute)
	t.Command = orDefault(t.Command, 5*time.Minute)
	t.Data = orDefault(t.Data, 2*time.Minute)
	t.Block = orDefault(t.Block, 3*time.Minute)
	t.Dot = orDefault(t.Dot, 10*time.Minute)
	t.Quit = orDefault(t.Quit, 5*time.Second)
	return t
}
