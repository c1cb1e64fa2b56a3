package pgqueue

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// What is kept as JSON. Its names are those of SMTP's parameters where there
// are such, and stay as they are whatever becomes of Go's.

type address struct {
	Local  string `json:"local,omitempty"`
	Domain string `json:"domain,omitempty"`
}

func addressOf(a smtp.Address) address      { return address{a.Local, a.Domain} }
func (a address) smtpAddress() smtp.Address { return smtp.Address{Local: a.Local, Domain: a.Domain} }

type message struct {
	Campaign string            `json:"campaign,omitempty"`
	ID       queue.ID          `json:"id"`
	Tenant   string            `json:"tenant,omitempty"`
	Key      string            `json:"key,omitempty"`
	Received time.Time         `json:"received"`
	Size     int64             `json:"size"`
	EightBit bool              `json:"eight_bit,omitempty"`
	Meta     map[string]string `json:"meta,omitempty"`
}

func messageOf(m *queue.Message) *message {
	return &message{Campaign: m.Campaign, ID: m.ID, Tenant: m.Tenant, Key: m.Key, Received: m.Received.UTC(), Size: m.Size, EightBit: m.EightBit, Meta: m.Meta}
}

func (m *message) queueMessage() *queue.Message {
	return &queue.Message{ID: m.ID, Tenant: m.Tenant, Campaign: m.Campaign, Key: m.Key, Received: m.Received, Size: m.Size, EightBit: m.EightBit, Meta: m.Meta}
}

type recipient struct {
	address
	Notify         smtp.Notify `json:"notify,omitempty"`
	OriginalType   string      `json:"orcpt_type,omitempty"`
	Original       string      `json:"orcpt,omitempty"`
	ValidSince     time.Time   `json:"rrvs,omitzero"`
	RelayUnchecked bool        `json:"rrvs_continue,omitempty"`
}

type entry struct {
	Since       time.Time      `json:"since,omitzero"`
	From        address        `json:"from"`
	To          []recipient    `json:"to"`
	Size        int64          `json:"size,omitempty"`
	Body        smtp.BodyType  `json:"body,omitempty"`
	UTF8        bool           `json:"smtputf8,omitempty"`
	Auth        string         `json:"auth,omitempty"`
	Return      smtp.DSNReturn `json:"ret,omitempty"`
	EnvelopeID  string         `json:"envid,omitempty"`
	RequireTLS  bool           `json:"requiretls,omitempty"`
	TLSOptional bool           `json:"tls_optional,omitempty"`
	DeliverBy   time.Time      `json:"deliver_by,omitzero"`
	ByReturn    bool           `json:"by_return,omitempty"`
	ByTrace     bool           `json:"by_trace,omitempty"`
	HoldUntil   time.Time      `json:"hold_until,omitzero"`
	HoldRequest string         `json:"hold_request,omitempty"`
	Priority    int8           `json:"mt_priority,omitempty"`
	Solicit     string         `json:"solicit,omitempty"`
	Last        []result       `json:"last,omitempty"`
}

func entryOf(e *queue.Entry) *entry {
	v := &e.Envelope
	out := &entry{
		Since: e.Since.UTC(), From: addressOf(v.From), Size: v.Size, Body: v.Body, UTF8: v.UTF8, Auth: v.Auth, Return: v.Return, EnvelopeID: v.EnvelopeID,
		RequireTLS: v.RequireTLS, TLSOptional: v.TLSOptional, DeliverBy: v.DeliverBy, ByReturn: v.ByReturn, ByTrace: v.ByTrace,
		HoldUntil: v.HoldUntil, HoldRequest: v.HoldRequest, Priority: v.Priority, Solicit: v.Solicit,
	}
	for _, r := range v.To {
		out.To = append(out.To, recipient{addressOf(r.Address), r.Notify, r.OriginalType, r.Original, r.ValidSince, r.RelayUnchecked})
	}
	for i := range e.Last {
		out.Last = append(out.Last, resultOf(&e.Last[i]))
	}
	return out
}

