package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const smtpEnvelope = "MAIL FROM:<sender@example.test>\r\nRCPT TO:<rcpt@example.test>\r\nDATA\r\n"

// smtpText is a message of about size octets with its final dot.
func smtpText(size int) []byte {
	var b bytes.Buffer
	b.WriteString("From: sender@example.test\r\nTo: rcpt@example.test\r\nSubject: bench\r\n\r\n")
	line := strings.Repeat("0123456789abcdef", 4) + "\r\n"
	for b.Len() < size {
		b.WriteString(line)
	}
	b.WriteString(".\r\n")
	return b.Bytes()
}

// load is a client that costs as little as possible.
type load struct {
	c net.Conn
	r *bufio.Reader
}

// newLoad reads the banner and says EHLO.
func newLoad(c net.Conn) (*load, error) { return newLoadAs(c, "EHLO") }

// newLoadAs is newLoad with LMTP's LHLO, or EHLO.
func newLoadAs(c net.Conn, hello string) (*load, error) {
	l := &load{c, bufio.NewReaderSize(c, 4<<10)}
	if err := l.reply('2'); err != nil {
		return nil, err
	}
	return l, l.command(hello+" bench.test\r\n", '2')
}

func (l *load) reply(class byte) error {
	for {
		line, err := l.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) < 4 || line[0] != class {
			return fmt.Errorf("reply %q", line)
		}
		if line[3] != '-' {
			return nil
		}
	}
}

func (l *load) command(s string, class byte) error {
	if _, err := l.c.Write([]byte(s)); err != nil {
		return err
	}
	return l.reply(class)
}

var envelopeReplies = []byte("223") // classes

func (l *load) replies(classes []byte) error {
	for _, class := range classes {
		if err := l.reply(class); err != nil {
			return err
		}
	}
	return nil
}

// throughput sends messages in some sessions for a while and returns how
// many a second. Pipelined, the next envelope follows the dot at once.
func throughput(addr string, sessions int, pipelined bool, size int, during time.Duration) (float64, int64, error) {
	text := smtpText(size)
	lines := strings.SplitAfter(smtpEnvelope, "\n")
	both := append(bytes.Clone(text), smtpEnvelope...)
	var sent atomic.Int64
	var stop atomic.Bool
	errs := make(chan error, sessions)
	ready := make(chan struct{})
	var wg, up sync.WaitGroup
	up.Add(sessions)
	for range sessions {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				up.Done()
				errs <- err
				return
			}
			defer c.Close()
			l, err := newLoad(c)
			up.Done()
			if err != nil {
				errs <- err
				return
			}
			<-ready
			if pipelined {
				err = l.pipeline(both, &sent, &stop)
			} else {
				err = l.oneByOne(lines, text, &sent, &stop)
			}
			if err != nil {
				errs <- err
			}
		})
	}
	up.Wait()
	began := time.Now()
	close(ready)
	time.Sleep(during)
	// Of large messages on a busy machine there may be few, or none yet.
	for sent.Load() < int64(sessions) && time.Since(began) < 15*during {
		time.Sleep(during / 50)
	}
	n, took := sent.Load(), time.Since(began)
	stop.Store(true)
	wg.Wait()
	select {
	case err := <-errs:
		return 0, 0, err
	default:
	}
	if n == 0 {
		return 0, 0, errors.New("no message in the time")
	}
	return float64(n) / took.Seconds(), sent.Load(), nil
}

func (l *load) pipeline(both []byte, sent *atomic.Int64, stop *atomic.Bool) error {
	if _, err := l.c.Write([]byte(smtpEnvelope)); err != nil {
		return err
	}
	if err := l.replies(envelopeReplies); err != nil {
		return err
	}
	for !stop.Load() {
		if _, err := l.c.Write(both); err != nil {
			return err
		}
		if err := l.reply('2'); err != nil {
			return err
		}
		sent.Add(1)
		if err := l.replies(envelopeReplies); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) oneByOne(lines []string, text []byte, sent *atomic.Int64, stop *atomic.Bool) error {
	commands := make([][]byte, len(envelopeReplies))
	for i := range commands {
		commands[i] = []byte(lines[i])
	}
	for !stop.Load() {
		for i, cmd := range commands {
			if _, err := l.c.Write(cmd); err != nil {
				return err
			}
			if err := l.reply(envelopeReplies[i]); err != nil {
				return err
			}
		}
		if _, err := l.c.Write(text); err != nil {
			return err
		}
		if err := l.reply('2'); err != nil {
			return err
		}
		sent.Add(1)
	}
	return nil
}
