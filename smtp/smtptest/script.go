package smtptest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Script is a conversation as a server sees it, one step a line; empty lines
// and surrounding space do not count:
//
//	S: 220 mx.test ESMTP    send the line, with CRLF
//	C: EHLO *               read a line; "*" stands for anything
//	RAW "250 OK\n"          send the octets of a Go string
//	BODY                    read a message to its dot
//	CHUNK 100               read so many octets, as BDAT sends them
//	WAIT 5s                 do nothing for a time
//	HANG                    do nothing until the client closes
//	CLOSE                   close; so does the end of the script
type Script string

// Serve plays the script on nc and closes it. The error names the first step
// that did not come true, or is nil.
func (s Script) Serve(nc net.Conn) error {
	defer nc.Close()
	br := bufio.NewReaderSize(nc, 64<<10)
	n := 0
	for line := range strings.Lines(string(s)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		done, err := step(nc, br, line)
		if err != nil {
			return fmt.Errorf("smtptest: script line %d, %q: %w", n, line, err)
		}
		if done {
			return nil
		}
	}
	return nil
}

func step(nc net.Conn, br *bufio.Reader, line string) (done bool, err error) {
	if text, ok := strings.CutPrefix(line, "S:"); ok {
		_, err := io.WriteString(nc, strings.TrimPrefix(text, " ")+"\r\n")
		return false, err
	}
	if pattern, ok := strings.CutPrefix(line, "C:"); ok {
		got, err := br.ReadString('\n')
		if err != nil {
			return false, fmt.Errorf("got %q: %w", got, err)
		}
		if got = strings.TrimSuffix(got, "\r\n"); !match(strings.TrimSpace(pattern), got) {
			return false, fmt.Errorf("got %q", got)
		}
		return false, nil
	}
	word, arg, _ := strings.Cut(line, " ")
	switch word {
	case "RAW":
		text, err := strconv.Unquote(strings.TrimSpace(arg))
		if err != nil {
			return false, err
		}
		_, err = io.WriteString(nc, text)
		return false, err
	case "BODY":
		for {
			got, err := br.ReadString('\n')
			if err != nil || got == ".\r\n" {
				return false, err
			}
		}
	case "CHUNK":
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil {
			return false, err
		}
		_, err = io.CopyN(io.Discard, br, n)
		return false, err
	case "WAIT":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return false, err
		}
		time.Sleep(d)
		return false, nil
	case "HANG":
		io.Copy(io.Discard, br)
		return true, nil
	case "CLOSE":
		return true, nil
	}
	return false, errors.New("unknown step")
}

// match compares with a pattern in which "*" stands for anything.
func match(pattern, s string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	s, ok := strings.CutPrefix(s, head)
	if !star || !ok {
		return ok && s == ""
	}
	for i := 0; i <= len(s); i++ {
		if match(rest, s[i:]) {
			return true
		}
	}
	return false
}

// Peer plays a Script for each connection in turn.
type Peer struct {
	Scripts []Script

	mu   sync.Mutex
	wg   sync.WaitGroup
	next int
	errs []error
}

// DialContext opens a connection in memory to the next script, whatever the
// address; after the last one it is refused.
func (p *Peer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == len(p.Scripts) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
	}
	script := p.Scripts[p.next]
	p.next++
	ours, theirs := net.Pipe()
	p.wg.Go(func() {
		if err := script.Serve(ours); err != nil {
			p.mu.Lock()
			p.errs = append(p.errs, err)
			p.mu.Unlock()
		}
	})
	return theirs, nil
}

// Wait waits for all connections to end and returns what did not come true,
// scripts that were never played too.
func (p *Peer) Wait() error {
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := len(p.Scripts) - p.next; k > 0 {
		p.errs = append(p.errs, fmt.Errorf("smtptest: %d scripts were not played", k))
	}
	return errors.Join(p.errs...)
}
