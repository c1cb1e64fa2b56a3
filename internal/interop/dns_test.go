package interop

import (
	"testing"

	"github.com/postrider/postrider/mx/mxtest"
)

// nameServer answers for the domains of the tests, and for nothing else.
func nameServer(t *testing.T) string {
	t.Helper()
	d := mxtest.NewDNS(mxtest.Zone{
		"example.test":    {"MX 10 mx.example.test", "TXT v=spf1 ip4:127.0.0.1 -all"},
		"mx.example.test": {"A 127.0.0.1"},
		"elsewhere.test":  {"TXT v=spf1 ip4:127.0.0.1 -all"},
	})
	addr, err := d.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return addr
}
