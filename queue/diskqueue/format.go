package diskqueue

import (
	"encoding/binary"
	"math"
	"strings"
	"time"

	"github.com/postrider/postrider/queue"
)

// Format 2. The directory holds
//
//	FORMAT    "postrider diskqueue 2"
//	LOCK      locked by the process that uses it
//	BALLAST   room that is given up when the disk is full all the same
//	bodies/   one file per body that is larger than Options.BodyMemory
//	db/       a Pebble database with value separation
//
// The keys of the database begin with one octet. IDs have 16 octets, numbers
// are big-endian; a time is its nanoseconds since 1970 with the sign flipped,
// the zero time the least of all. A lane is the lengths (2 octets) and texts
// of Dest and Tenant, and the priority with its sign flipped, so that no lane
// is the beginning of another.
//
//	m ID                     message: record
//	c ID                     its Head, its body unless that is a file, and a
//	                         CRC-32C of both
//	e ID                     entry: record
//	r message ID, entry ID   the entries of a message that began with several
//	d lane, due, ID          free entries by lane: nothing else
//	a alarm, ID              free entries by alarm: nothing else
//	f file ID                a file in bodies/: record with its checksums
//	k tenant, key            idempotency key: record
//	x expiry, tenant, key    when it is forgotten: nothing else
//	u ID                     edits of an entry that was leased: record
//	p filter                 a rule of Pause
//	l number                 event: record
//	i event ID               its number
//	b key                    set aside: a record that could not be read
//
// An entry that is leased stays in d and a: leases are in memory. One that is
// held is in neither. Records are those of internal/diskdb: version, content,
// CRC-32C of both. A file is on the disk, with its name, before the commit that names it
// in f; it is removed after the commit that drops f. What lies in bodies
// without an f is an orphan, which Open removes.
const formatLine = "postrider diskqueue 2\n"

const (
	kMessage = 'm'
	kContent = 'c'
	kEntry   = 'e'
	kOf      = 'r'
	kDue     = 'd'
	kAlarm   = 'a'
	kFile    = 'f'
	kKey     = 'k'
	kExpiry  = 'x'
	kEdits   = 'u'
	kPause   = 'p'
	kEvent   = 'l'
	kEventID = 'i'
	kBad     = 'b'
)

// alarmLane is the laneKey of the alarms.
const alarmLane = "a"

const idLen = len(queue.ID{})

// stamp is a time as the keys have it.
type stamp int64

const never stamp = math.MinInt64 // the zero time

func stampOf(t time.Time) stamp {
	switch {
	case t.IsZero():
		return never
	case t.Year() < 1700:
		return never + 1
	case t.Year() > 2250:
		return math.MaxInt64
	}
	return stamp(t.UnixNano())
}

func (s stamp) time() time.Time {
	if s == never {
		return time.Time{}
	}
	return time.Unix(0, int64(s)).UTC()
}

func (s stamp) bits() uint64 { return uint64(s) ^ 1<<63 }

func idKey(kind byte, id queue.ID) []byte { return append([]byte{kind}, id[:]...) }

func ofKey(m, e queue.ID) []byte { return append(idKey(kOf, m), e[:]...) }

func numberKey(kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, n)
}

// laneKey is how the keys of a lane's free entries begin; of the pseudo-lane
// of alarms, too.
func laneKey(l queue.Lane) string {
	if l.Dest == queue.Alarms {
		return alarmLane
	}
	b := make([]byte, 0, 6+len(l.Dest)+len(l.Tenant))
	b = binary.BigEndian.AppendUint16(append(b, kDue), uint16(len(l.Dest)))
	b = binary.BigEndian.AppendUint16(append(b, l.Dest...), uint16(len(l.Tenant)))
	return string(append(append(b, l.Tenant...), byte(l.Priority)^0x80))
}

// laneOf reads the beginning of a key that laneKey made, and how long it is.
func laneOf(key []byte) (queue.Lane, int, bool) {
	if len(key) > 0 && key[0] == kAlarm {
		return queue.Lane{Dest: queue.Alarms}, 1, true
	}
	n, ok := laneLen(key)
	if !ok {
		return queue.Lane{}, 0, false
	}
	dest := 3 + int(binary.BigEndian.Uint16(key[1:])) // where it ends
	return queue.Lane{Dest: string(key[3:dest]), Tenant: string(key[dest+2 : n-1]), Priority: int8(key[n-1] ^ 0x80)}, n, true
}

// laneLen is how long the lane in a key of a free entry is.
func laneLen(key []byte) (int, bool) {
	n := 1
	for range 2 {
		if len(key) < n+2 {
			return 0, false
		}
		n += 2 + int(binary.BigEndian.Uint16(key[n:]))
	}
	return n + 1, len(key) > n
}

// pos is the place of a free entry in its lane, or among the alarms.
type pos struct {
	at stamp
	id queue.ID
}

func (p pos) before(q pos) bool {
	if p.at != q.at {
		return p.at < q.at
	}
	return string(p.id[:]) < string(q.id[:])
}

func (p pos) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, p.at.bits())
	return append(b, p.id[:]...)
}

func posKey(lane string, p pos) []byte {
	return p.appendTo(append(make([]byte, 0, len(lane)+8+idLen), lane...))
}

// posOf reads the end of a key that posKey made.
func posOf(b []byte) (pos, bool) {
	if len(b) != 8+idLen {
		return pos{}, false
	}
	return pos{stamp(binary.BigEndian.Uint64(b) ^ 1<<63), queue.ID(b[8:])}, true
}

func keyName(tenant, key string) string {
	var b strings.Builder
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(tenant))))
	b.WriteString(tenant)
	b.WriteString(key)
	return b.String()
}
