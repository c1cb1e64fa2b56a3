package smtpclient_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// Many senders share few connections to a host that fails in every way it
// can. What is said to be delivered is there once, what is said to be refused
// is not there, and only a message whose dot went out may be unsure.
func TestPoolChaos(t *testing.T) {
	srv := smtptest.New(t)
	pool := &smtpclient.Pool{MaxGroup: 2, MaxMessages: 20}
	relay := &smtpclient.Relay{Addr: srv.Addr, Pool: pool}
	faults := []smtptest.Fault{
		{At: smtptest.Connect, Reply: "421 4.3.2 Busy"},
		{At: smtptest.Connect, Drop: true},
		{At: smtptest.Mail, Reply: "421 4.7.0 Enough"},
		{At: smtptest.Mail, Reply: "451 4.3.0 Later"},
		{At: smtptest.Mail, Drop: true},
		{At: smtptest.Rcpt, Reply: "450 4.2.0 Greylisted"},
		{At: smtptest.Rcpt, Reply: "550 5.1.1 Unknown"},
		{At: smtptest.Rcpt, Reply: "421 4.7.0 Enough"},
		{At: smtptest.Data, Drop: true},
		{At: smtptest.Data, Reply: "554 5.6.0 No"},
		{At: smtptest.Dot, Reply: "452 4.3.1 Full"},
		{At: smtptest.Dot, Reply: "421 4.3.2 Bye"},
		{At: smtptest.Dot, Drop: true},
		{At: smtptest.Dot, Delay: 2 * time.Millisecond},
	}
	srv.Inject(smtptest.Fault{At: smtptest.Rcpt, Reply: "550 5.1.1 Unknown", Times: 1})
	stop := make(chan struct{})
	var chaos sync.WaitGroup
	chaos.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 2))
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				f := faults[rnd.IntN(len(faults))]
				f.Times = 1
				srv.Inject(f)
			}
		}
	})
	var mu sync.Mutex
	results := map[string]smtp.Result{}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(3, uint64(g)))
			for i := range 100 {
				to := fmt.Sprintf("u%d-%d@d.test", g, i)
				ctx, cancel := context.WithCancel(t.Context())
				if rnd.IntN(10) == 0 {
					time.AfterFunc(time.Duration(rnd.IntN(3000))*time.Microsecond, cancel)
				}
				res := relay.Deliver(ctx, envelope(t, "a@b.test", to), strings.NewReader(message))
				cancel()
				mu.Lock()
				results[to] = res[0]
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	close(stop)
	chaos.Wait()
	if err := pool.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	srv.Close()
	there := map[string]int{}
	for _, m := range srv.Messages() {
		there[m.Envelope.To[0].String()]++
	}
	count := map[string]int{}
	for to, res := range results {
		n := there[to]
		var e *smtp.Error
		switch {
		case res.Err == nil:
			count["delivered"]++
			if n != 1 {
				t.Errorf("%s: delivered, and there %d times", to, n)
			}
		case !errors.As(res.Err, &e):
			t.Errorf("%s: %T", to, res.Err)
		case e.Unsure:
			count["unsure"]++
			if n > 1 {
				t.Errorf("%s: unsure, and there %d times", to, n)
			}
		default:
			count["refused"]++
			if n != 0 {
				t.Errorf("%s: there, although %v", to, e)
			}
		}
	}
	t.Log(count)
	if count["delivered"] == 0 || count["refused"] == 0 {
		t.Error(count)
	}
}
