package diskqueue

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

func sampleEntry() *queue.Entry {
	now := time.Date(2026, 11, 23, 12, 0, 0, 123, time.UTC)
	m := &queue.Message{ID: queue.NewID(), Tenant: "t", Campaign: "c", Key: "k", Received: now, Size: 7, EightBit: true,
		Meta: map[string]string{"a": "b"}}
	return &queue.Entry{ID: queue.NewID(), Message: m, Lane: queue.Lane{Dest: "d.test", Tenant: "t", Priority: -3},
		Since: now, Due: now.Add(time.Hour), Attempt: 4, Held: true,
		Envelope: smtp.Envelope{From: smtp.Address{Local: "a", Domain: "b.test"},
			MailOptions: smtp.MailOptions{Size: 9, Body: smtp.Body8Bit, UTF8: true, Auth: "<>", Return: smtp.ReturnFull,
				EnvelopeID: "e", RequireTLS: true, DeliverBy: now},
			To: []smtp.Recipient{{Address: smtp.Address{Local: "r", Domain: "d.test"},
				RcptOptions: smtp.RcptOptions{Notify: smtp.NotifyDelay, OriginalType: "rfc822", Original: "o"}},
				{Address: smtp.Address{Local: "r2", Domain: "d.test"}}}},
		Last: []smtp.Result{{Err: &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 1}, Text: "x", Scope: smtp.ScopeHost, Unsure: true,
			Err: errors.New("cause")}, Reply: smtp.Reply{Code: 451, Text: "x"},
			Hop: &smtp.Hop{Name: "mx", Addr: netip.MustParseAddrPort("[::1]:25"), TLS: 0x304, Auth: "dane", DSN: true}},
			{Err: errors.New("plain")}}}
}

func TestRoundTrip(t *testing.T) {
	e := sampleEntry()
	got, err := decodeEntry(encodeEntry(e, 5))
	if err != nil || got.token != 5 || got.message != e.Message.ID {
		t.Fatalf("%+v, %v", got, err)
	}
	got.Message = e.Message
	if !reflect.DeepEqual(got.Entry, e) {
		t.Errorf("entry\n%+v, want\n%+v", got.Entry, e)
	}
	m := &message{Message: e.Message, entries: 2, head: 3, file: queue.NewID()}
	if got, err := decodeMessage(encodeMessage(m)); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("message %+v, %v", got, err)
	}
	ev := queue.Event{ID: queue.NewID(), Kind: queue.EventDeferred, Time: e.Since, Message: e.Message, Entry: e.ID, Lane: e.Lane,
		From: e.Envelope.From, To: e.Envelope.To[0].Address, Attempt: 2, Result: e.Last[0], Next: e.Due}
	if got, err := decodeEvent(encodeEvent(&ev)); err != nil || !reflect.DeepEqual(got, ev) {
		t.Errorf("event %+v, %v", got, err)
	}
	edits := []queue.Edit{{Hold: true}, {Drop: true, Due: e.Due, Lane: e.Lane},
		{Resume: true, End: &smtp.Error{Code: 550, Text: "x"}, Old: e.Envelope.From, New: e.Envelope.To[0].Address}}
	if got, err := decodeEdits(encodeEdits(edits)); err != nil || !reflect.DeepEqual(got, edits) {
		t.Errorf("edits %+v, %v", got, err)
	}
	f := queue.Filter{IDs: []queue.ID{e.ID}, Dest: "d", From: e.Envelope.From, To: e.Envelope.From, Held: true}
	if got, err := decodeFilter(encodeFilter(&f)); err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("filter %+v, %v", got, err)
	}
	var sum sums
	sum.add(make([]byte, frameSize-1))
	sum.add(make([]byte, frameSize+2))
	if id, got, err := decodeFile(encodeFile(e.ID, &sum)); err != nil || id != e.ID || len(got) != 3 || got[0] != got[1] || got[2] == got[1] {
		t.Errorf("file %v %v %v", id, got, err)
	}
	if id, at, err := decodeKey(encodeKey(e.ID, e.Due)); err != nil || id != e.ID || !at.Equal(e.Due) {
		t.Errorf("key %v %v %v", id, at, err)
	}
}

// TestDamage changes each octet of a record: none goes unseen.
func TestDamage(t *testing.T) {
	whole := encodeEntry(sampleEntry(), 1)
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= 0x41
		if _, err := decodeEntry(b); !errors.Is(err, ErrDamaged) {
			t.Fatalf("octet %d changed: %v", i, err)
		}
		if _, err := decodeEntry(whole[:i]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

func TestKeysSort(t *testing.T) {
	var times []time.Time
	for _, s := range []int64{-5, 0, 1, 1 << 32} {
		times = append(times, time.Unix(s, 7).UTC())
	}
	times = append([]time.Time{{}}, times...)
	lane := queue.Lane{Dest: "a.test", Priority: -1}
	var last string
	for _, at := range times {
		p := pos{stampOf(at), queue.NewID()}
		key := posKey(laneKey(lane), p)
		if string(key) <= last {
			t.Errorf("%v does not sort behind the time before", at)
		}
		last = string(key)
		l, n, ok := laneOf(key)
		got, ok2 := posOf(key[n:])
		if !ok || !ok2 || l != lane || got != p || !got.at.time().Equal(at) {
			t.Errorf("%v %v %v %v", l, got, ok, ok2)
		}
	}
}

func FuzzDecode(f *testing.F) {
	e := sampleEntry()
	f.Add(encodeEntry(e, 1)[1:])
	f.Add(encodeMessage(&message{Message: e.Message, entries: 1})[1:])
	f.Add(encodeEdits([]queue.Edit{{Drop: true}})[1:])
	f.Add(encodeFilter(&queue.Filter{Dest: "x"})[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		// A checksum that fits, so that what is behind it is reached.
		if len(b) > 4 {
			b = b[:len(b)-4]
		}
		w := diskdb.Record(len(b))
		w.B = append(w.B, b...)
		b = w.Seal()
		if e, err := decodeEntry(b); err == nil {
			e.Message = &queue.Message{ID: e.message}
			again, err := decodeEntry(encodeEntry(e.Entry, e.token))
			if err != nil {
				t.Fatal(err)
			}
			again.Message = e.Message
			if !reflect.DeepEqual(again, e) {
				t.Errorf("%+v, then %+v", e, again)
			}
		}
		if m, err := decodeMessage(b); err == nil {
			if again, err := decodeMessage(encodeMessage(m)); err != nil || !reflect.DeepEqual(again, m) {
				t.Errorf("%+v, then %+v, %v", m, again, err)
			}
		}
		decodeEvent(b)
		decodeEdits(b)
		decodeFilter(b)
		decodeKey(b)
		decodeFile(b)
		if l, n, ok := laneOf(b); ok && l.Dest != queue.Alarms && b[0] == kDue && laneKey(l) != string(b[:n]) {
			t.Errorf("lane %+v of %x", l, b[:n])
		}
	})
}
