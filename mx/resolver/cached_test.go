package resolver_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/internal/dnserr"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/resolver"
)

var _ dkim.Cached = (*resolver.Resolver)(nil)

func TestCachedTXT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mxtest.NewDNS(mxtest.Zone{"a.test": {`10 TXT "x" "y"`}})
		r := &resolver.Resolver{Servers: []string{"127.0.0.1:53"}, DialContext: d.DialContext, Attempts: 1}
		if txt, known, err := r.CachedTXT("a.test."); known || txt != nil || err != nil {
			t.Errorf("%q, %v, %v before it was asked for", txt, known, err)
		}
		r.LookupTXT(t.Context(), "a.test.")
		r.LookupTXT(t.Context(), "none.test.")
		asked := len(d.Questions())
		txt, known, err := r.CachedTXT("A.test")
		if !known || err != nil || len(txt) != 1 || txt[0] != "xy" {
			t.Errorf("%q, %v, %v", txt, known, err)
		}
		txt[0] = "changed"
		if txt, _, _ := r.CachedTXT("a.test"); txt[0] != "xy" {
			t.Error("the cache can be changed")
		}
		if txt, known, err := r.CachedTXT("none.test."); !known || txt != nil || !dnserr.NotFound(err) {
			t.Errorf("%q, %v, %v", txt, known, err)
		}
		if _, known, err := r.CachedTXT("a..test"); known || err != nil {
			t.Errorf("%v, %v", known, err)
		}
		time.Sleep(11 * time.Second)
		if _, known, _ := r.CachedTXT("a.test"); known {
			t.Error("it is known too long")
		}
		if len(d.Questions()) != asked {
			t.Error("a server was asked")
		}
	})
}
