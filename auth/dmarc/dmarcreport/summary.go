package dmarcreport

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/postrider/postrider/auth"
)

// Summary answers, from any number of reports, who sends in the name of a
// domain, and what fails.
type Summary struct {
	Domains    []string // the policy domains, sorted
	Begin, End time.Time
	Reports    int
	Reporters  []string // the organizations that reported, sorted
	Tally
	Sources []Source // most messages first
	Days    []Day    // without gaps
}

// Tally counts messages.
type Tally struct {
	Messages int64
	DKIM     int64 // DKIM passed, aligned
	SPF      int64 // SPF passed, aligned
	Passed   int64 // DMARC: either of them
	// Blocked did not pass and were quarantined or rejected. What neither
	// passed nor was blocked was delivered all the same.
	Blocked int64
}

// Failed is how many messages did not pass.
func (t Tally) Failed() int64 { return t.Messages - t.Passed }

// Delivered is how many messages did not pass and were delivered.
func (t Tally) Delivered() int64 { return t.Messages - t.Passed - t.Blocked }

func (t *Tally) add(r *Record) {
	t.Messages += r.Count
	if r.DKIM == auth.Pass {
		t.DKIM += r.Count
	}
	if r.SPF == auth.Pass {
		t.SPF += r.Count
	}
	switch {
	case r.Aligned():
		t.Passed += r.Count
	case r.Disposition == "quarantine" || r.Disposition == "reject":
		t.Blocked += r.Count
	}
}

// Source is who sent.
type Source struct {
	// Name is the domain that was authenticated: that of a service which
	// sends for the domain, else the domain itself. Of mail without any
	// authentication it is the network it came from.
	Name string
	// Authenticated says that Name is a domain.
	Authenticated bool
	Addrs         []netip.Addr // the first hundred, sorted
	Tally
	Causes []Cause // why messages failed; the most frequent first
}

// Cause is why some messages failed.
type Cause struct {
	Text     string
	Messages int64
}

// Day counts the messages of the reports that begin in one day or, over long
// times, in several.
type Day struct {
	Begin time.Time
	Tally
}

const (
	maxBars  = 92 // days of a summary
	maxAddrs = 100
)

// Summarize adds reports up. Reports with the same ID from the same
// organization about the same domain count once.
func Summarize(reports []*Report) *Summary {
	s := &Summary{}
	sources := map[string]*Source{}
	causes := map[[2]string]int64{}
	seen := map[[3]string]bool{}
	days := map[int64]*Tally{}
	for _, r := range reports {
		id := [3]string{r.Organization, r.Policy.Domain, r.ID}
		if r.ID != "" && seen[id] {
			continue
		}
		seen[id] = true
		s.Reports++
		s.Domains = append(s.Domains, printable(r.Policy.Domain))
		s.Reporters = append(s.Reporters, printable(cmp.Or(r.Organization, r.Email)))
		if !r.Begin.IsZero() && (s.Begin.IsZero() || r.Begin.Before(s.Begin)) {
			s.Begin = r.Begin
		}
		if r.End.After(s.End) {
			s.End = r.End
		}
		day := days[r.Begin.Unix()/86400]
		if day == nil {
			day = new(Tally)
			days[r.Begin.Unix()/86400] = day
		}
		for i := range r.Records {
			rec := &r.Records[i]
			name, authenticated := rec.sender(r.Policy.Domain)
			name = printable(name)
			src := sources[name]
			if src == nil {
				src = &Source{Name: name, Authenticated: authenticated}
				sources[name] = src
			}
			if rec.Source.IsValid() && len(src.Addrs) < maxAddrs && !slices.Contains(src.Addrs, rec.Source) {
				src.Addrs = append(src.Addrs, rec.Source)
			}
			s.add(rec)
			day.add(rec)
			src.add(rec)
			if !rec.Aligned() {
				causes[[2]string{name, printable(rec.cause(r.Policy.Domain))}] += rec.Count
			}
		}
	}
	for c, n := range causes {
		sources[c[0]].Causes = append(sources[c[0]].Causes, Cause{c[1], n})
	}
	for _, src := range sources {
		slices.SortFunc(src.Addrs, netip.Addr.Compare)
		slices.SortFunc(src.Causes, func(a, b Cause) int {
			return cmp.Or(cmp.Compare(b.Messages, a.Messages), strings.Compare(a.Text, b.Text))
		})
		s.Sources = append(s.Sources, *src)
	}
	slices.SortFunc(s.Sources, func(a, b Source) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), strings.Compare(a.Name, b.Name))
	})
	slices.Sort(s.Domains)
	s.Domains = slices.Compact(s.Domains)
	slices.Sort(s.Reporters)
	s.Reporters = slices.Compact(s.Reporters)
	s.days(days)
	return s
}

