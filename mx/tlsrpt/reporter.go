package tlsrpt

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/dnserr"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// Resolver looks up TXT records; *net.Resolver is one. Names have a final dot.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Reporter sends a report to each domain that asks for one.
type Reporter struct {
	Store    Store
	Resolver Resolver
	// Organization and Contact say whose report it is. Contact's domain is
	// the one that signs the mail.
	Organization string
	Contact      smtp.Address
	// Send mails a report; nil = reports to "mailto:" are not sent. It must
	// sign it, and deliver it whatever becomes of TLS.
	Send func(ctx context.Context, m *mime.Message) error
	// HTTP posts reports to "https:"; nil = a client of our own with a
	// timeout of one minute, which follows no redirect.
	HTTP *http.Client
	// Logger is told what fails; nil = slog.Default().
	Logger *slog.Logger
}

const (
	postTimeout = time.Minute
	// A report that nobody takes is tried again for a day (RFC 8460 §5.5).
	retryEvery = 4 * time.Hour
	retryFor   = 24 * time.Hour
	spread     = 4 * time.Hour // after midnight UTC (RFC 8460 §4.1)
)

// Run reports each day, some hours after its end so that not all the world
// does so at midnight, what was counted in it. It returns when ctx is done.
func (r *Reporter) Run(ctx context.Context) error {
	next := Day(time.Now()).Add(24*time.Hour + mathrand.N(spread))
	for {
		t := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		left := r.reportAll(ctx)
		next = Day(time.Now()).Add(24*time.Hour + mathrand.N(spread))
		if again := time.Now().Add(retryEvery); left && again.Before(next) {
			next = again
		}
	}
}

// reportAll reports the days that are over, and tells whether some of it has
// to be tried again.
func (r *Reporter) reportAll(ctx context.Context) (left bool) {
	days, err := r.Store.Days(ctx)
	if err != nil {
		r.log().Error("tlsrpt: reading what was counted", "err", err)
		return true
	}
	for _, day := range days {
		if !day.Before(Day(time.Now())) {
			continue
		}
		if err := r.Report(ctx, day); err != nil {
			r.log().Warn("tlsrpt: not all was reported", "day", day.Format(time.DateOnly), "err", err)
			left = true
		}
	}
	return left
}

// Report reports one day to all domains that something was counted for, and
// forgets what was delivered, what nobody asks for, and what could not be
// delivered for a day. Its error joins those of the domains that are left.
func (r *Reporter) Report(ctx context.Context, day time.Time) error {
	domains, err := r.Store.Domains(ctx, day)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range domains {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		err := r.reportDomain(ctx, day, d)
		if err != nil && time.Since(day) < 24*time.Hour+spread+retryFor {
			errs = append(errs, fmt.Errorf("%s: %w", d, err))
			continue
		}
		if err != nil {
			r.log().Warn("tlsrpt: a report is given up", "domain", d, "day", day.Format(time.DateOnly), "err", err)
		}
		if err := r.Store.Forget(ctx, day, d); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d, err))
		}
	}
	return errors.Join(errs...)
}

func (r *Reporter) reportDomain(ctx context.Context, day time.Time, domain string) error {
	rec, ok, err := r.record(ctx, domain)
	if err != nil || !ok {
		return err
	}
	results, err := r.Store.Results(ctx, day, domain)
	if err != nil || len(results) == 0 {
		return err
	}
	rep := &Report{
		Organization: r.Organization,
		DateRange:    DateRange{day, day.Add(24*time.Hour - time.Second)},
		Contact:      r.Contact.String(),
		ID:           day.Format("20060102") + "." + domain + "." + strings.ToLower(rand.Text()[:10]),
		Policies:     results,
	}
	var failed error
	for _, u := range rec.RUA {
		// One that takes it is enough (RFC 8460 §3).
		if failed = r.deliver(ctx, rep, domain, u); failed == nil {
			return nil
		}
	}
	return failed
}

// record asks whether a domain wants reports. A failing DNS is an error.
func (r *Reporter) record(ctx context.Context, domain string) (Record, bool, error) {
	all, err := r.Resolver.LookupTXT(ctx, "_smtp._tls."+domain+".")
	if err != nil {
		if dnserr.NotFound(err) {
			return Record{}, false, nil
		}
		return Record{}, false, err
	}
	var found []string
	for _, txt := range all {
		if IsRecord(txt) {
			found = append(found, txt)
		}
	}
	if len(found) != 1 {
		return Record{}, false, nil
	}
	rec, err := ParseRecord(found[0])
	return rec, err == nil, nil
}

var errScheme = errors.New("tlsrpt: no way to deliver there")

func (r *Reporter) deliver(ctx context.Context, rep *Report, domain, uri string) error {
	if to, ok := mailto(uri); ok && r.Send != nil {
		m, err := rep.Message(domain, r.Contact, to)
		if err != nil {
			return err
		}
		return r.Send(ctx, m)
	}
	if scheme, _, _ := strings.Cut(uri, ":"); strings.EqualFold(scheme, "https") {
		return r.post(ctx, rep, uri)
	}
	return fmt.Errorf("%w: %s", errScheme, uri)
}

func (r *Reporter) post(ctx context.Context, rep *Report, uri string) error {
	body, err := rep.Compress()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, uri, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/tlsrpt+gzip")
	res, err := cmp.Or(r.HTTP, &http.Client{
		Timeout:       postTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	io.CopyN(io.Discard, res.Body, 64<<10)
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("tlsrpt: %s answers %s", uri, res.Status)
	}
	return nil
}

func (r *Reporter) log() *slog.Logger {
	if r.Logger != nil {
		return r.Logger
	}
	return slog.Default()
}
