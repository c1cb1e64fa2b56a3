package delivery

import (
	"context"
	"errors"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/store"
)

// What a Recipients func says of an address that it does not take.
var (
	ErrNoUser = errors.New("delivery: no such user")         // 550 5.1.1
	ErrRelay  = errors.New("delivery: not a domain of ours") // 550 5.7.1
)

// refusal turns an error into what the peer is told. It is the one table of
// this package.
func refusal(err error) error {
	var e *smtp.Error
	reply := func(code int, class, subject, detail uint16, text string) error {
		return &smtp.Error{Code: code, Enhanced: smtp.EnhancedCode{class, subject, detail}, Text: text, Err: err}
	}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return err
	case errors.Is(err, ErrRelay):
		return reply(550, 5, 7, 1, "Relaying denied")
	case errors.Is(err, ErrNoUser), errors.Is(err, store.ErrNotExist):
		return reply(550, 5, 1, 1, "No such user here")
	case errors.Is(err, store.ErrPermission):
		return reply(550, 5, 7, 1, "Delivery not permitted")
	case errors.Is(err, store.ErrQuota):
		return reply(452, 4, 2, 2, "Mailbox is full")
	case errors.Is(err, store.ErrLimit):
		return reply(452, 4, 2, 2, "Mailbox is at its limit")
	case errors.Is(err, store.ErrTooBig):
		return reply(552, 5, 3, 4, "Message is too big")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return reply(451, 4, 3, 2, "Interrupted, try again later")
	}
	return reply(451, 4, 3, 0, "Local error, try again later")
}

// temporary reports whether err, from refusal, may be gone at the next try.
func temporary(err error) bool {
	var e *smtp.Error
	return !errors.As(err, &e) || e.Temporary()
}

// joint is the one answer for all recipients: nil when all have the message,
// else the first temporary failure, which makes the sender try again, else
// the first permanent one.
func joint(errs []error) error {
	var first error
	for _, err := range errs {
		switch {
		case err == nil:
		case temporary(err):
			return err
		case first == nil:
			first = err
		}
	}
	return first
}
