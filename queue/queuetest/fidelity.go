package queuetest

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// fill sets every exported field below v to something that is not zero, so
// that a field which a storage forgets is seen.
func fill(v reflect.Value, n *int) {
	*n++
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2026, 11, 24, 10, 0, 0, *n, time.UTC)
		return
	case *netip.AddrPort:
		*x = netip.MustParseAddrPort("192.0.2.1:25")
		return
	case *smtp.BodyType:
		*x = smtp.Body8Bit
		return
	case *error:
		*x = &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 1}, Text: "Later", Scope: smtp.ScopeHost, Unsure: true, Err: errors.New("cause")}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"order": "17"}))
	case reflect.String:
		v.SetString(strings.Repeat("x", 1+*n%9))
	case reflect.Bool:
		v.SetBool(true)
	default:
		v.Set(reflect.ValueOf(1 + *n%100).Convert(v.Type()))
	}
}

// sameErrors makes errors comparable: a storage keeps of one that is no
// *smtp.Error what it says.
func sameErrors(v reflect.Value) {
	switch v.Kind() {
	case reflect.Interface:
		if err, ok := v.Interface().(error); ok && err != nil {
			var e *smtp.Error
			if errors.As(err, &e) {
				flat := *e
				if flat.Err != nil {
					flat.Text += ": " + flat.Err.Error()
					flat.Err = nil
				}
				v.Set(reflect.ValueOf(error(&flat)))
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				sameErrors(v.Field(i))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() && v.Type() != reflect.TypeFor[*queue.Message]() {
			sameErrors(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			sameErrors(v.Index(i))
		}
	}
}

// fidelity: each field of an entry comes back as it was, by Put and by Finish.
func (s *suite) fidelity() {
	sub := s.submission(lane("a.test"))
	n := 0
	e := sub.Entries[0]
	id := e.ID
	fill(reflect.ValueOf(e).Elem(), &n)
	sub.Message = e.Message
	sub.Message.ID, sub.Message.Key = queue.NewID(), ""
	e.ID, e.Held, e.Suspended, e.Owner = id, false, false, ""
	e.Due, e.Alarm = s.clockNow(), s.clockNow().Add(time.Hour)
	s.put(sub)
	want := *e
	o := s.owner()
	check := func(what string, l *queue.Lease) {
		s.Helper()
		got, want := *l.Entry, want
		got.Owner = ""
		got.Last, want.Last = append([]smtp.Result(nil), got.Last...), append([]smtp.Result(nil), want.Last...)
		for i := range got.Last {
			for _, r := range []*smtp.Result{&got.Last[i], &want.Last[i]} {
				if r.Hop != nil {
					hop := *r.Hop
					r.Hop = &hop
				}
			}
		}
		sameErrors(reflect.ValueOf(&got).Elem())
		sameErrors(reflect.ValueOf(&want).Elem())
		g, w := reflect.ValueOf(got), reflect.ValueOf(want)
		for i := range g.NumField() {
			if !reflect.DeepEqual(g.Field(i).Interface(), w.Field(i).Interface()) && !sameTimes(g.Field(i), w.Field(i)) {
				s.Errorf("%s: %s is\n%+v, want\n%+v", what, g.Type().Field(i).Name, g.Field(i).Interface(), w.Field(i).Interface())
			}
		}
	}
	l := s.one(o, e.Lane)
	check("Put", l)
	out := &queue.Outcome{Lease: l, Done: []int{0}, Attempt: 7, Due: s.clockNow(), Alarm: s.clockNow().Add(time.Minute)}
	out.Last = make([]smtp.Result, 1)
	fill(reflect.ValueOf(&out.Last[0]).Elem(), &n)
	s.must(s.storage.Finish(ctx, out))
	want.Envelope.To = want.Envelope.To[1:]
	want.Last, want.Attempt, want.Due, want.Alarm = out.Last, 7, out.Due, out.Alarm
	l = s.one(o, e.Lane)
	check("Finish", l)
	ls, ok := s.storage.(queue.Lister)
	out = &queue.Outcome{Lease: l, Last: want.Last, Attempt: 7, Due: want.Due, Alarm: want.Alarm, Held: true, Suspended: true}
	s.must(s.storage.Finish(ctx, out))
	if ok {
		if e := s.list(ls, queue.Filter{})[id]; e == nil || !e.Held || !e.Suspended {
			s.Errorf("an entry that a rule holds is listed as %+v", e)
		}
	}
}

func sameTimes(a, b reflect.Value) bool {
	x, ok := a.Interface().(time.Time)
	y, _ := b.Interface().(time.Time)
	return ok && x.Equal(y)
}
