// Passwordreset mails links to choose a new password: curl -d email=ann@example.org http://127.0.0.1:8080/
// No crash and no provider that is down loses a mail, a double click makes one, and an address that bounces is reported.
//
//	SECRET=… RELAY=smtp.provider.example:587 SMTP_USER=… SMTP_PASSWORD=… DATA=mail LISTEN=:8080 go run ./examples/passwordreset
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/queue/submission"
	"github.com/postrider/postrider/smtp/smtpclient"
)

func main() {
	disk, err := diskqueue.Open(os.Getenv("DATA"), nil)
	if err != nil || os.Getenv("SECRET") == "" { // without one anybody could make links
		log.Fatal("want DATA and SECRET: ", err)
	}
	auth := &smtpclient.Auth{User: os.Getenv("SMTP_USER"), Password: os.Getenv("SMTP_PASSWORD")}
	q := &queue.Queue{Storage: disk, Transport: &smtpclient.Relay{Addr: os.Getenv("RELAY"), Auth: auth}, MaxAge: time.Hour}
	q.OnEvent = func(e queue.Event) {
		if e.Kind == queue.EventFailed || e.Kind == queue.EventExpired {
			log.Printf("bounced: %s: %v", e.To, e.Result.Err) // ask the user for another address
		}
	}
	go q.Run(context.Background())
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) { reset(&submission.Submitter{Queue: q}, w, r) })
	log.Fatal(http.ListenAndServe(os.Getenv("LISTEN"), nil))
}

// reset answers all alike, so that nobody learns who is a user. A link is good for an hour, and for the old password.
func reset(mail *submission.Submitter, w http.ResponseWriter, r *http.Request) {
	users := map[string]string{"ann@example.org": "hash of a password", "bob@example.org": "hash of his"} // your database
	to, _ := mime.ParseAddress(r.PostFormValue("email"))
	if hash, ok := users[to.Address.String()]; ok {
		until := time.Now().Truncate(10 * time.Minute).Add(time.Hour) // so there is one mail in ten minutes
		link := fmt.Sprintf("https://shop.example/new?user=%s&until=%d", url.QueryEscape(to.Address.String()), until.Unix())
		mac := hmac.New(sha256.New, []byte(os.Getenv("SECRET")))
		fmt.Fprint(mac, link, hash)
		from, _ := mime.ParseAddressList("The shop <accounts@shop.example>")
		m := &mime.Message{From: from, To: []mime.Address{{Address: to.Address}}, Subject: "Your new password",
			Text: fmt.Sprintf("Choose it here, within the hour:\n%s&mac=%x\n", link, mac.Sum(nil))}
		if _, err := mail.Send(r.Context(), m, submission.Options{Key: link}); err != nil {
			http.Error(w, "Please try again later.", http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "If we know this address, mail is on its way to it.")
}
