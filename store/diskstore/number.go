package diskstore

import (
	"encoding/base32"
	"encoding/binary"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// numbers gives out what is never given twice: the clock in microseconds, or
// one more than the last. A copy of a store that is older than what it is put
// in the place of thus gives other numbers, too.
type numbers struct {
	mu   sync.Mutex
	last uint64
	// safe is on the disk: after a crash numbers go on from it. A batch that
	// uses a number not below it carries a greater one.
	safe uint64
}

// numberEpoch is 2020-01-01 in microseconds since 1970.
const numberEpoch = 1577836800_000_000

// numberStep is how far safe goes ahead: 10 seconds.
const numberStep = 10_000_000

func (n *numbers) next() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = max(n.last+1, uint64(max(time.Now().UnixMicro()-numberEpoch, 1<<20)))
	return n.last
}

// cover makes b, which uses numbers up to the last one given, say so. done is
// called when b is applied.
func (n *numbers) cover(b *pebble.Batch) (done func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	// With half a step to spare: of two batches at once the earlier may be
	// applied last.
	if n.last+numberStep/2 < n.safe {
		return func() {}
	}
	safe := n.last + numberStep
	w := diskdb.Record(8)
	w.Fixed(safe)
	b.Set([]byte{kNumber}, w.Seal(), nil)
	return func() {
		n.mu.Lock()
		n.safe = max(n.safe, safe)
		n.mu.Unlock()
	}
}

// load goes on where the last process ended.
func (n *numbers) load(db *diskdb.DB) error {
	v, err := db.Value([]byte{kNumber})
	if err != nil || v == nil {
		return err
	}
	r, err := diskdb.Unseal(v)
	if err != nil {
		return err
	}
	n.last = r.Fixed()
	n.safe = n.last
	return r.End()
}

var idText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// idLen is how long an ObjectID is (RFC 8474 §4): a letter and 64 bits.
const idLen = 14

const idDigits = "abcdefghijklmnopqrstuvwxyz234567"

// idPairs are two digits for each ten bits.
var idPairs = func() (t [1 << 10]uint16) {
	for i := range t {
		t[i] = uint16(idDigits[i>>5]) | uint16(idDigits[i&31])<<8
	}
	return t
}()

// putID writes an ID to the first idLen octets of b: what listing a mailbox
// costs is not least this.
func putID(b []byte, kind byte, n uint64) {
	b = b[:idLen]
	b[0], b[13] = kind, idDigits[n<<1&31]
	binary.LittleEndian.PutUint16(b[11:], idPairs[n>>4&1023])
	binary.LittleEndian.PutUint16(b[9:], idPairs[n>>14&1023])
	binary.LittleEndian.PutUint16(b[7:], idPairs[n>>24&1023])
	binary.LittleEndian.PutUint16(b[5:], idPairs[n>>34&1023])
	binary.LittleEndian.PutUint16(b[3:], idPairs[n>>44&1023])
	binary.LittleEndian.PutUint16(b[1:], idPairs[n>>54])
}

func idOf(kind byte, n uint64) string {
	var t [idLen]byte
	putID(t[:], kind, n)
	return string(t[:])
}

// numberOf reads what idOf wrote.
func numberOf(kind byte, id string) (uint64, bool) {
	var b [9]byte
	if len(id) != idLen || id[0] != kind {
		return 0, false
	}
	if n, err := idText.Decode(b[:], []byte(id[1:])); err != nil || n != 8 {
		return 0, false
	}
	n := binary.BigEndian.Uint64(b[:8])
	return n, n > 0 && idOf(kind, n) == id
}

func boxID(no uint64) store.MailboxID {
	if no == inboxNo {
		return store.Inbox
	}
	return store.MailboxID(idOf('f', no))
}

func boxNo(id store.MailboxID) uint64 {
	if id == store.Inbox {
		return inboxNo
	}
	n, _ := numberOf('f', string(id))
	return n
}
