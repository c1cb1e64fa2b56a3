// Webhook receives mail for a domain, checks it, and POSTs it as signed JSON. While the hook is down, or says anything
// but 2xx, senders are told to come again later (451): nothing is lost, and nothing has to be kept here.
//
//	SECRET=… HOOK=https://app.example/mail DOMAIN=in.example.org LISTEN=:25 go run ./examples/webhook
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/queue/webhook"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store/delivery"
)

func main() {
	l, err := net.Listen("tcp", os.Getenv("LISTEN"))
	if err != nil || os.Getenv("SECRET") == "" { // without one anybody could sign
		log.Fatal("want LISTEN and SECRET: ", err)
	}
	log.Fatal((&smtpserver.Server{MaxMessageBytes: 20 << 20, Backend: &delivery.Backend{Verifier: new(verify.Verifier), Policy: delivery.DMARC,
		Recipients: delivery.CatchAll(os.Getenv("DOMAIN")), Target: delivery.TargetFunc(post)}}).Serve(l))
}

// post is the Target. The hook calls webhook.Verify, and tells a message that comes again by its id.
func post(ctx context.Context, in *delivery.Inbound) error {
	raw, err := io.ReadAll(io.NewSectionReader(in.Body, 0, in.Body.Size()))
	text, to, field := new(bytes.Buffer), []string{}, in.Message.Header.Text
	for _, p := range in.Message.Bodies().Text {
		io.Copy(text, p.Text(bytes.NewReader(raw)))
	}
	for _, r := range in.Recipients {
		to = append(to, r.Address.String())
	}
	body, err2 := json.Marshal(map[string]any{"from": field("From"), "subject": field("Subject"), "id": field("Message-ID"), "raw": raw,
		"mailfrom": in.From.String(), "to": to, "auth": in.Auth.AuthenticationResults.Results, "text": text.String()})
	req, err3 := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("HOOK"), bytes.NewReader(body))
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, webhook.SignatureHeader: {webhook.Sign([]byte(os.Getenv("SECRET")), time.Now(), body)}}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return errors.New("the hook says " + resp.Status)
	}
	return nil
}
