package dmarcreport

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/mime"
)

// WriteXML writes the report as XML of RFC 9990.
func (r *Report) WriteXML(w io.Writer) error {
	x := &writer{w: bufio.NewWriter(w)}
	x.raw("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<feedback xmlns=\"" + Namespace + "\">\n")
	x.value("version", "1.0")
	x.open("report_metadata")
	x.value("org_name", r.Organization)
	x.value("email", r.Email)
	x.optional("extra_contact_info", r.Contact)
	x.value("report_id", r.ID)
	x.open("date_range")
	x.value("begin", strconv.FormatInt(r.Begin.Unix(), 10))
	x.value("end", strconv.FormatInt(r.End.Unix(), 10))
	x.close("date_range")
	x.optional("error", strings.Join(r.Errors, "; "))
	x.optional("generator", r.Generator)
	x.close("report_metadata")
	x.policy(&r.Policy)
	for i := range r.Records {
		x.record(&r.Records[i])
	}
	x.raw("</feedback>\n")
	if x.err != nil {
		return x.err
	}
	return x.w.Flush()
}

// writer writes elements and keeps the first error.
type writer struct {
	w     *bufio.Writer
	depth int
	err   error
}

func (x *writer) raw(parts ...string) {
	for _, s := range parts {
		if x.err == nil {
			_, x.err = x.w.WriteString(s)
		}
	}
}

const indent = "\t\t\t\t\t\t\t\t"

func (x *writer) open(name string) {
	x.depth++
	x.raw(indent[:x.depth], "<", name, ">\n")
}

func (x *writer) close(name string) {
	x.raw(indent[:x.depth], "</", name, ">\n")
	x.depth--
}

func (x *writer) value(name, value string) {
	x.raw(indent[:x.depth+1], "<", name, ">")
	if strings.ContainsFunc(value, special) {
		if x.err == nil {
			x.err = xml.EscapeText(x.w, []byte(value))
		}
	} else {
		x.raw(value)
	}
	x.raw("</", name, ">\n")
}

// special reports whether a character may need escaping.
func special(c rune) bool {
	return c < ' ' || c > '~' || c == '<' || c == '>' || c == '&' || c == '"' || c == '\''
}

func (x *writer) optional(name, value string) {
	if value != "" {
		x.value(name, value)
	}
}

func (x *writer) policy(p *Published) {
	x.open("policy_published")
	x.value("domain", p.Domain)
	x.optional("discovery_method", p.Method)
	x.value("p", string(p.Policy))
	x.optional("sp", string(p.Subdomain))
	x.optional("np", string(p.NonExistent))
	x.optional("fo", p.FailureOptions)
	x.optional("adkim", string(p.DKIM))
	x.optional("aspf", string(p.SPF))
	testing := "n"
	if p.Testing {
		testing = "y"
	}
	x.value("testing", testing)
	x.close("policy_published")
}

func (x *writer) record(r *Record) {
	x.open("record")
	x.open("row")
	ip := r.SourceText
	if r.Source.IsValid() {
		ip = r.Source.Unmap().WithZone("").String()
	}
	x.value("source_ip", ip)
	x.value("count", strconv.FormatInt(r.Count, 10))
	x.open("policy_evaluated")
	x.value("disposition", r.Disposition)
	x.value("dkim", string(r.DKIM))
	x.value("spf", string(r.SPF))
	for _, reason := range r.Reasons {
		x.open("reason")
		x.value("type", string(reason.Type))
		x.optional("comment", reason.Comment)
		x.close("reason")
	}
	x.close("policy_evaluated")
	x.close("row")
	x.open("identifiers")
	x.value("header_from", r.HeaderFrom)
	x.value("envelope_from", r.EnvelopeFrom)
	x.optional("envelope_to", r.EnvelopeTo)
	x.close("identifiers")
	x.open("auth_results")
	for _, s := range r.Signatures {
		x.open("dkim")
		x.value("domain", s.Domain)
		x.value("selector", s.Selector)
		x.value("result", string(s.Result))
		x.optional("human_result", s.Comment)
		x.close("dkim")
	}
	for _, h := range r.Hosts {
		x.open("spf")
		x.value("domain", h.Domain)
		x.optional("scope", h.Scope)
		x.value("result", string(h.Result))
		x.optional("human_result", h.Comment)
		x.close("spf")
	}
	x.close("auth_results")
	x.close("record")
}

// FileName is the name that RFC 9990 §3.5.2 wants for the report of a
// receiver, compressed; unique tells reports of the same period apart, "" =
// there is only one.
func (r *Report) FileName(submitter, unique string) string {
	if unique != "" {
		unique = "!" + unique
	}
	return fmt.Sprintf("%s!%s!%d!%d%s.xml.gz", submitter, r.Policy.Domain, r.Begin.Unix(), r.End.Unix(), unique)
}

// Message makes the mail that brings the report to one address
// (RFC 9990 §3.5.2). It has to be signed so that DMARC passes for it.
func (r *Report) Message(submitter, unique string, from, to mime.Address) (*mime.Message, error) {
	packed, err := r.compress()
	if err != nil {
		return nil, err
	}
	return r.mail(packed, submitter, unique, from, to)
}

// compress gives the XML within gzip.
func (r *Report) compress() ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := r.WriteXML(z); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (r *Report) mail(packed []byte, submitter, unique string, from, to mime.Address) (*mime.Message, error) {
	var passed, failed int64
	for i := range r.Records {
		if r.Records[i].Aligned() {
			passed += r.Records[i].Count
		} else {
			failed += r.Records[i].Count
		}
	}
	m := &mime.Message{
		From:    []mime.Address{from},
		To:      []mime.Address{to},
		Subject: fmt.Sprintf("Report Domain: %s Submitter: %s Report-ID: <%s>", r.Policy.Domain, submitter, r.ID),
		Text: fmt.Sprintf("This is a DMARC aggregate report (RFC 9990) about mail in the name of %s,\n"+
			"as %s received it from %s to %s.\n\nMessages that passed DMARC: %d\nMessages that did not: %d\n\nThe report itself is attached.\n",
			r.Policy.Domain, submitter, r.Begin.UTC().Format(time.RFC3339), r.End.UTC().Format(time.RFC3339), passed, failed),
		Attachments: []mime.File{{Name: r.FileName(submitter, unique), Type: "application/gzip", Data: packed}},
	}
	// Nobody's vacation may answer this (RFC 3834 §5).
	return m, m.Header.Add("Auto-Submitted", "auto-generated")
}
