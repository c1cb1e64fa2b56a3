package milter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/spool"
	"github.com/postrider/postrider/smtp"
)

// message is one message in the filter's hands.
type message struct {
	s      *session
	spool  spool.Spool
	fields []field
	sep    []byte
	body   int64 // where it begins in spool

	edited   bool         // fields are not those of spool
	replaced *spool.Spool // the filter's body
	held     *string      // why it is to be in quarantine
}

const maxAdded = 1000 // recipients and fields that one filter may add to a message

func (m *message) close() {
	m.spool.Close()
	if m.replaced != nil {
		m.replaced.Close()
	}
}

// reader is the message as the backend gets it.
func (m *message) reader() io.Reader {
	var parts []io.Reader
	begin := int64(0)
	if m.edited {
		var head bytes.Buffer
		for _, f := range m.fields {
			head.Write(f.raw)
			if !bytes.HasSuffix(f.raw, []byte("\n")) {
				head.WriteString("\r\n")
			}
		}
		head.WriteString("\r\n")
		parts, begin = append(parts, &head), m.body
	}
	switch {
	case m.replaced == nil:
		parts = append(parts, io.NewSectionReader(&m.spool, begin, m.spool.Size()-begin))
	case m.edited:
		parts = append(parts, io.NewSectionReader(m.replaced, 0, m.replaced.Size()))
	default:
		parts = append(parts, io.NewSectionReader(&m.spool, 0, m.body))
		if len(m.sep) == 0 {
			parts = append(parts, strings.NewReader("\r\n"))
		}
		parts = append(parts, io.NewSectionReader(m.replaced, 0, m.replaced.Size()))
	}
	return io.MultiReader(parts...)
}

// filter reads the message and shows it to the filter. done says that there
// is nothing left to do: it is discarded. An error is the reply.
func (m *message) filter(ctx context.Context, r io.Reader) (done bool, err error) {
	s := m.s
	if s.verdict.kind == repContinue {
		v, err := s.step(ctx, noData, nrData, cmdData, []string{"i", s.id})
		if err != nil {
			err = s.fail(err)
		} else {
			err = s.apply(v)
		}
		if err != nil {
			return false, err
		}
	}
	m.spool.Dir = s.m.SpoolDir
	if _, err := io.Copy(&m.spool, r); err != nil {
		return false, err
	}
	if s.verdict.kind == repContinue {
		if err := m.show(ctx); err != nil {
			return false, err
		}
	}
	if s.verdict.kind == repDiscard {
		s.m.log().Info("milter: message discarded", "filter", s.m.Address, "remote", s.c.Remote(), "from", s.from.String(), "id", s.id)
		return true, nil
	}
	if m.held != nil {
		if err := s.m.Quarantine(ctx, s.c, *m.held); err != nil {
			return false, err
		}
	}
	if s.changed {
		if !slices.ContainsFunc(s.rcpts, func(r rcpt) bool { return !r.removed }) {
			return true, nil // the filter took them all
		}
		if err := s.replay(ctx); err != nil {
			return false, err
		}
	}
	return false, nil
}

// show sends a whole message and obeys the answer. An error is the reply.
func (m *message) show(ctx context.Context) error {
	s := m.s
	br := bufio.NewReader(io.NewSectionReader(&m.spool, 0, m.spool.Size()))
	var err error
	if m.fields, m.body, m.sep, err = readHeader(br); err != nil {
		if errors.Is(err, errHeader) {
			return smtp.Errorf(552, smtp.EnhancedCode{5, 3, 4}, "Header exceeds the maximum size")
		}
		return err
	}
	from, rcpts, changed := s.from, slices.Clone(s.rcpts), s.changed
	v, err := m.send(ctx)
	if err == nil && v.kind == repContinue {
		v, err = m.finish(ctx)
	}
	if err != nil {
		// What the filter wanted changed is not to be done by halves.
		s.from, s.rcpts, s.changed = from, rcpts, changed
		m.edited, m.held = false, nil
		if m.replaced != nil {
			m.replaced.Close()
			m.replaced = nil
		}
		return s.fail(err)
	}
	return s.apply(v)
}

