package diskstore

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/postrider/postrider/store"
)

// Format 2. The directory holds
//
//	FORMAT    "postrider diskstore 2"
//	LOCK      locked by the process that uses it
//	BALLAST   room that is given up when the disk is full all the same
//	COPIED    only in a backup: it has not been opened yet
//	blobs/    one file per body that is larger than Options.BodyMemory
//	db/       a Pebble database with value separation
//
// # Numbers
//
// Accounts, mailboxes, emails, threads and blobs have numbers of 64 bits that
// are never given twice: the microseconds since 2020, or one more than the
// last (number.go). They are what OBJECTID shows, behind a letter. Inbox has
// number 1 in each account.
//
// An email is what an account knows of one content, its EMAILID: copies in
// several mailboxes share it. A blob is a body: emails of several accounts
// may share it. A row is one message in one mailbox.
//
// # Keys
//
// A key begins with one octet for its kind. Numbers have 8 octets and UIDs 4,
// big-endian. Values are records (internal/diskdb): version, content,
// CRC-32C.
//
//	A name                       account: its number
//	a acct                       what the account has beside its mailboxes
//	b acct, box                  mailbox: all but its messages; counts are exact
//	g acct, ModSeq               a mailbox that was deleted: its number
//	k acct, box                  the mailbox's keywords
//	m acct, box, UID             row: everything about one message
//	i acct, box, first UID, 's'  chunk: UIDs, sizes and emails
//	i acct, box, first UID, 'f'  chunk: flags and ModSeqs
//	t acct, box, ModSeq          tombstone: what one write expunged
//	e acct, email                email: blob, head, thread
//	y acct, email                its Summary
//	x acct, email, box, UID      a row that has the email: nothing else
//	h acct, Message-ID           a thread, and how many emails lead to it
//	u acct, name                 a subscription: nothing else
//	o period, acct, name         a delivery that must not be taken again: nothing else
//	B blob                       a body that is in the database
//	F blob                       a body that is a file in blobs/
//	R blob, acct, email          an email that has the blob: nothing else
//	d time, acct, box, ModSeq    what is to be given back at that time (sweep.go)
//	n                            numbers below this one have been given
//	z key                        set aside: a record that could not be read
//
// # Messages of a mailbox
//
// A new message is a row. The newest rows, from mailbox.tail on, are all that
// is known of their messages: the tail. When the tail is long its older half
// moves into chunks of up to 1,024 messages in two columns. The first, 's', is
// not written again. The second, 'f', has the flags and ModSeqs as runs of
// equal ones, so that changing a flag on all of a mailbox writes some octets
// for each chunk; a run may also say that its messages are gone. The rows of
// messages in chunks stay for what chunks do not have, the dates and the
// thread; their flags and ModSeq are those of the time when they moved.
//
// # Bodies
//
// A body is cut into frames of 64 KiB; one in the database is one frame, with
// XXH3 in place of a record's CRC-32C (CRC-32C, too, in the first stores). The
// record of a file has a checksum of each frame (XXH3, or CRC-32C in the first
// stores), so that any part of it can be read and what is damaged is noticed. Frames may be compressed, each for
// itself, and then sealed with the body's key (AES-256-GCM, the nonce is the
// frame's number). An email that is sealed has a key of its own, which the
// account's key wraps; under it are the body's key, the head and the Summary.
// So emails of several accounts share one sealed body (seal.go).
//
// # Life and death
//
// Expunging marks messages as gone, in the flags of chunks or in rows of the
// tail, and writes one tombstone, which is the history for Changes. Rows,
// emails and blobs stay for the grace; a 'd' key says when it is over. Then
// the sweeper goes through the rows of the tombstone: each takes its 'x' with
// it, the last 'x' of an email the email and its 'R', the last 'R' of a blob
// the blob. So nobody counts references, and a copy costs one row and one 'x'.
//
// A file is on the disk, with its name, before the commit that names it in F;
// it is removed after the commit that drops F. What lies in blobs without an F
// is an orphan, which Open removes.
//
// # Formats
//
// Format 1 had mailboxes without their first unseen message. Open brings an
// older directory to this format (migrate.go).
const formatLine = "postrider diskstore 2\n"

const (
	kName    = 'A'
	kAccount = 'a'
	kMailbox = 'b'
	kGone    = 'g'
	kWords   = 'k'
	kRow     = 'm'
	kChunk   = 'i'
	kTomb    = 't'
	kEmail   = 'e'
	kSummary = 'y'
	kRef     = 'x'
	kThread  = 'h'
	kSub     = 'u'
	kOnce    = 'o'
	kBlob    = 'B'
	kFile    = 'F'
	kBlobRef = 'R'
	kDue     = 'd'
	kNumber  = 'n'
	kBad     = 'z'
)

// Columns of a chunk, the last octet of its keys. Flags come first, so that
// one step tells what the chunk is about.
const (
	colFlags  = 'f'
	colStatic = 's'
)

// accountKinds are the kinds whose keys go on with the account's number.
const accountKinds = "abgkmiteyxhu"

const inboxNo = 1

func be8(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

func key1(kind byte, a uint64) []byte { return be8(append(make([]byte, 0, 32), kind), a) }

func key2(kind byte, a, b uint64) []byte { return be8(key1(kind, a), b) }

func key3(kind byte, a, b, c uint64) []byte { return be8(key2(kind, a, b), c) }

func textKey(kind byte, acct uint64, s string) []byte { return append(key1(kind, acct), s...) }

func nameKey(name string) []byte { return append([]byte{kName}, name...) }

// boxKey is the beginning of the keys of one kind of a mailbox.
func boxKey(kind byte, acct, box uint64) []byte { return key2(kind, acct, box) }

func uidKey(kind byte, acct, box uint64, uid store.UID) []byte {
	return binary.BigEndian.AppendUint32(key2(kind, acct, box), uint32(uid))
}

func rowKey(acct, box uint64, uid store.UID) []byte { return uidKey(kRow, acct, box, uid) }

func chunkKey(acct, box uint64, first store.UID, col byte) []byte {
	return append(uidKey(kChunk, acct, box, first), col)
}

func refKey(acct, email, box uint64, uid store.UID) []byte {
	return binary.BigEndian.AppendUint32(key3(kRef, acct, email, box), uint32(uid))
}

// The lengths of keys that have only numbers.
const (
	lenRow    = 1 + 8 + 8 + 4
	lenChunk  = lenRow + 1
	lenRef    = 1 + 8 + 8 + 8 + 4
	lenRefOf  = 1 + 8 + 8 // of an email or a blob
	lenDue    = 1 + 8 + 8 + 8 + 8
	lenTomb   = 1 + 8 + 8 + 8
	hashBytes = 16
)

func u8(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

func uidOf(b []byte) store.UID { return store.UID(binary.BigEndian.Uint32(b)) }

// hashOf stands for a text of any length in a key.
func hashOf(s string) (h [hashBytes]byte) {
	sum := sha256.Sum256([]byte(s))
	copy(h[:], sum[:])
	return h
}

func hashKey(kind byte, a uint64, h [hashBytes]byte) []byte { return append(key1(kind, a), h[:]...) }

// upper returns the key behind all keys that begin with b.
func upper(b []byte) []byte {
	u := append(make([]byte, 0, len(b)+1), b...)
	for i := len(u) - 1; i >= 0; i-- {
		if u[i]++; u[i] != 0 {
			return u[:i+1]
		}
	}
	return nil
}
