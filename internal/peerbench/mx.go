package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/resolver"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

const farAway = 20 * time.Millisecond

func mxRows(r *run) ([]row, error) {
	var rows []row
	add := func(what, peer, unit string, theirs, ours func() (float64, error), g goal) {
		rows = append(rows, row{what: what, peer: peer, unit: unit, theirs: theirs, ours: ours, goal: g})
	}
	ctx := context.Background()
	zone := mxtest.NewDNS(mxtest.Zone{"*.test": {"3600 MX 10 mx.example.test"},
		"host.test":      {"3600 A 192.0.2.1", "3600 AAAA 2001:db8::1"},
		"away.host.test": {"DELAY 20ms", "A 192.0.2.1", "AAAA 2001:db8::1"}})
	kept := &resolver.Resolver{Servers: []string{"127.0.0.1"}, DialContext: zone.DialContext}
	cached := func() error {
		list, err := kept.LookupMX(ctx, "a.test.")
		if err == nil && len(list) != 1 {
			err = errors.New("no answer")
		}
		return err
	}
	add("cached MX lookup", "", "µs CPU", nil, cpuPerOp(cached), goal{atMost: 1})
	add("cached MX lookup", "", "allocs", nil, allocsPerOp(loop(cached)), goal{atMost: 2})
	names := 100_000
	if r.quick {
		names = 10_000
	}
	add(fmt.Sprintf("cache of %d names", names), "", "MB", nil, func() (float64, error) { return cacheMemory(ctx, zone, names) }, goal{atMost: 64})

	addr, err := zone.Listen("")
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	std := &net.Resolver{PreferGo: true, Dial: dial}
	cold := &resolver.Resolver{Servers: []string{addr}, CacheSize: -1}
	// Information: the server's CPU, which is most of it, is in both.
	add("MX lookup over UDP, no cache", "net.Resolver", "µs CPU", cpuPerOp(func() error { _, err := std.LookupMX(ctx, "a.test."); return err }),
		cpuPerOp(func() error { _, err := cold.LookupMX(ctx, "a.test."); return err }), goal{})
	// Over a round trip of 20 ms, A and AAAA cost the one that a single
	// question costs.
	client := &dns.Client{}
	question := new(dns.Msg).SetQuestion("away.host.test.", dns.TypeA)
	add("A and AAAA from 20 ms away, no cache", "floor: one exchange of miekg/dns 1.1", "ms", milliseconds(func() error {
		_, _, err := client.Exchange(question, addr)
		return err
	}), milliseconds(func() error {
		list, err := cold.LookupNetIP(ctx, "ip", "away.host.test.")
		if err == nil && len(list) != 2 {
			err = fmt.Errorf("%v", list)
		}
		return err
	}), goal{atMost: 1.2})

	messages, domains := 1000, 100
	if r.quick {
		messages, domains = 100, 20
	}
	add(fmt.Sprintf("Deliver %d messages to %d domains 20 ms away, 20 at a time", messages, domains), "a connection for each message", "s",
		func() (float64, error) { return deliverFar(messages, domains, false) }, func() (float64, error) { return deliverFar(messages, domains, true) }, goal{atMost: 0.25})
	return rows, nil
}

func milliseconds(f func() error) func() (float64, error) {
	return benchmark(loop(f), func(r testing.BenchmarkResult) float64 { return float64(r.T.Nanoseconds()) / float64(r.N) / 1e6 })
}

// cacheMemory is what the MX records of many domains take.
func cacheMemory(ctx context.Context, zone *mxtest.DNS, names int) (float64, error) {
	r := &resolver.Resolver{Servers: []string{"127.0.0.1"}, CacheSize: 2 * names, DialContext: zone.DialContext}
	var before, between, after runtime.MemStats
	zone.Questions() // grows by itself: measured apart
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range names {
		if _, err := r.Query(ctx, fmt.Sprintf("domain-%d.test.", i), dns.TypeMX); err != nil {
			return 0, err
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&between)
	if _, err := r.Query(ctx, "domain-0.test.", dns.TypeMX); err != nil {
		return 0, err
	}
	runtime.KeepAlive(r)
	r = nil
	runtime.GC()
	runtime.ReadMemStats(&after)
	return float64(between.HeapAlloc-after.HeapAlloc) / 1e6, nil
}

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

// deliverFar is how long many messages take to servers with TLS behind slow
// links: as a queue does it, one domain after the other in each of 20 lanes.
func deliverFar(messages, domains int, pooled bool) (float64, error) {
	all := map[string][]string{}
	for i := range domains {
		all[fmt.Sprintf("d%d.test", i)] = []string{fmt.Sprintf("mx.d%d.test", i)}
	}
	w, err := mxtest.NewWorld(all)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	dialer := smtpclient.Dialer{TLS: w.ClientTLS(), Hello: "us.test", DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := w.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		time.Sleep(farAway)
		return far(nc, farAway), nil
	}}
	const lanes = 20
	s, senders := &mx.Sender{Resolver: w.DNS, Dialer: dialer}, 1
	if pooled {
		s.Pool = &smtpclient.Pool{Dialer: dialer, MaxGroup: 1, MaxConns: lanes}
		defer s.Pool.Close()
		senders = 2
	}
	next := make(chan int, domains)
	for i := range domains {
		next <- i
	}
	close(next)
	var mu sync.Mutex
	var failed error
	body := bytes.NewReader([]byte("Subject: x\r\n\r\nHello\r\n"))
	begun := time.Now()
	var wg sync.WaitGroup
	for range lanes {
		wg.Go(func() {
			for i := range next {
				env := &smtp.Envelope{From: smtp.Address{Local: "a", Domain: "b.test"}, To: []smtp.Recipient{{Address: smtp.Address{Local: "x", Domain: fmt.Sprintf("d%d.test", i)}}}}
				var site sync.WaitGroup
				for range senders {
					site.Go(func() {
						for range messages / domains / senders {
							if err := s.Deliver(context.Background(), env, body)[0].Err; err != nil {
								mu.Lock()
								failed = err
								mu.Unlock()
							}
						}
					})
				}
				site.Wait()
			}
		})
	}
	wg.Wait()
	return time.Since(begun).Seconds(), failed
}