// send sends header and body.
func (m *message) send(ctx context.Context) (verdict, error) {
	s, steps := m.s, m.s.w.steps
	if steps&noHeaders == 0 {
		for i := range m.fields {
			f := &m.fields[i]
			if f.name == "" {
				continue
			}
			v, err := s.step(ctx, noHeaders, nrHeader, cmdHeader, nil,
				appendString(appendString(nil, f.name), string(f.value(steps&leadingSpace != 0))))
			if err != nil || v.kind != repContinue {
				return v, err
			}
		}
	}
	if v, err := s.step(ctx, noHeaderEnd, nrHeaderEnd, cmdHeaderEnd, []string{"i", s.id}); err != nil || v.kind != repContinue {
		return v, err
	}
	if steps&noBody != 0 {
		return verdict{kind: repContinue}, nil
	}
	buf := make([]byte, min(chunkBytes, m.spool.Size()-m.body))
	for off := m.body; off < m.spool.Size(); {
		n, err := m.spool.ReadAt(buf[:min(int64(len(buf)), m.spool.Size()-off)], off)
		if n == 0 {
			return verdict{}, noEOF(err)
		}
		off += int64(n)
		v, err := s.step(ctx, noBody, nrBody, cmdBody, nil, buf[:n])
		switch {
		case err != nil:
			return v, err
		case v.kind == repSkip:
			return verdict{kind: repContinue}, nil
		case v.kind != repContinue:
			return v, nil
		}
	}
	return verdict{kind: repContinue}, nil
}

// finish sends the end of the message and obeys until the last word.
func (m *message) finish(ctx context.Context) (verdict, error) {
	s := m.s
	defer s.w.guard(ctx)()
	timeout := orDefault(s.m.EndTimeout, 5*time.Minute)
	s.w.deadline(timeout)
	if ctx.Err() != nil {
		return verdict{}, ctx.Err()
	}
	if err := s.w.macros(cmdEnd, "i", s.id); err != nil {
		return verdict{}, err
	}
	if err := s.w.send(cmdEnd); err != nil {
		return verdict{}, err
	}
	added := 0
	for {
		cmd, data, err := s.w.read()
		if err != nil {
			return verdict{}, err
		}
		switch cmd {
		case repProgress:
			s.w.deadline(timeout)
			if ctx.Err() != nil {
				return verdict{}, ctx.Err()
			}
			continue
		case modAddHeader, modInsHeader, modAddRcpt, modAddRcptArgs, modDelRcpt, modFrom:
			if added++; added > maxAdded {
				return verdict{}, fmt.Errorf("%w: over %d changes", ErrProtocol, maxAdded)
			}
		}
		change, known := changes[cmd]
		if !known {
			s.begun = false // the filter is ready for the next message
			v, err := judge(cmd, data)
			if v.kind == repSkip {
				err = fmt.Errorf("%w: skip at the end", ErrProtocol)
			}
			return v, err
		}
		if s.w.actions&change.action == 0 {
			return verdict{}, fmt.Errorf("%w: %q was not negotiated", ErrProtocol, cmd)
		}
		if err := change.do(m, cmd, data); err != nil {
			return verdict{}, err
		}
	}
}

// changes are what a filter may ask for at the end of a message.
var changes = map[byte]struct {
	action uint32
	do     func(m *message, cmd byte, data []byte) error
}{
	modAddHeader:   {actAddHeaders, (*message).addHeader},
	modInsHeader:   {actAddHeaders, (*message).insertHeader},
	modChgHeader:   {actChgHeaders, (*message).changeHeader},
	modAddRcpt:     {actAddRcpt, (*message).addRcpt},
	modAddRcptArgs: {actAddRcptArgs, (*message).addRcpt},
	modDelRcpt:     {actDelRcpt, (*message).removeRcpt},
	modFrom:        {actFrom, (*message).changeFrom},
	modBody:        {actBody, (*message).replaceBody},
	modQuarantine:  {actQuarantine, (*message).quarantine},
}

