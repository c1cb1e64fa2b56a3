package interop

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// moodyPolicy is a policy server for Postfix: each recipient of each sender is
// greylisted for a moment, and now and then it is too busy, at each stage.
type moodyPolicy struct {
	delay time.Duration

	mu    sync.Mutex
	seen  map[string]time.Time
	said  map[string]int
	moods *rand.Rand
}

func startPolicy(t *testing.T, p *moodyPolicy) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	conns := make(map[net.Conn]bool)
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for c := range conns {
			c.Close()
		}
		p.mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			conns[c] = true
			p.mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				ask := make(map[string]string)
				for sc := bufio.NewScanner(c); sc.Scan(); {
					if name, value, ok := strings.Cut(sc.Text(), "="); ok {
						ask[name] = value
						continue
					}
					fmt.Fprintf(c, "action=%s\n\n", p.answer(ask))
					clear(ask)
				}
			})
		}
	})
	return l.Addr().String()
}

func (p *moodyPolicy) answer(ask map[string]string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	say := func(what, action string) string {
		p.said[what]++
		return action
	}
	mood := p.moods.IntN(100)
	switch ask["protocol_state"] {
	case "MAIL":
		if mood < 5 {
			return say("421 at MAIL", "421 4.3.2 Too busy")
		}
	case "RCPT":
		key := ask["sender"] + " " + ask["recipient"]
		first, known := p.seen[key]
		if !known {
			p.seen[key] = time.Now()
		}
		switch {
		case !known || time.Since(first) < p.delay:
			return say("greylisted", "450 4.7.1 Greylisted")
		case mood < 10:
			return say("450 at RCPT", "450 4.2.1 Mailbox is busy")
		}
	case "END-OF-MESSAGE":
		if mood < 10 {
			return say("451 after the dot", "451 4.3.0 Try again later")
		}
	}
	return "DUNNO"
}

// TestQueueIntoPostfix: whatever a Postfix defers, our queue brings it all
// there in the end, once.
func TestQueueIntoPostfix(t *testing.T) {
	k := startSink(t, nil)
	policy := &moodyPolicy{delay: time.Second, seen: make(map[string]time.Time), said: make(map[string]int), moods: rand.New(rand.NewPCG(1, 2))}
	check := "check_policy_service inet:" + startPolicy(t, policy)
	p := startPostfix(t, k.certFile, filepath.Join(filepath.Dir(k.certFile), "key.pem"), "relayhost = [127.0.0.1]:"+k.port(t),
		"mynetworks = 127.0.0.0/8", "smtpd_relay_restrictions = permit_mynetworks, reject", "smtpd_delay_reject = no",
		"smtpd_sender_restrictions = "+check, "smtpd_recipient_restrictions = "+check, "smtpd_end_of_data_restrictions = "+check,
		"smtpd_error_sleep_time = 0", "smtpd_soft_error_limit = 1000", "smtpd_hard_error_limit = 1000", "smtp_tls_security_level = none")

	pool := &smtpclient.Pool{Dialer: *trusting(t, k.certFile)}
	defer pool.Close()
	var mu sync.Mutex
	events := make(map[queue.EventKind]int)
	q := &queue.Queue{Storage: new(memqueue.Storage), Transport: &smtpclient.Relay{Addr: p.addr, Pool: pool},
		Retry: queue.Backoff(200*time.Millisecond, time.Second), Log: slog.New(slog.DiscardHandler),
		OnEvent: func(e queue.Event) {
			mu.Lock()
			events[e.Kind]++
			mu.Unlock()
		}}
	ended := make(chan error, 1)
	go func() { ended <- q.Run(context.Background()) }()

	n := relayed(t) / 3
	var want []string
	for i := range n {
		env := smtp.Envelope{From: mustAddress(t, fmt.Sprintf("s%d@from.test", i%7))}
		for r := range 3 {
			to := fmt.Sprintf("r%d-%d@d%d.test", i, r, r%2)
			env.To = append(env.To, smtp.Recipient{Address: mustAddress(t, to)})
			want = append(want, to)
		}
		text := fmt.Sprintf("From: a@from.test\r\nSubject: number %d\r\n\r\n.dot\r\n%s", i, strings.Repeat("y\r\n", 100))
		if _, err := q.Enqueue(context.Background(), queue.Mail{Envelope: env, Body: strings.NewReader(text)}); err != nil {
			t.Fatal(err)
		}
	}
	left := func() int {
		n := 0
		for _, err := range q.List(context.Background(), queue.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	for end := time.Now().Add(5 * time.Minute); left() > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d entries are left", left())
		}
	}
	count := func() (map[string]int, int) {
		got, all := make(map[string]int), 0
		for _, m := range k.wait(t, 0, 0) {
			for _, r := range m.to {
				got[r.String()]++
				all++
			}
		}
		return got, all
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, all := count(); all >= len(want) || time.Now().After(end) {
			break
		}
	}
	if err := q.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got, _ := count()
	for _, to := range want {
		if got[to] != 1 {
			t.Errorf("%s came %d times", to, got[to])
		}
	}
	if len(got) != len(want) || events[queue.EventDelivered] != len(want) || events[queue.EventFailed]+events[queue.EventExpired] > 0 {
		t.Errorf("%d of %d came, events %v", len(got), len(want), events)
	}
	policy.mu.Lock()
	defer policy.mu.Unlock()
	for _, what := range []string{"greylisted", "450 at RCPT", "421 at MAIL", "451 after the dot"} {
		if policy.said[what] == 0 {
			t.Errorf("Postfix never said %s", what)
		}
	}
	t.Logf("%d recipients came once each; Postfix said %v, and our queue deferred %d times", len(want), policy.said, events[queue.EventDeferred])
}
