package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/webhook"
	"github.com/postrider/postrider/smtp"
)

// A receiver checks the signature, and answers 2xx when it has what it read.
func Example() {
	secret := []byte("shared with the receiver")
	done := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		events, err := webhook.Read(r, 0, secret)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		for _, e := range events { // in a program: unless e.ID is known
			fmt.Println(e.Kind, e.Meta["order"])
		}
		w.WriteHeader(http.StatusNoContent)
		close(done)
	}))
	defer receiver.Close()

	st := &memqueue.Storage{KeepEvents: true}
	q := &queue.Queue{Storage: st}
	q.Enqueue(context.Background(), queue.Mail{
		Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: smtp.Address{Local: "ann", Domain: "example.org"}}}},
		Meta:     map[string]string{"order": "17"},
		Body:     strings.NewReader("Subject: Your order\r\n\r\nIt is on its way.\r\n"),
	})

	ctx, cancel := context.WithCancel(context.Background())
	d := &webhook.Deliverer{Storage: st, URL: receiver.URL, Secret: secret}
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	<-done
	cancel()
	<-ended
	// Output: queued 17
}
