package dmarcreport_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/postrider/postrider/auth/authtest"
	"github.com/postrider/postrider/auth/dmarc/dmarcreport"
	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

func ExampleRead() {
	const xml = `<feedback><report_metadata><org_name>mx.example.net</org_name><email>d@mx.example.net</email><report_id>1</report_id>
	<date_range><begin>1777852800</begin><end>1777939199</end></date_range></report_metadata>
	<policy_published><domain>example.org</domain><p>none</p></policy_published>
	<record><row><source_ip>192.0.2.9</source_ip><count>12</count><policy_evaluated><disposition>none</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated></row>
	<identifiers><header_from>example.org</header_from></identifiers>
	<auth_results><spf><domain>bounce.shop.example</domain><result>pass</result></spf></auth_results></record></feedback>`
	r, err := dmarcreport.Read(strings.NewReader(xml), dmarcreport.Limits{})
	if err != nil {
		log.Fatal(err)
	}
	s := dmarcreport.Summarize([]*dmarcreport.Report{r})
	fmt.Println(s.Sources[0].Name, s.Sources[0].Messages, s.Sources[0].Causes[0].Text)
	// Output: bounce.shop.example 12 not signed; SPF pass for bounce.shop.example, not aligned
}

func ExampleSender() {
	storage := new(dmarcreport.Memory)
	s := &dmarcreport.Sender{
		Storage:   storage,
		Submitter: "mx.example.net",
		From:      mime.Address{Address: smtp.Address{Local: "dmarc", Domain: "mx.example.net"}},
		Send: func(ctx context.Context, m *mime.Message) error {
			_, err := m.WriteTo(os.Stdout) // or submission.Submitter.Send, which signs and queues
			return err
		},
	}
	n, err := s.SendDue(context.Background(), time.Now())
	fmt.Println(n, err)
	// Output: 0 <nil>
}

// What a server does with each message: one row for the aggregate report, and a
// failure report if one is asked for.
func ExampleFromResult() {
	w := authtest.New("example.org") // p=reject, with reports to reports@example.org
	p := (&verify.Verifier{Resolver: w.Zone}).Begin(context.Background(), verify.Source(w.Source("stranger.example")))
	defer p.Close()
	io.WriteString(p, w.Message("example.org"))
	r, err := p.Result()
	if err != nil {
		log.Fatal(err)
	}

	m := dmarcreport.FromResult(r)
	m.EnvelopeTo = "example.net"
	c := &dmarcreport.Collector{Storage: new(dmarcreport.Memory)}
	if err := c.Add(context.Background(), m.Message); err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.IP, m.DeliveryResult, dmarcreport.Wanted(&m.Message))
	// Output: 198.51.100.1 reject false
}
