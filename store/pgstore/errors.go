package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postrider/postrider/store"
)

// What PostgreSQL calls the errors that mean something here.
const (
	uniqueViolation     = "23505"
	foreignKeyViolation = "23503"
	serialization       = "40001"
	deadlock            = "40P01"
)

func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// fail turns an error of the database into one of package store. Those of a
// context are left as they are.
func fail(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), known(err):
		return err
	case errors.Is(err, pgx.ErrNoRows):
		return store.ErrNotExist
	case code(err) == uniqueViolation:
		return fmt.Errorf("%w: %w", store.ErrExist, err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// known reports whether err is one of ours or of the caller's body.
func known(err error) bool {
	var b bodyError
	if errors.As(err, &b) {
		return true
	}
	for _, e := range []error{
		store.ErrNotExist, store.ErrExist, store.ErrPermission, store.ErrQuota, store.ErrLimit,
		store.ErrTooBig, store.ErrForgotten, store.ErrUnavailable, ErrVersion,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// one reports whether PostgreSQL refused, with err, something about one of the
// rows of a statement, so that nothing happened and the others may fare better.
func one(err error) bool {
	switch c := code(err); {
	case len(c) != 5:
		return false
	default:
		class := c[:2]
		return class == "21" || class == "22" || class == "23" || class == "54"
	}
}

// errBusy says that the pool had no connection to give for a while.
var errBusy = fmt.Errorf("%w: all connections of the pool are in use", store.ErrUnavailable)

// errSwept says that a body that was to be linked was removed, because nothing
// used it for the grace.
var errSwept = fmt.Errorf("%w: the body is not there any more", store.ErrUnavailable)

// bodyError is a failure to read a body that the caller gave.
type bodyError struct{ err error }

func (e bodyError) Error() string { return "pgstore: reading the body: " + e.err.Error() }
func (e bodyError) Unwrap() error { return e.err }