// fill puts what e says into an entry.
func (e *entry) fill(q *queue.Entry) {
	q.Since = e.Since
	q.Envelope = smtp.Envelope{From: e.From.smtpAddress(), MailOptions: smtp.MailOptions{
		Size: e.Size, Body: e.Body, UTF8: e.UTF8, Auth: e.Auth, Return: e.Return, EnvelopeID: e.EnvelopeID,
		RequireTLS: e.RequireTLS, TLSOptional: e.TLSOptional, DeliverBy: e.DeliverBy, ByReturn: e.ByReturn, ByTrace: e.ByTrace,
		HoldUntil: e.HoldUntil, HoldRequest: e.HoldRequest, Priority: e.Priority, Solicit: e.Solicit,
	}}
	for _, r := range e.To {
		q.Envelope.To = append(q.Envelope.To, smtp.Recipient{Address: r.smtpAddress(), RcptOptions: smtp.RcptOptions{
			Notify: r.Notify, OriginalType: r.OriginalType, Original: r.Original, ValidSince: r.ValidSince, RelayUnchecked: r.RelayUnchecked,
		}})
	}
	q.Last = nil
	for i := range e.Last {
		q.Last = append(q.Last, e.Last[i].smtpResult())
	}
}

type result struct {
	Err   *failure   `json:"error,omitempty"`
	Reply smtp.Reply `json:"reply,omitzero"`
	Hop   *hop       `json:"hop,omitempty"`
}

type hop struct {
	Name      string         `json:"name,omitempty"`
	Addr      netip.AddrPort `json:"addr,omitzero"`
	TLS       uint16         `json:"tls,omitempty"`
	Auth      string         `json:"auth,omitempty"`
	TLSErr    *failure       `json:"tls_error,omitempty"`
	AuthErr   *failure       `json:"auth_error,omitempty"`
	DSN       bool           `json:"dsn,omitempty"`
	DeliverBy bool           `json:"deliver_by,omitempty"`
}

// failure is an error: an *smtp.Error with its cause, or what another says.
type failure struct {
	Code     int               `json:"code,omitempty"` // 0 = another
	Enhanced smtp.EnhancedCode `json:"enhanced,omitzero"`
	Text     string            `json:"text,omitempty"`
	Scope    smtp.Scope        `json:"scope,omitempty"`
	Unsure   bool              `json:"unsure,omitempty"`
	Cause    string            `json:"cause,omitempty"`
}

func failureOf(err error) *failure {
	var e *smtp.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.Code != 0:
		f := &failure{e.Code, e.Enhanced, e.Text, e.Scope, e.Unsure, ""}
		if e.Err != nil {
			f.Cause = e.Err.Error()
		}
		return f
	}
	return &failure{Text: err.Error()}
}

func (f *failure) error() error {
	if f == nil {
		return nil
	}
	if f.Code == 0 {
		return errors.New(f.Text)
	}
	return f.smtpError()
}

func (f *failure) smtpError() *smtp.Error {
	if f == nil {
		return nil
	}
	e := &smtp.Error{Code: f.Code, Enhanced: f.Enhanced, Text: f.Text, Scope: f.Scope, Unsure: f.Unsure}
	if f.Cause != "" {
		e.Err = errors.New(f.Cause)
	}
	return e
}

func resultOf(r *smtp.Result) result {
	out := result{Err: failureOf(r.Err), Reply: r.Reply}
	if h := r.Hop; h != nil {
		out.Hop = &hop{h.Name, h.Addr, h.TLS, h.Auth, failureOf(h.TLSErr), failureOf(h.AuthErr), h.DSN, h.DeliverBy}
	}
	return out
}

func (r *result) smtpResult() smtp.Result {
	out := smtp.Result{Err: r.Err.error(), Reply: r.Reply}
	if h := r.Hop; h != nil {
		out.Hop = &smtp.Hop{Name: h.Name, Addr: h.Addr, TLS: h.TLS, Auth: h.Auth, TLSErr: h.TLSErr.error(), AuthErr: h.AuthErr.error(), DSN: h.DSN, DeliverBy: h.DeliverBy}
	}
	return out
}

type laneRecord struct {
	Dest     string `json:"dest,omitempty"`
	Tenant   string `json:"tenant,omitempty"`
	Priority int8   `json:"priority,omitempty"`
}

