package main

import (
	"bufio"
	"bytes"
	"net"
	"strings"
	"sync"

	"github.com/postrider/postrider/examples/internal/page"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// smtpTrace writes a client's conversation to the page.
func smtpTrace(p *page.Page, name string) *smtpclient.Trace {
	return &smtpclient.Trace{
		Command: func(line string) { p.Log(name, "C: "+line) },
		Reply:   func(r smtp.Reply) { p.Log(name, "S: "+r.String()) },
		Sent:    func(int64) { p.Log(name, "C: (message) .") },
	}
}

// recorder is a connection whose lines go to the page. It sits above TLS.
type recorder struct {
	net.Conn
	p    *page.Page
	name string
	mu   sync.Mutex
	in   bytes.Buffer
	out  bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.take(&r.in, "S: ", b[:n])
	return n, err
}

func (r *recorder) Write(b []byte) (int, error) {
	r.take(&r.out, "C: ", b)
	return r.Conn.Write(b)
}

func (r *recorder) take(buf *bytes.Buffer, side string, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	buf.Write(b)
	for bytes.IndexByte(buf.Bytes(), '\n') >= 0 {
		line, _ := bufio.NewReader(bytes.NewReader(buf.Bytes())).ReadString('\n')
		buf.Next(len(line))
		r.p.Log(r.name, side+hide(strings.TrimRight(line, "\r\n")))
	}
}

// hide keeps passwords out of transcripts.
func hide(line string) string {
	for _, verb := range []string{"PASS ", "LOGIN ", "AUTH ", "AUTHENTICATE "} {
		if i := strings.Index(strings.ToUpper(line), verb); i >= 0 && i < 10 {
			return line[:i+len(verb)] + "***"
		}
	}
	return line
}
