package delivery

import (
	"context"

	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/smtp"
)

// DMARC is a Policy that does what the author's domain asks for (RFC 9989):
// a message that fails is refused with 550 5.7.1, or goes to the junk.
func DMARC(ctx context.Context, in *Inbound) error {
	if in.Auth == nil {
		return nil
	}
	switch in.Auth.DMARC.Disposition {
	case dmarc.Reject:
		return &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 1}, Scope: smtp.ScopeMessage,
			Text: "The domain in From asks for messages to be rejected that fail DMARC"}
	case dmarc.Quarantine:
		in.Junk = true
	}
	return nil
}
