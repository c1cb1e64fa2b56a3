package delivery

import (
	"context"

	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/smtp"
)

// DMARC is a Policy that does what the Verifier's Policy says: without one that
// is what the author's domain asks for (RFC 9989). A message is refused with
// 550 5.7.1, or goes to the junk.
func DMARC(ctx context.Context, in *Inbound) error {
	if in.Auth == nil {
		return nil
	}
	switch v := in.Auth.Verdict; v.Action {
	case verify.Reject:
		text := v.Reason
		if text == "" {
			text = "Refused by policy"
		}
		return &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 1}, Scope: smtp.ScopeMessage, Text: text}
	case verify.Quarantine:
		in.Junk = true
	}
	return nil
}
