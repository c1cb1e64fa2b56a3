package milter_test

import (
	"github.com/postrider/postrider/smtp/milter"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// OpenDKIM looks at what rspamd has left.
func ExampleClient_Wrap() {
	var backend smtpserver.Backend // yours
	dkim := &milter.Client{Network: "tcp", Address: "127.0.0.1:8891", FailOpen: true}
	rspamd := &milter.Client{Network: "unix", Address: "/run/rspamd/milter.sock"}
	s := &smtpserver.Server{Backend: smtpserver.Wrap(backend, rspamd.Wrap, dkim.Wrap)}
	_ = s
}