// days fills in the days without reports, and joins them when there are many.
func (s *Summary) days(days map[int64]*Tally) {
	if len(days) == 0 {
		return
	}
	first, last := int64(1)<<62, int64(-1)<<62
	for d := range days {
		first, last = min(first, d), max(last, d)
	}
	width := (last-first)/maxBars + 1
	s.Days = make([]Day, (last-first)/width+1)
	for i := range s.Days {
		s.Days[i].Begin = time.Unix((first+int64(i)*width)*86400, 0).UTC()
	}
	for d, t := range days {
		sum := &s.Days[(d-first)/width].Tally
		sum.Messages += t.Messages
		sum.DKIM += t.DKIM
		sum.SPF += t.SPF
		sum.Passed += t.Passed
		sum.Blocked += t.Blocked
	}
}

// kin reports whether a domain is the policy domain or above or below it.
func kin(domain, policy string) bool {
	return domain == policy || strings.HasSuffix(domain, "."+policy) || domain != "" && strings.HasSuffix(policy, "."+domain)
}

// sender says who sent the messages of a record.
func (r *Record) sender(policy string) (name string, authenticated bool) {
	var own string
	for _, s := range r.Signatures {
		if s.Result == auth.Pass && s.Domain != "" {
			if !kin(s.Domain, policy) {
				return s.Domain, true
			}
			own = policy
		}
	}
	for _, h := range r.Hosts {
		if h.Result == auth.Pass && h.Domain != "" {
			if !kin(h.Domain, policy) {
				return h.Domain, true
			}
			own = policy
		}
	}
	if own == "" && r.Aligned() {
		own = policy // the report does not say by which domain
	}
	if own != "" {
		return own, true
	}
	if !r.Source.IsValid() {
		return cmp.Or(r.SourceText, "unknown"), false
	}
	bits := 48
	if r.Source.Is4() {
		bits = 24
	}
	p, err := r.Source.Prefix(bits)
	if err != nil {
		return r.Source.String(), false
	}
	return p.String(), false
}

// cause says why the messages of a record failed.
func (r *Record) cause(policy string) string {
	dkim, spf := "not signed", "SPF not checked"
	for _, s := range r.Signatures {
		switch {
		case kin(s.Domain, policy):
			dkim = fmt.Sprintf("signature of %s: %s", s.Domain, cmp.Or(string(s.Result), "unknown"))
			if s.Result == auth.Pass {
				dkim += ", not aligned"
			}
		case dkim == "not signed":
			dkim = fmt.Sprintf("signed by %s only", s.Domain)
		}
	}
	for _, h := range r.Hosts {
		spf = fmt.Sprintf("SPF %s for %s", cmp.Or(string(h.Result), "unknown"), cmp.Or(h.Domain, "no domain"))
		if h.Result == auth.Pass {
			spf += ", not aligned"
		}
	}
	return dkim + "; " + spf
}

// percent of a part, as people write it: neither 0 nor 100 unless exact.
func percent(part, whole int64) string {
	switch {
	case whole == 0:
		return "–"
	case part == 0:
		return "0 %"
	case part == whole:
		return "100 %"
	case part*100 < whole:
		return "<1 %"
	case part*100 > whole*99:
		return ">99 %"
	}
	return fmt.Sprintf("%d %%", (part*100+whole/2)/whole)
}

// WriteText writes the summary as a table.
func (s *Summary) WriteText(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "DMARC of %s, %s to %s, %d reports\n%d messages: %s passed, %d failed and were delivered, %d were quarantined or rejected\n\n",
		strings.Join(s.Domains, ", "), s.Begin.UTC().Format(time.DateOnly), s.End.UTC().Format(time.DateOnly), s.Reports,
		s.Messages, percent(s.Passed, s.Messages), s.Delivered(), s.Blocked); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "SENDER\tMESSAGES\tPASS\tDKIM\tSPF\tDELIVERED\tBLOCKED\tWHAT FAILS\n")
	for i := range s.Sources {
		src := &s.Sources[i]
		why := ""
		if len(src.Causes) > 0 {
			why = src.Causes[0].Text
			if n := len(src.Causes) - 1; n > 0 {
				why += fmt.Sprintf(" (and %d more)", n)
			}
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%d\t%d\t%s\n", src.Name, src.Messages, percent(src.Passed, src.Messages),
			percent(src.DKIM, src.Messages), percent(src.SPF, src.Messages), src.Delivered(), src.Blocked, why)
	}
	return t.Flush()
}

// printable keeps what strangers wrote from moving the cursor of a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
