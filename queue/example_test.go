package queue_test

import (
	"context"
	"log"
	"strings"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// A backend sends through its provider, and hears what became of it.
func Example() {
	q := &queue.Queue{
		Storage: new(memqueue.Storage),
		Transport: &smtpclient.Relay{Addr: "smtp.provider.example:587",
			Auth: &smtpclient.Auth{User: "shop", Password: "secret"}, Pool: new(smtpclient.Pool)},
		Retry:  queue.Backoff(time.Minute, time.Hour),
		MaxAge: 24 * time.Hour,
		OnEvent: func(e queue.Event) {
			log.Print(e.Message.Meta["order"], " to ", e.To, ": ", e.Kind)
		},
	}
	go q.Run(context.Background())
	defer q.Shutdown(context.Background())

	ann, _ := smtp.ParseAddress("ann@example.org")
	shop, _ := smtp.ParseAddress("bounces@shop.example")
	_, err := q.Enqueue(context.Background(), queue.Mail{
		Envelope: smtp.Envelope{From: shop, To: []smtp.Recipient{{Address: ann}}},
		Key:      "order-17-shipped", // asked twice, sent once
		Meta:     map[string]string{"order": "17"},
		Body:     strings.NewReader("From: shop@shop.example\r\nSubject: Your order\r\n\r\nIt is on its way.\r\n"),
	})
	if err != nil {
		log.Print(err)
	}
}
