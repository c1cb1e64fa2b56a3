package dmarcreport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/mime"
)

// ErrSender is what SendDue returns when Submitter, From or Send is missing.
var ErrSender = errors.New("dmarcreport: sender lacks its submitter, address or send func")

// Sender sends the reports of the periods that are over. Its fields must not
// change while it works. Of several processes with one Storage only one should
// send at a time: a report that goes out twice has the same Report-ID and file
// name, so that its receiver can tell, but it is still noise.
type Sender struct {
	Storage   Storage
	Submitter string       // one's own domain; must be set
	From      mime.Address // must be set, in a domain for which DMARC passes
	// Send takes over the mail, usually into a queue; its error makes the
	// report be tried again. The mail has to be signed with DKIM.
	Send func(ctx context.Context, m *mime.Message) error

	Organization string // "" = Submitter
	Contact      string // extra_contact_info: a URL, for instance
	Generator    string // "" = "Postrider"
	// Evaluator checks whether external destinations have agreed; nil = one
	// with the system's resolver.
	Evaluator *dmarc.Evaluator
	// MaxSize is how large a mail may be, in octets; 0 = 10 MiB, negative =
	// no limit. A report that would be larger is sent as several.
	MaxSize int64
	// Delay is how long after its end a period is reported, so that what is
	// still being counted is in; 0 = 10 min, negative = none.
	Delay time.Duration
	// GiveUp is how long after its end a report is still tried; 0 = 72 h.
	GiveUp time.Duration
	Logger *slog.Logger // nil = slog.Default()
}

// SendDue sends the reports that are due at now, and returns how many mails
// were sent. A report that reached nobody is kept for the next call; one that
// reached some is not sent to the others again, because those would get it
// twice. The error is all that went wrong, joined.
func (s *Sender) SendDue(ctx context.Context, now time.Time) (int, error) {
	if s.Submitter == "" || s.From.Address.Domain == "" || s.Send == nil {
		return 0, ErrSender
	}
	delay, giveUp := s.Delay, s.GiveUp
	if delay == 0 {
		delay = 10 * time.Minute
	}
	if giveUp <= 0 {
		giveUp = 72 * time.Hour
	}
	due, err := s.Storage.Due(ctx, now.Add(-max(delay, 0)))
	if err != nil {
		return 0, err
	}
	sent := 0
	var failed []error
	for _, k := range due {
		n, err := s.send(ctx, k)
		sent += n
		if err != nil {
			failed = append(failed, fmt.Errorf("report for %s: %w", k.Domain, err))
			if ctx.Err() != nil {
				break
			}
			if n == 0 && now.Sub(k.End) < giveUp {
				continue
			}
			s.logger().WarnContext(ctx, "DMARC report given up", "domain", k.Domain, "begin", k.Begin, "sent", n, "err", err)
		}
		if err := s.Storage.Remove(ctx, k); err != nil {
			failed = append(failed, err)
		}
	}
	return sent, errors.Join(failed...)
}

func (s *Sender) logger() *slog.Logger {
	if s.Logger == nil {
		return slog.Default()
	}
	return s.Logger
}

// send sends the report of one key to all its destinations.
func (s *Sender) send(ctx context.Context, k Key) (int, error) {
	t, records, err := s.Storage.Load(ctx, k)
	if err != nil || len(records) == 0 {
		return 0, err
	}
	e := s.Evaluator
	if e == nil {
		e = new(dmarc.Evaluator)
	}
	to, failed := Destinations(ctx, e, k.Domain, t.Addresses)
	if len(to) == 0 {
		if failed == nil {
			s.logger().DebugContext(ctx, "DMARC report has no destination", "domain", k.Domain, "rua", t.Addresses)
		}
		return 0, failed
	}
	r := s.Report(k, t, records)
	parts, err := s.pack(r)
	if err != nil {
		return 0, err
	}
	sent := 0
	for _, a := range to {
		for _, p := range parts {
			m, err := p.report.mail(p.packed, s.Submitter, p.unique, s.From, mime.Address{Address: a})
			if err == nil {
				err = s.Send(ctx, m)
			}
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			sent++
		}
	}
	return sent, failed
}

// Report makes the report of what a Storage has for a key. Its ID is made from
// the key, so that a report sent again has the same.
func (s *Sender) Report(k Key, t Target, records []Record) *Report {
	r := &Report{
		Version: "1.0", Namespace: Namespace,
		Organization: s.Organization, Email: s.From.Address.String(), Contact: s.Contact, Generator: s.Generator,
		ID:    fmt.Sprintf("%d-%s@%s", k.Begin.Unix(), k.Domain, s.Submitter),
		Begin: k.Begin, End: k.End.Add(-time.Second),
		Errors: t.Errors, Policy: t.Policy, Records: records,
	}
	if r.Organization == "" {
		r.Organization = s.Submitter
	}
	if r.Generator == "" {
		r.Generator = "Postrider"
	}
	return r
}

// partID makes the ID of one of several reports for the same period.
func partID(id, unique string) string {
	local, host, _ := strings.Cut(id, "@")
	return local + "." + unique + "@" + host
}

// packed is one of the mails that a report needs.
type packed struct {
	report *Report
	unique string // "" = the only one
	packed []byte
}

// pack compresses a report, in pieces when it is too large for one mail.
func (s *Sender) pack(r *Report) ([]packed, error) {
	b, err := r.compress()
	if err != nil {
		return nil, err
	}
	if s.fits(b) || len(r.Records) < 2 {
		return []packed{{r, "", b}}, nil
	}
	var out []packed
	var halve func(records []Record) error
	halve = func(records []Record) error {
		part := *r
		part.Records = records
		unique := strconv.Itoa(len(out) + 1)
		part.ID = partID(r.ID, unique)
		b, err := part.compress()
		if err != nil {
			return err
		}
		if s.fits(b) || len(records) == 1 {
			out = append(out, packed{&part, unique, b})
			return nil
		}
		half := len(records) / 2
		if err := halve(records[:half]); err != nil {
			return err
		}
		return halve(records[half:])
	}
	return out, halve(r.Records)
}

// fits reports whether a mail with b is not too large: base64 with its line
// ends, and the rest of the mail.
func (s *Sender) fits(b []byte) bool {
	const overhead = 4096
	return int64(len(b))*78/57+overhead <= orElse(s.MaxSize, 10<<20)
}
