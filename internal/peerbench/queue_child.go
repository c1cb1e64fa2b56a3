package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// queueChild is a store-and-forward relay: "DIR SINKPORT". It takes mail at
// once; "run" on its stdin begins to send, to 127.0.0.N for the domain
// dN.test.
func queueChild(args []string) error {
	store, err := diskqueue.Open(args[0], nil)
	if err != nil {
		return err
	}
	defer store.Close()
	pool := &smtpclient.Pool{Dialer: smtpclient.Dialer{Hello: "bench.test"}}
	defer pool.Close()
	sender := &mx.Sender{Pool: pool, Need: smtpclient.Plain, Route: func(_ context.Context, _ smtp.Address, domain string) (*mx.Route, error) {
		n, ok := strings.CutSuffix(strings.TrimPrefix(domain, "d"), ".test")
		if !ok {
			return nil, errors.New("no such domain")
		}
		return mx.Via("[127.0.0." + n + "]:" + args[1])
	}}
	q := &queue.Queue{Storage: store, Transport: sender, Hostname: "bench.test"}
	srv := &smtpserver.Server{Backend: relay{q}, Hostname: "bench.test", MaxConnections: -1, MaxConnectionsPerIP: -1,
		MaxCommands: -1, Log: slog.New(slog.DiscardHandler)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go srv.Serve(l)
	defer srv.Close()
	fmt.Println(l.Addr())
	ran := make(chan error, 1)
	running := false
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
		if sc.Text() == "run" && !running {
			running = true
			go func() { ran <- q.Run(context.Background()) }()
		}
		var ru syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println(ru.Utime.Nano()+ru.Stime.Nano(), m.Mallocs, statusKB("VmRSS:")<<10, statusKB("VmHWM:")<<10)
	}
	q.Close()
	if running {
		return <-ran
	}
	return nil
}

// relay queues what anyone sends, as Postfix does for its own network.
type relay struct{ q *queue.Queue }

func (r relay) NewSession(_ context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
	return &relaySession{q: r.q, c: c}, nil
}

type relaySession struct {
	q   *queue.Queue
	c   *smtpserver.Conn
	env smtp.Envelope
}

func (s *relaySession) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	s.env = smtp.Envelope{From: from, MailOptions: o}
	return s.q.Accept(ctx, o.Size)
}

func (s *relaySession) Rcpt(_ context.Context, to smtp.Address, o smtp.RcptOptions) error {
	s.env.To = append(s.env.To, smtp.Recipient{Address: to, RcptOptions: o})
	return nil
}

func (s *relaySession) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	sub, err := s.q.Prepare(ctx, queue.Mail{Envelope: s.env, Body: r})
	if err != nil {
		return smtp.Reply{}, err
	}
	id := sub.Message.ID.String()
	sub.Head = append(s.c.Received(id, s.env.To[0].Address.String(), time.Now()), sub.Head...)
	if err := s.q.Put(ctx, sub); err != nil {
		sub.Body.Close()
		return smtp.Reply{}, err
	}
	return smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{2, 0, 0}, Text: "OK queued as " + id}, nil
}

func (s *relaySession) Reset()       { s.env = smtp.Envelope{} }
func (s *relaySession) Close() error { return nil }