type edit struct {
	Hold    bool       `json:"hold,omitempty"`
	Release bool       `json:"release,omitempty"`
	Resume  bool       `json:"resume,omitempty"`
	Drop    bool       `json:"drop,omitempty"`
	Due     time.Time  `json:"due,omitzero"`
	Lane    laneRecord `json:"lane,omitzero"`
	End     *failure   `json:"end,omitempty"`
	Old     address    `json:"old,omitzero"`
	New     address    `json:"new,omitzero"`
}

func editOf(e *queue.Edit) *edit {
	out := &edit{Hold: e.Hold, Release: e.Release, Resume: e.Resume, Drop: e.Drop, Due: e.Due, Lane: laneRecord(e.Lane), Old: addressOf(e.Old), New: addressOf(e.New)}
	if e.End != nil {
		out.End = failureOf(e.End)
	}
	return out
}

func (e *edit) queueEdit() queue.Edit {
	return queue.Edit{Hold: e.Hold, Release: e.Release, Resume: e.Resume, Drop: e.Drop, Due: e.Due, Lane: queue.Lane(e.Lane),
		End: e.End.smtpError(), Old: e.Old.smtpAddress(), New: e.New.smtpAddress()}
}

// rule is a Filter that pauses. Equal rules have equal texts.
type rule struct {
	IDs      []queue.ID `json:"ids,omitempty"`
	Dest     string     `json:"dest,omitempty"`
	Tenant   string     `json:"tenant,omitempty"`
	Campaign string     `json:"campaign,omitempty"`
	From     address    `json:"from,omitzero"`
	To       address    `json:"to,omitzero"`
	Held     bool       `json:"held,omitempty"`
}

func ruleOf(f *queue.Filter) rule {
	return rule{f.IDs, f.Dest, f.Tenant, f.Campaign, addressOf(f.From), addressOf(f.To), f.Held}
}

func (r *rule) filter() queue.Filter {
	return queue.Filter{IDs: r.IDs, Dest: r.Dest, Tenant: r.Tenant, Campaign: r.Campaign, From: r.From.smtpAddress(), To: r.To.smtpAddress(), Held: r.Held}
}

type event struct {
	ID      queue.ID        `json:"id"`
	Kind    queue.EventKind `json:"kind"`
	Time    time.Time       `json:"time"`
	Message *message        `json:"message"`
	Entry   queue.ID        `json:"entry"`
	Lane    laneRecord      `json:"lane"`
	From    address         `json:"from"`
	To      address         `json:"to,omitzero"`
	Attempt int             `json:"attempt,omitempty"`
	Result  result          `json:"result,omitzero"`
	Next    time.Time       `json:"next,omitzero"`
}

func eventOf(e *queue.Event) *event {
	out := &event{ID: e.ID, Kind: e.Kind, Time: e.Time, Entry: e.Entry, Lane: laneRecord(e.Lane), From: addressOf(e.From), To: addressOf(e.To),
		Attempt: e.Attempt, Result: resultOf(&e.Result), Next: e.Next}
	if e.Message != nil {
		out.Message = messageOf(e.Message)
	}
	return out
}

func (e *event) queueEvent() queue.Event {
	out := queue.Event{ID: e.ID, Kind: e.Kind, Time: e.Time, Entry: e.Entry, Lane: queue.Lane(e.Lane), From: e.From.smtpAddress(), To: e.To.smtpAddress(),
		Attempt: e.Attempt, Result: e.Result.smtpResult(), Next: e.Next}
	if e.Message != nil {
		out.Message = e.Message.queueMessage()
	}
	return out
}

// encode returns v as JSON. What is kept has no kind of value that could fail.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("pgqueue: %v", err)) // unreachable
	}
	return string(b)
}

// decode reads what encode wrote.
func decode(text []byte, v any) error {
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("pgqueue: damaged record: %w", err)
	}
	return nil
}

// uuid is an ID as PostgreSQL reads it.
func uuid(id queue.ID) string {
	b := make([]byte, 36)
	hex.Encode(b, id[:4])
	b[8] = '-'
	hex.Encode(b[9:], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:], id[10:])
	return string(b)
}

func uuids(ids []queue.ID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = uuid(id)
	}
	return out
}
