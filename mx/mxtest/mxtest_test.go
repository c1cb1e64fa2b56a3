package mxtest_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/postrider/postrider/mx/mxtest"
)

// A *net.Resolver, and so any Go program, can ask the real server.
func TestNetResolver(t *testing.T) {
	d := mxtest.NewDNS(mxtest.Zone{
		"example.test":    {"MX 10 mx.example.test", "TXT v=spf1 -all"},
		"mx.example.test": {"A 127.0.0.1"},
		"broken.test":     {"SERVFAIL"},
	})
	addr, err := d.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if mxs, err := r.LookupMX(ctx, "example.test."); err != nil || len(mxs) != 1 || mxs[0].Host != "mx.example.test." {
		t.Errorf("%v %v", mxs, err)
	}
	if txt, err := r.LookupTXT(ctx, "example.test."); err != nil || len(txt) != 1 {
		t.Errorf("%v %v", txt, err)
	}
	var de *net.DNSError
	if _, err := r.LookupMX(ctx, "none.test."); !errors.As(err, &de) || !de.IsNotFound {
		t.Errorf("%v", err)
	}
	// The zone changes under the server.
	d.Set("none.test", "MX 1 mx.example.test")
	if mxs, err := r.LookupMX(ctx, "none.test."); err != nil || len(mxs) != 1 {
		t.Errorf("%v %v", mxs, err)
	}
	d.Set("none.test")
	if _, err := r.LookupMX(ctx, "none.test."); !errors.As(err, &de) || !de.IsNotFound {
		t.Errorf("%v", err)
	}
	for _, q := range d.Questions() {
		if q.Network != "udp" && q.Network != "tcp" || q.Name == "" || q.Type == "" {
			t.Errorf("%+v", q)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.LookupMX(ctx, "example.test"); err != nil {
		t.Errorf("in memory after Close: %v", err)
	}
}

func TestMalformedZone(t *testing.T) {
	for _, record := range []string{"MX ten mx.test", "A 1.2.3", "NOPE x", "SERVFAIL NOPE", "60", ""} {
		d := mxtest.NewDNS(mxtest.Zone{"a.test": {record}, "b.test": {"A 127.0.0.1"}})
		if d.Err() == nil {
			t.Errorf("%q: no error", record)
			continue
		}
		if _, err := d.LookupNetIP(t.Context(), "ip", "b.test"); err == nil {
			t.Errorf("%q: an answer", record)
		}
		if _, err := d.Listen(""); err == nil {
			t.Errorf("%q: listening", record)
		}
	}
}
