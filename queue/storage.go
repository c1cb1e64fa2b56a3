package queue

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/postrider/postrider/smtp"
)

// Errors of a Storage.
var (
	// ErrFull: no room now. Outcomes still fit.
	ErrFull = errors.New("queue: storage is full")
	// ErrLeaseLost: the owner was not renewed in time, or the lease is over.
	ErrLeaseLost = errors.New("queue: lease lost")
	// ErrNotFound: the last entry of the message is finished.
	ErrNotFound = errors.New("queue: no such message")
)

// Storage keeps messages until each of their recipients is done. All methods
// are used from many goroutines, and by any number of queues at once, each of
// which is an [Owner].
//
// An entry is free, held or leased. Free entries are found by lane; no method
// may cost time in proportion to the entries of other lanes. Times are by the
// storage's clock. The package queuetest checks all that is said here.
//
// A storage may also be a [Waker], [Lister], [Editor] and [EventLog].
type Storage interface {
	// Stage opens a place for one body. size is a hint in octets, -1 =
	// unknown; ErrFull at once when that cannot fit. It never waits for
	// others to give room back.
	Stage(ctx context.Context, size int64) (Staged, error)

	// Put makes bodies, entries and events durable, all or none. Bodies
	// become the storage's; one that was not staged here is copied. A known
	// (Tenant, Key), for 72 hours also of messages gone by now, sets
	// Duplicate and Message.ID instead: the first wins, whatever the content.
	//
	// An error may still mean "stored". The bodies are the caller's then, and
	// a second Put of the same IDs while they are queued changes nothing.
	Put(ctx context.Context, s ...*Submission) error

	// Lanes yields each lane with a free entry due by before, once, in any
	// order of lanes, with its earliest Due (which may be in the future: that
	// is when to wake up); and Lane{Dest: Alarms} with the earliest Alarm of
	// free entries when that is by before. No lock is held while it is
	// consumed.
	Lanes(ctx context.Context, before time.Time) iter.Seq2[LaneDue, error]

	// Lease claims, per want, up to Max due entries of that lane, earliest
	// first, in one step, and only what was asked for. Two owners never hold
	// one entry. ErrLeaseLost when o is unknown or dead.
	Lease(ctx context.Context, o Owner, want []Want) ([]*Lease, error)

	// Renew keeps all leases of o for d from now; the first call registers
	// o. An owner not renewed in time is dead for good: its entries are free
	// as they were, and Renew, Lease and Finish give ErrLeaseLost. Callers
	// count d from before the call. With d = 0 an owner leaves at once.
	Renew(ctx context.Context, o Owner, d time.Duration) (Renewal, error)

	// Finish writes an outcome in one step with what it carries: recipients
	// done, the next Due, mail that follows from it, events; then edits made
	// meanwhile. Without recipients left the entry is gone, and with the last
	// entry its message. ErrLeaseLost, also for an old Token, writes nothing.
	// There is always room for an outcome.
	Finish(ctx context.Context, o *Outcome) error

	// Open returns Head and Body as one. What is open stays readable after
	// the last entry is finished; opening it then gives ErrNotFound.
	Open(ctx context.Context, m *Message) (Blob, error)
}

// Staged is a body that is not stored yet. One goroutine writes it; Close
// without Put discards it, Close after a Put that worked does nothing.
type Staged interface {
	io.Writer
	io.ReaderAt
	Size() int64
	Close() error
}

// Body is what a Transport reads a message from. Sequential reads are cheap.
type Body = interface {
	io.ReaderAt
	Size() int64
}

// Blob is an open message.
type Blob interface {
	Body
	io.Closer
}

// Owner is one run of a queue, unique for each start.
type Owner string

// NewOwner returns an owner that nobody else is.
func NewOwner() Owner { return Owner(NewID().String()) }

// NewReader returns an owner, like NewOwner, that delivers nothing: it reads an
// [EventLog], and is not counted among the Owners of a Renewal.
func NewReader() Owner { return readers + NewOwner() }

const readers = "!"

// Delivers reports whether o counts among those who share the limits.
func (o Owner) Delivers() bool { return !strings.HasPrefix(string(o), readers) }

// LaneDue is a lane and when its first free entry is due.
type LaneDue struct {
	Lane Lane
	Due  time.Time
}

// Want asks for up to Max entries of a lane.
type Want struct {
	Lane Lane
	Max  int
}

// Lease is one entry in an owner's hands.
type Lease struct {
	Entry *Entry
	Owner Owner
	// Token counts the leases of an entry from 1, so that an old one can be
	// told from the present one of the same owner.
	Token int64
}

// Renewal is what an owner learns when it renews.
type Renewal struct {
	// Revoked are leased entries that were held, dropped or moved meanwhile.
	Revoked []ID
	// Paused are the rules of what may not be sent now.
	Paused []Filter
	// Rank is this owner's place, from 0, among the Owners alive that deliver.
	Rank, Owners int
}

// Outcome is what became of a lease.
type Outcome struct {
	Lease *Lease
	// Done are the recipients that are finished, as ascending indexes into
	// the entry's Envelope.To.
	Done []int
	// Last is the last result of each recipient that is left, aligned.
	Last []smtp.Result
	// Due, Alarm, Held, Suspended and Attempt are written as they are.
	Due, Alarm      time.Time
	Held, Suspended bool
	Attempt         int
	// Lane moves the entry; zero = it stays.
	Lane Lane
	// Put is stored in the same step. Any Staged may be its body.
	Put    []*Submission
	Events []Event
}

// Waker is a Storage that says when something may have become due. It is a
// hint: storages without it are asked each second.
type Waker interface {
	// Wake returns a channel that is closed at the next such change.
	Wake() <-chan struct{}
}

// EventLog is a Storage that keeps events until they were acknowledged, so
// that each is seen at least once.
type EventLog interface {
	// NextEvents leases up to max events to o, oldest first.
	NextEvents(ctx context.Context, o Owner, max int) ([]Event, error)
	// AckEvents forgets events.
	AckEvents(ctx context.Context, ids ...ID) error
}
