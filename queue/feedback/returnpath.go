package feedback

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/returnpath"
)

// Origin is what a return path of ours says.
type Origin struct {
	Message queue.ID
	// Recipient is zero when it did not fit into the address.
	Recipient smtp.Address
}

const (
	idLength  = 26
	tagLength = 8
)

var tagText = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

func (m *Matcher) tag(id string) string {
	if len(m.Key) == 0 {
		return ""
	}
	h := hmac.New(sha256.New, m.Key)
	h.Write([]byte("return path " + id))
	return "-" + tagText.EncodeToString(h.Sum(nil))[:tagLength]
}

// ReturnPath makes the reverse-path of one recipient's mail: it is for
// queue.Queue.ReturnPath. Where the recipient would make it longer than
// RFC 5321 §4.5.3.1.1 allows, only the message is in it.
func (m *Matcher) ReturnPath(msg *queue.Message, _, to smtp.Address) smtp.Address {
	a := m.Base
	id := msg.ID.String()
	a.Local += "+" + id + m.tag(id)
	if with := (returnpath.VERP{}).Encode(a, to); returnpath.Fits(with) && with.ASCII() {
		return with
	}
	return a
}

// Match reads an address that ReturnPath made; of any other the error is
// returnpath.ErrNotOurs.
func (m *Matcher) Match(a smtp.Address) (Origin, error) {
	notOurs := fmt.Errorf("%w: %s", returnpath.ErrNotOurs, a)
	prefix := m.Base.Local + "+"
	n := len(prefix) + idLength
	if len(m.Key) > 0 {
		n += 1 + tagLength
	}
	if a.Domain != m.Base.Domain || len(a.Local) < n || !strings.EqualFold(a.Local[:len(prefix)], prefix) {
		return Origin{}, notOurs
	}
	// Hosts on the way back may change the case.
	text, tag := strings.ToLower(a.Local[len(prefix):len(prefix)+idLength]), strings.ToLower(a.Local[len(prefix)+idLength:n])
	id, err := queue.ParseID(text)
	if err != nil || !hmac.Equal([]byte(tag), []byte(m.tag(text))) {
		return Origin{}, notOurs
	}
	o := Origin{Message: id}
	if len(a.Local) > n {
		base := smtp.Address{Local: a.Local[:n], Domain: a.Domain}
		if o.Recipient, err = (returnpath.VERP{}).Decode(base, a); err != nil {
			return Origin{}, err
		}
	}
	return o, nil
}
