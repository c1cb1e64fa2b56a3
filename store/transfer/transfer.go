package transfer

import (
	"errors"
	"io"

	"github.com/postrider/postrider/internal/spool"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/store"
)

// ErrDiverged says that a mailbox of the destination has had mail of its own,
// so that UIDs there mean other messages than at the source.
var ErrDiverged = errors.New("transfer: the destination has mail of its own")

// Options are for all transfers; the zero value will do.
type Options struct {
	// Progress is told after each step, on the goroutine of the call; nil =
	// nobody asks.
	Progress func(Progress)
	// Rename gives a mailbox of the source its name at the destination, and
	// "" leaves it out; nil = all keep theirs. Only Copy asks it.
	Rename func(name string) string
}

// Progress is how far a transfer is.
type Progress struct {
	Mailbox                 string // the one at work, by its name at the source; "" = a file
	Messages, MessagesTotal int    // of all mailboxes; a total of 0 = unknown
	Octets, OctetsTotal     int64
}

// Report is what a transfer did. It tells the truth also beside an error.
type Report struct {
	Mailboxes int   // looked at
	Messages  int   // brought over
	Octets    int64 // of these
	Flagged   int   // messages that were there and got other flags
	Expunged  int   // messages removed because the source has them no more
}

// A batch is written in one step: large enough that the sync of a durable
// store costs little for each, small enough for memory.
const (
	batchMessages = 64
	batchOctets   = 8 << 20
)

// work is a transfer on its way.
type work struct {
	o        Options
	report   Report
	progress Progress
}

func (w *work) tell() {
	if w.o.Progress != nil {
		w.o.Progress(w.progress)
	}
}

// moved counts messages that are there now.
func (w *work) moved(messages int, octets int64) {
	w.report.Messages += messages
	w.report.Octets += octets
	w.seen(messages, octets)
}

// seen counts messages that are done with.
func (w *work) seen(messages int, octets int64) {
	w.progress.Messages += messages
	w.progress.Octets += octets
	w.tell()
}

// incoming reads one message into a spool and makes a draft of it.
func incoming(r io.Reader) (store.Draft, *spool.Spool, error) {
	body := new(spool.Spool)
	var p mime.Parser
	if _, err := io.Copy(io.MultiWriter(body, &p), r); err != nil {
		return store.Draft{}, nil, errors.Join(err, body.Close())
	}
	root := p.Close()
	d := store.Draft{Body: body, Summary: root.Summary()}
	identify(&d, &root.Header)
	return d, body, nil
}

// identify fills in what threads are made of.
func identify(d *store.Draft, h *mime.Header) {
	if ids := h.MessageIDs("Message-ID"); len(ids) > 0 {
		d.MessageID = ids[0]
	}
	d.References = append(h.MessageIDs("References"), h.MessageIDs("In-Reply-To")...)
}

// maxHeader is how much of a message is read to find its header.
const maxHeader = 256 << 10

// header reads a message's header, or the beginning of one that does not end.
func header(b store.Body) (mime.Header, error) {
	var p mime.Parser
	if _, err := io.Copy(&p, io.NewSectionReader(b, 0, min(b.Size(), maxHeader))); err != nil {
		return mime.Header{}, err
	}
	return p.Close().Header, nil
}
