package memqueue_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// Before a program ends it can name what dies with it.
func ExampleStorage_List() {
	st := new(memqueue.Storage)
	q := &queue.Queue{Storage: st, Transport: new(queuetest.Transport)} // not running
	_, err := q.Enqueue(context.Background(), queue.Mail{
		Envelope: smtp.Envelope{
			From: smtp.Address{Local: "shop", Domain: "shop.example"},
			To:   []smtp.Recipient{{Address: smtp.Address{Local: "ann", Domain: "example.org"}}},
		},
		Body: strings.NewReader("Subject: Hello\r\n\r\nHow are you?\r\n"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for e, err := range st.List(context.Background(), queue.Filter{Dest: "example.org"}) {
		fmt.Println(e.Envelope.To[0].Address, e.Attempt, err)
	}
	// Output: ann@example.org 0 <nil>
}
