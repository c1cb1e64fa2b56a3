package submission

import (
	"context"
	"io"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// PrepareRaw runs the pipeline on a message as it stands.
func PrepareRaw(s *Submitter, ctx context.Context, r io.Reader) (*queue.Submission, error) {
	to := smtp.Recipient{Address: smtp.Address{Local: "r", Domain: "far.test"}}
	limits, _ := s.limits(ctx, nil)
	return s.prepare(ctx, &mail{limits: limits, Mail: queue.Mail{Envelope: smtp.Envelope{To: []smtp.Recipient{to}}, Body: r}})
}
