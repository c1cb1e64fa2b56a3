package mx_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// far makes a connection late by half a round trip each way.
func far(near net.Conn, rtt time.Duration) net.Conn {
	ours, theirs := net.Pipe()
	carry := func(to, from net.Conn) {
		type parcel struct {
			b  []byte
			at time.Time
		}
		ch := make(chan parcel, 1000)
		go func() {
			defer to.Close()
			for p := range ch {
				time.Sleep(time.Until(p.at))
				if _, err := to.Write(p.b); err != nil {
					for range ch {
					}
					return
				}
			}
		}()
		defer from.Close()
		defer close(ch)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				ch <- parcel{b[:n], time.Now().Add(rtt / 2)}
			}
			if err != nil {
				return
			}
		}
	}
	go carry(near, theirs)
	go carry(theirs, near)
	return ours
}

// TestManyMessagesFarAway: 1,000 messages to 100 domains with a round trip of
// 20 ms, over 20 connections at a time, take a quarter of the time that one
// connection for each message takes, or less: connections are kept, and a
// second sender goes behind the message that is not answered yet. The time is
// synctest's: it does not depend on the machine.
func TestManyMessagesFarAway(t *testing.T) {
	const domains, messages, connections, rtt = 100, 1000, 20, 20 * time.Millisecond
	took := func(pooled bool) (d time.Duration, opened int) {
		synctest.Test(t, func(t *testing.T) {
			all := map[string][]string{}
			for i := range domains {
				all[fmt.Sprintf("d%d.test", i)] = []string{fmt.Sprintf("mx.d%d.test", i)}
			}
			w, err := mxtest.NewWorld(all)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			dialer := smtpclient.Dialer{TLS: w.ClientTLS(), Hello: "us.test", DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				nc, err := w.DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				time.Sleep(rtt)
				return far(nc, rtt), nil
			}}
			s := &mx.Sender{Resolver: w.DNS, Dialer: dialer}
			if pooled {
				s.Pool = &smtpclient.Pool{Dialer: dialer, MaxGroup: 1, MaxConns: connections}
				defer s.Pool.Close()
			}
			// As a queue does it: for each domain a few at a time, 20 domains.
			const perDomain = messages / domains
			next := make(chan int, domains)
			for i := range domains {
				next <- i
			}
			close(next)
			senders := 1
			if pooled {
				senders = 2
			}
			begun := time.Now()
			var wg sync.WaitGroup
			for range connections {
				wg.Go(func() {
					for i := range next {
						var site sync.WaitGroup
						for range senders {
							site.Go(func() {
								for range perDomain / senders {
									if res := s.Deliver(t.Context(), envelope(t, fmt.Sprintf("x@d%d.test", i)), strings.NewReader(message)); res[0].Err != nil {
										t.Error(res[0].Err)
									}
								}
							})
						}
						site.Wait()
					}
				})
			}
			wg.Wait()
			d = time.Since(begun)
			for i := range domains {
				opened += w.Host(fmt.Sprintf("mx.d%d.test", i)).Connections()
			}
		})
		return d, opened
	}
	alone, n := took(false)
	kept, m := took(true)
	t.Logf("one connection a message: %v, %d connections; kept: %v, %d connections; %.1f times as fast", alone, n, kept, m, float64(alone)/float64(kept))
	if kept*4 > alone {
		t.Errorf("%v is not a quarter of %v", kept, alone)
	}
}
