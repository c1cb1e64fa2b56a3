package queue

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"time"

	"github.com/postrider/postrider/smtp"
)

// ID names a message, an entry or an event. IDs made by NewID sort by the
// time they were made, to the millisecond. The zero ID names nothing.
type ID [16]byte

// The alphabet keeps the order of the octets and is safe in file names,
// header fields and replies.
var idText = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// NewID returns an ID that nobody else has: 48 bits of time, 80 random ones.
func NewID() ID {
	var id ID
	rand.Read(id[6:])
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
	copy(id[:6], ms[2:])
	return id
}

// ParseID reads what ID.String wrote.
func ParseID(s string) (ID, error) {
	var id ID
	err := id.UnmarshalText([]byte(s))
	return id, err
}

// String returns 26 characters of 0-9 and a-v.
func (id ID) String() string { return idText.EncodeToString(id[:]) }

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return idText.AppendEncode(nil, id[:]), nil }

var errID = errors.New("queue: malformed ID")

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	if idText.DecodedLen(len(b)) != len(id) {
		return errID
	}
	var v ID
	if _, err := idText.Decode(v[:], b); err != nil {
		return errID
	}
	// The last character carries spare bits: one ID has one spelling.
	if v.String() != string(b) {
		return errID
	}
	*id = v
	return nil
}

// Lane is the unit of order, fairness and pause. It is comparable.
type Lane struct {
	// Dest is the recipients' domain as smtp.Address has it: an A-label in
	// lower case, or an address literal.
	Dest string
	// Tenant is whoever the mail is sent for; "" is a tenant like any other.
	Tenant string
	// Priority orders the lanes of a site and of a tenant: higher first, and
	// now and then a lower one so that none starves. RFC 6710 uses -9 to 9.
	Priority int8
}

// Alarms is the Dest of the pseudo-lane in which [Storage] lists and leases
// entries whose Alarm is due: Lane{Dest: Alarms}.
const Alarms = "!alarms"

// Message is what all entries of one submission share. Nothing of it changes
// once it is stored.
type Message struct {
	ID               ID
	Tenant, Campaign string
	// Key makes a submission idempotent: see [Storage]. "" = none.
	Key      string
	Received time.Time
	// Size is the length of Head and Body together, in octets. Put sets it.
	Size int64
	// EightBit says that the content has octets above 127.
	EightBit bool
	Meta     map[string]string // the adopter's own
}

// Entry is one message on its way to recipients in one lane, with one
// reverse-path. Whoever receives an Entry from a Storage may keep it and must
// not change it.
type Entry struct {
	ID      ID
	Message *Message
	Lane    Lane
	// Envelope holds the recipients that are not done yet.
	Envelope smtp.Envelope
	// Last is the last result of each of them, aligned; nil before the first
	// attempt. A recipient whose last result is final is not tried any more:
	// the queue that leases the entry next is to say so. See Edit.End.
	Last []smtp.Result
	// Since is when the entry's age began: it was stored then, or was to be
	// sent then.
	Since time.Time
	// Due is when the next attempt may begin.
	Due time.Time
	// Alarm is when the entry must be looked at even if its lane may not
	// send: it is too old, or a delay notice is owed. Zero = never.
	Alarm time.Time
	// Held entries are neither leased nor looked at until they are released.
	Held bool
	// Suspended says that a rule of [Editor].Pause holds it: see Edit.Resume.
	Suspended bool
	// Attempt counts the attempts made.
	Attempt int
	// Owner, set at Put, makes the entry born leased to that owner, with
	// the Token 1. Storages report who leases an entry in it.
	Owner Owner
}

// ended reports whether a recipient is left whose last result is final.
func (e *Entry) ended() bool {
	for i := range e.Last {
		if final(&e.Last[i]) != nil {
			return true
		}
	}
	return false
}

// Submission is what Put stores in one step. After Put its Body belongs to
// the storage.
type Submission struct {
	Message *Message
	// Head goes before the body: trace fields and signatures that were not
	// known before the body had gone by.
	Head    []byte
	Body    Staged
	Entries []*Entry
	// Events are for a storage that is an [EventLog].
	Events []Event
	// Duplicate is set by Put when the (Tenant, Key) is known. Message.ID is
	// then the earlier one, and nothing was stored.
	Duplicate bool
}
