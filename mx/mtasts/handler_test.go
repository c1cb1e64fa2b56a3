package mtasts_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/mx/mxtest"
)

var ours = mtasts.Handler(func(_ context.Context, domain string) *mtasts.Policy {
	if domain != "a.test" {
		return nil
	}
	return &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.a.test"}, MaxAge: time.Hour}
})

func TestHandler(t *testing.T) {
	for _, tt := range []struct {
		method, url string
		status      int
	}{
		{"GET", "https://mta-sts.a.test/.well-known/mta-sts.txt", 200},
		{"GET", "https://MTA-STS.a.test:443/.well-known/mta-sts.txt", 200},
		{"HEAD", "https://mta-sts.a.test/.well-known/mta-sts.txt", 200},
		{"POST", "https://mta-sts.a.test/.well-known/mta-sts.txt", 405},
		{"GET", "https://mta-sts.a.test/", 404},
		{"GET", "https://mta-sts.b.test/.well-known/mta-sts.txt", 404},
		{"GET", "https://a.test/.well-known/mta-sts.txt", 404},
	} {
		w := httptest.NewRecorder()
		ours.ServeHTTP(w, httptest.NewRequest(tt.method, tt.url, nil))
		if w.Code != tt.status {
			t.Errorf("%s %s: %d", tt.method, tt.url, w.Code)
		}
		if tt.status == 200 && tt.method == "GET" {
			p, err := mtasts.ParsePolicy(w.Body.String())
			if err != nil || p.MX[0] != "mx.a.test" || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
				t.Errorf("%v %v", p, err)
			}
		}
	}
}

// The certificate of a policy host must be its own, whatever the policy.
func TestPolicyHost(t *testing.T) {
	srv := httptest.NewUnstartedServer(ours) // for example.com and 127.0.0.1
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	get := func(roots *x509.CertPool, domain string) error {
		dns := mxtest.NewDNS(mxtest.Zone{"_mta-sts." + domain: {"TXT v=STSv1; id=1"}})
		c := &mtasts.Client{Resolver: dns, HTTP: &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
			},
			DisableKeepAlives: true,
		}}}
		_, err := c.Lookup(t.Context(), domain)
		return err
	}
	for _, err := range []error{get(roots, "a.test"), get(x509.NewCertPool(), "a.test")} {
		e, ok := err.(*mtasts.Error)
		if !ok || e.Reason != mtasts.WebPKIInvalid {
			t.Errorf("%v", err)
		}
	}
}

func ExampleHandler() {
	policy := &mtasts.Policy{Mode: mtasts.Testing, MX: []string{"mx.example.org"}, MaxAge: 14 * 24 * time.Hour}
	http.Handle("/.well-known/mta-sts.txt", mtasts.Handler(func(_ context.Context, domain string) *mtasts.Policy {
		if domain == "example.org" {
			return policy
		}
		return nil
	}))
	fmt.Println("_mta-sts.example.org TXT", policy.Record())
	// Output: _mta-sts.example.org TXT v=STSv1; id=d966dad975cd7d88a29f;
}
