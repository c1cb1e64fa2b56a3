package mime

import (
	"testing"

	"github.com/emersion/go-message"
)

func TestGoMessage(t *testing.T) {
	const block = "Received: a\r\n\tby b\r\nSUBJECT:  =?utf-8?q?=C3=A9?= \r\nX-a: 1\r\nx-A: 2\r\n"
	h := ParseHeader([]byte(block))
	m := h.GoMessage()
	if got := m.Get("subject"); got != "=?utf-8?q?=C3=A9?=" {
		t.Errorf("Subject %q", got)
	}
	if got, err := m.Text("Subject"); err != nil || got != "é" {
		t.Errorf("Text %q %v", got, err)
	}
	if got := m.Values("X-A"); len(got) != 2 || got[0] != "1" || got[1] != "2" {
		t.Errorf("order: %q", got)
	}
	back, err := FromGoMessage(m)
	if err != nil || string(back.Bytes()) != block {
		t.Errorf("%v %q", err, back.Bytes())
	}

	// A line that is no field does not survive, and panics nobody.
	odd := ParseHeader([]byte("A: 1\r\nno colon here\r\nB: 2\r\n"))
	m = odd.GoMessage()
	if m.Len() != 2 {
		t.Errorf("%d fields", m.Len())
	}
	var made message.Header
	made.SetText("Subject", "Grüße")
	h, err = FromGoMessage(made)
	if err != nil || h.Text("Subject") != "Grüße" {
		t.Errorf("%v %q", err, h.Text("Subject"))
	}
}