func (m *message) field(data []byte) (name, value string, f field, err error) {
	s, err := stringsOf(data, 1, 2)
	if err != nil {
		return "", "", f, err
	}
	if len(s) == 2 {
		value = s[1]
	}
	f, ok := newField(s[0], value, m.s.w.steps&leadingSpace != 0)
	if !ok {
		return "", "", f, fmt.Errorf("%w: field %q", ErrProtocol, s[0][:min(len(s[0]), 80)])
	}
	return s[0], value, f, nil
}

// index takes the number in front.
func index(data []byte) (int, []byte, error) {
	if len(data) < 4 {
		return 0, nil, fmt.Errorf("%w: no index", ErrProtocol)
	}
	return int(binary.BigEndian.Uint32(data) & 0x7fffffff), data[4:], nil
}

func (m *message) addHeader(_ byte, data []byte) error {
	_, _, f, err := m.field(data)
	if err != nil {
		return err
	}
	m.fields, m.edited = append(m.fields, f), true
	return nil
}

func (m *message) insertHeader(_ byte, data []byte) error {
	i, data, err := index(data)
	if err != nil {
		return err
	}
	_, _, f, err := m.field(data)
	if err != nil {
		return err
	}
	m.fields, m.edited = slices.Insert(m.fields, min(i, len(m.fields)), f), true
	return nil
}

// changeHeader replaces the n-th field of a name, removes it when the value
// is empty, and adds one when there is none.
func (m *message) changeHeader(_ byte, data []byte) error {
	n, data, err := index(data)
	if err != nil {
		return err
	}
	name, value, f, err := m.field(data)
	if err != nil {
		return err
	}
	i := find(m.fields, name, n)
	switch {
	case i < 0 && value == "":
		return nil
	case i < 0:
		if len(m.fields) >= maxHeader/16 {
			return fmt.Errorf("%w: too many fields", ErrProtocol)
		}
		m.fields = append(m.fields, f)
	case value == "":
		m.fields = slices.Delete(m.fields, i, i+1)
	default:
		m.fields[i] = f
	}
	m.edited = true
	return nil
}

// address reads an address and ignores the parameters behind it.
func address(data []byte) (smtp.Address, error) {
	s, err := stringsOf(data, 1, 2)
	if err != nil {
		return smtp.Address{}, err
	}
	a, err := smtp.ParseAddress(s[0])
	if err != nil {
		return a, fmt.Errorf("%w: %w: %q", ErrProtocol, err, clean(s[0]))
	}
	return a, nil
}

func (m *message) addRcpt(_ byte, data []byte) error {
	a, err := address(data)
	if err != nil || a.IsZero() {
		return errors.Join(err, ErrProtocol)
	}
	if !slices.ContainsFunc(m.s.rcpts, func(r rcpt) bool { return r.addr == a && !r.removed }) {
		m.s.rcpts = append(m.s.rcpts, rcpt{addr: a, added: true})
		m.s.changed = true
	}
	return nil
}

func (m *message) removeRcpt(_ byte, data []byte) error {
	a, err := address(data)
	if err != nil {
		return err
	}
	for i := range m.s.rcpts {
		if r := &m.s.rcpts[i]; r.addr.Domain == a.Domain && strings.EqualFold(r.addr.Local, a.Local) {
			r.removed = true
			m.s.changed = true
		}
	}
	return nil
}

func (m *message) changeFrom(_ byte, data []byte) error {
	a, err := address(data)
	if err != nil {
		return err
	}
	m.s.from, m.s.changed = a, true
	return nil
}

func (m *message) replaceBody(_ byte, data []byte) error {
	if m.replaced == nil {
		m.replaced = &spool.Spool{Dir: m.s.m.SpoolDir}
	}
	limit := m.s.m.MaxBody
	if limit <= 0 {
		limit = 64 << 20
	}
	if m.replaced.Size()+int64(len(data)) > limit {
		return fmt.Errorf("%w: a body over %d octets", ErrProtocol, limit)
	}
	_, err := m.replaced.Write(data)
	return err
}

func (m *message) quarantine(_ byte, data []byte) error {
	s, err := stringsOf(data, 0, 1)
	if err != nil {
		return err
	}
	reason := ""
	if len(s) > 0 {
		reason = clean(s[0])
	}
	m.held = &reason
	return nil
}
