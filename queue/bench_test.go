package queue_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/smtp"
)

// discard is a transport that takes everything at once.
type discard struct{}

func (discard) Deliver(_ context.Context, env *smtp.Envelope, body queue.Body) []smtp.Result {
	return make([]smtp.Result, len(env.To))
}

// A message from Enqueue to the event of its delivery, many at one time.
func BenchmarkEndToEnd(b *testing.B) {
	for _, lanes := range []int{1, 1000} {
		b.Run(fmt.Sprintf("lanes=%d", lanes), func(b *testing.B) {
			var delivered sync.WaitGroup
			q := &queue.Queue{Storage: new(memqueue.Storage), Transport: discard{}, PerSite: 100, Log: slog.New(slog.DiscardHandler),
				OnEvent: func(e queue.Event) {
					if e.Kind == queue.EventDelivered {
						delivered.Done()
					}
				}}
			ended := make(chan error)
			go func() { ended <- q.Run(context.Background()) }()
			text := message + strings.Repeat("Some line of text, as mail has them.\r\n", 100)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				delivered.Add(1)
				m := queue.Mail{Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: smtp.Address{Local: "r", Domain: fmt.Sprintf("d%d.test", n%lanes)}}}},
					Body: strings.NewReader(text)}
				if _, err := q.Enqueue(context.Background(), m); err != nil {
					b.Fatal(err)
				}
				n++
			}
			delivered.Wait()
			q.Close()
			<-ended
		})
	}
}

// Four keys are asked for each lane that starts something.
func BenchmarkRates(b *testing.B) {
	l := &queue.Rates{Rate: func(string) queue.Rate { return queue.Rate{N: 1_000_000_000, Per: time.Second} }}
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("dest d%d.test", i)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if granted, _, err := l.Take(context.Background(), keys[n%len(keys)], 1); granted != 1 || err != nil {
			b.Fatal(granted, err)
		}
		n++
	}
}
