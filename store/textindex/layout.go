package textindex

import (
	"encoding/binary"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// What lies in the database. Texts have their length before them.
//
//	b <account> <mailbox>             what is known of a mailbox
//	s <segment, 8 octets> 0           the members of a segment
//	s <segment, 8 octets> 1 <3 octets> a block of its trigrams, by the first
const format = formatPrefix + "1\n"

const formatPrefix = "postrider textindex "

func accountKey(account string) []byte {
	b := binary.AppendUvarint([]byte{'b'}, uint64(len(account)))
	return append(b, account...)
}

func boxKey(account string, box store.MailboxID) []byte { return append(accountKey(account), box...) }

// after returns the end of the keys that begin with key.
func after(key []byte) []byte {
	end := append([]byte(nil), key...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func membersKey(id uint64) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{'s'}, id), 0)
}

func blockKey(id uint64, tri uint32) []byte {
	b := append(binary.BigEndian.AppendUint64([]byte{'s'}, id), 1)
	if tri >= 1<<24 {
		b[len(b)-1] = 2
		return b
	}
	return append(b, byte(tri>>16), byte(tri>>8), byte(tri))
}

func blockRange(id uint64) (lower, upper []byte) { return blockKey(id, 0), blockKey(id, 1<<24) }

// blockFirst is the trigram in a block's key.
func blockFirst(key []byte) uint32 {
	if len(key) < 4 {
		return 0
	}
	k := key[len(key)-3:]
	return uint32(k[0])<<16 | uint32(k[1])<<8 | uint32(k[2])
}

// state is what the index knows of a mailbox: of its messages with UID < next
// all that live are in segments, and what was expunged up to modSeq is dead
// there.
type state struct {
	uidValidity uint32
	next        store.UID
	modSeq      store.ModSeq
	segments    []segment
}

func (s *state) encode() []byte {
	w := diskdb.Record(32 + 16*len(s.segments))
	w.Uint(uint64(s.uidValidity))
	w.Uint(uint64(s.next))
	w.Uint(uint64(s.modSeq))
	w.Uint(uint64(len(s.segments)))
	for _, x := range s.segments {
		w.Uint(x.id)
		w.Uint(uint64(x.docs))
		w.Uint(uint64(x.dead))
		w.Uint(uint64(x.last))
	}
	return w.Seal()
}

func decodeState(b []byte) (*state, error) {
	if b == nil {
		return &state{next: 1}, nil
	}
	r, err := diskdb.Unseal(b)
	if err != nil {
		return nil, err
	}
	s := &state{uidValidity: r.Uint32(), next: store.UID(r.Uint32()), modSeq: store.ModSeq(r.Uint())}
	for range r.Count() {
		s.segments = append(s.segments, segment{id: r.Uint(), docs: int(r.Uint32()), dead: int(r.Uint32()), last: store.UID(r.Uint32())})
	}
	return s, r.End()
}

func segmentOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:9]) }
