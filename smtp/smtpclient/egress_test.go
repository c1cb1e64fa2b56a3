package smtpclient_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// egress is a proxy in front of srv: head reads what comes before SMTP.
func egress(t *testing.T, srv *smtptest.Server, head func(br *bufio.Reader, nc net.Conn) error) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				br := bufio.NewReader(nc)
				if err := head(br, nc); err != nil {
					t.Error(err)
					return
				}
				to, err := net.Dial("tcp", srv.Addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer to.Close()
				wg.Go(func() {
					io.Copy(nc, to)
					nc.Close()
				})
				io.Copy(to, br)
			})
		}
	})
	return l.Addr().String()
}

func TestHAProxy(t *testing.T) {
	srv := smtptest.New(t)
	for _, tt := range []struct {
		h          smtpclient.HAProxy
		addr, want string
	}{
		{smtpclient.HAProxy{V1: true, Source: netip.MustParseAddr("192.0.2.7")}, "198.51.100.9:25", "PROXY TCP4 192.0.2.7 198.51.100.9 0 25\r\n"},
		{smtpclient.HAProxy{V1: true, Source: netip.MustParseAddr("2001:db8::7")}, "[2001:db8::9]:25", "PROXY TCP6 2001:db8::7 2001:db8::9 0 25\r\n"},
		{smtpclient.HAProxy{V1: true}, "198.51.100.9:25", "PROXY TCP4 127.0.0.1 198.51.100.9 0 25\r\n"},
		{smtpclient.HAProxy{Source: netip.MustParseAddr("192.0.2.7")}, "198.51.100.9:25",
			"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x09\x00\x00\x00\x19"},
		{smtpclient.HAProxy{Source: netip.MustParseAddr("2001:db8::7")}, "[2001:db8::9]:587",
			"\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x09\x00\x00\x02\x4b"},
	} {
		h := &tt.h
		h.Addr = egress(t, srv, func(br *bufio.Reader, _ net.Conn) error {
			got := make([]byte, len(tt.want))
			if _, err := io.ReadFull(br, got); err != nil || string(got) != tt.want {
				return fmt.Errorf("header %q, want %q (%v)", got, tt.want, err)
			}
			return nil
		})
		d := &smtpclient.Dialer{DialContext: h.DialContext}
		check(t, d.Send(t.Context(), smtpclient.Target{Addr: tt.addr}, envelope(t, "a@b.test", "c@d.test"), strings.NewReader(message)), "250")
	}
	h := &smtpclient.HAProxy{Addr: srv.Addr, Source: netip.MustParseAddr("192.0.2.7")}
	for _, addr := range []string{"[2001:db8::9]:25", "198.51.100.9", "198.51.100.9:nope"} {
		var op *net.OpError
		if nc, err := h.DialContext(t.Context(), "tcp", addr); !errors.As(err, &op) {
			t.Errorf("%s: %v %v", addr, nc, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cancel()
	if _, err := h.DialContext(ctx, "tcp", "198.51.100.9:25"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A SOCKS5 proxy comes in by golang.org/x/net/proxy.
func TestSOCKS5(t *testing.T) {
	srv := smtptest.New(t)
	addr := egress(t, srv, func(br *bufio.Reader, nc net.Conn) error {
		hello := make([]byte, 3)
		if _, err := io.ReadFull(br, hello); err != nil || !bytes.Equal(hello, []byte{5, 1, 0}) {
			return fmt.Errorf("hello %v %v", hello, err)
		}
		nc.Write([]byte{5, 0})
		want := binary.BigEndian.AppendUint16(append([]byte{5, 1, 0, 3, 7}, "mx.test"...), 25)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(br, got); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("request %v %v", got, err)
		}
		nc.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		return nil
	})
	socks, err := proxy.SOCKS5("tcp", addr, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &smtpclient.Dialer{DialContext: socks.(proxy.ContextDialer).DialContext}
	check(t, d.Send(t.Context(), smtpclient.Target{Addr: "mx.test:25"}, envelope(t, "a@b.test", "c@d.test"), strings.NewReader(message)), "250")
}

// The source address is the net.Dialer's.
func TestSource(t *testing.T) {
	srv := smtptest.New(t)
	d := &smtpclient.Dialer{}
	check(t, d.Send(t.Context(), smtpclient.Target{Addr: srv.Addr, Source: netip.MustParseAddr("127.0.0.9")}, envelope(t, "a@b.test", "c@d.test"), strings.NewReader(message)), "250")
	if got := srv.Messages()[0].Remote.Addr().String(); got != "127.0.0.9" {
		t.Errorf("from %s", got)
	}
}
