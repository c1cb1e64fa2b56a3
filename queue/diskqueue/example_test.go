package diskqueue_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// What was accepted is there when the program starts again.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "queue-*")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	st, err := diskqueue.Open(dir, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	q := &queue.Queue{Storage: st, Transport: new(queuetest.Transport)} // not running
	_, err = q.Enqueue(ctx, queue.Mail{
		Envelope: smtp.Envelope{
			From: smtp.Address{Local: "shop", Domain: "shop.example"},
			To:   []smtp.Recipient{{Address: smtp.Address{Local: "ann", Domain: "example.org"}}},
		},
		Body: strings.NewReader("Subject: Hello\r\n\r\nHow are you?\r\n"),
	})
	fmt.Println(err, st.Close())

	if st, err = diskqueue.Open(dir, nil); err != nil {
		fmt.Println(err)
		return
	}
	defer st.Close()
	for e, err := range st.List(ctx, queue.Filter{}) {
		fmt.Println(e.Envelope.To[0].Address, err)
	}
	// Output:
	// <nil> <nil>
	// ann@example.org <nil>
}
