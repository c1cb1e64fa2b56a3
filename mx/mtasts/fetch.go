package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
)

// newHTTP returns given, or a client of our own, that follows no redirect.
func newHTTP(given *http.Client) *http.Client {
	c := &http.Client{Timeout: fetchTimeout}
	if given != nil {
		*c = *given
	} else {
		// No proxy of the environment, no cookies, no connection kept: a
		// policy is fetched once in a long while.
		c.Transport = &http.Transport{
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    fetchTimeout / 2,
			ResponseHeaderTimeout:  fetchTimeout / 2,
			MaxResponseHeaderBytes: maxPolicy,
			DisableKeepAlives:      true,
			ForceAttemptHTTP2:      true,
		}
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// fetch gets the policy of a domain from its policy host (RFC 8461 §3.3).
func (c *Client) fetch(ctx context.Context, domain string) (*Policy, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://mta-sts."+domain+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return nil, fetchError(domain, FetchFailed, "%w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var ce *tls.CertificateVerificationError
		var he x509.HostnameError
		if errors.As(err, &ce) || errors.As(err, &he) {
			return nil, fetchError(domain, WebPKIInvalid, "%w", err)
		}
		return nil, fetchError(domain, FetchFailed, "%w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fetchError(domain, FetchFailed, "the policy host answers %s", res.Status)
	}
	if t, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); t != "text/plain" {
		return nil, fetchError(domain, FetchFailed, "%w: %.100q", errType, res.Header.Get("Content-Type"))
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxPolicy+1))
	if err != nil {
		return nil, fetchError(domain, FetchFailed, "%w", err)
	}
	p, err := ParsePolicy(string(text))
	if err != nil {
		return nil, fetchError(domain, Invalid, "%w", err)
	}
	return p, nil
}

var errType = errors.New("not text/plain")

func fetchError(domain string, r Reason, format string, args ...any) error {
	return &Error{domain, r, fmt.Errorf(format, args...)}
}
