package store

import "math"

// UID identifies a message within a mailbox and its UIDVALIDITY; 0 is none.
type UID uint32

// MaxUID is the greatest UID.
const MaxUID UID = math.MaxUint32

// UIDRange is First to Last, both included.
type UIDRange struct{ First, Last UID }

// UIDSet is a set of UIDs: ascending, disjoint ranges. A store must accept
// {1, MaxUID}.
type UIDSet []UIDRange
