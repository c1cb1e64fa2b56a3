package dkim

import (
	"fmt"

	"github.com/postrider/postrider/auth/internal/canon"
)

// Canonicalization is a way to see two texts as the same (RFC 6376 §3.4).
type Canonicalization string

// The canonicalization algorithms.
const (
	Simple  Canonicalization = "simple"
	Relaxed Canonicalization = "relaxed"
)

const crlf = canon.CRLF

// ErrHeader is the error of a message whose header has more than 1 MiB or
// 4,096 fields: it is neither signed nor verified.
var ErrHeader = canon.ErrHeader

// maxTags is room for the tags of all that is usual.
const maxTags = 16

// appendTags is canon.AppendTags with an error of this package.
func appendTags(tags []canon.Tag, list string) ([]canon.Tag, error) {
	tags, err := canon.AppendTags(tags, list)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return tags, nil
}
