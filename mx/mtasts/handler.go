package mtasts

import (
	"context"
	"net"
	"net/http"
	"strings"
)

// Handler serves the policies of one's own domains over HTTPS: it returns the
// policy of a domain, nil for one that is not ours. The server's certificate
// must be for "mta-sts." and the domain.
//
//	https.Handle("/.well-known/mta-sts.txt", mtasts.Handler(func(_ context.Context, domain string) *mtasts.Policy { … }))
type Handler func(ctx context.Context, domain string) *Policy

// ServeHTTP implements http.Handler.
func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := strings.ToLower(r.Host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	domain, ok := strings.CutPrefix(strings.TrimSuffix(host, "."), "mta-sts.")
	if !ok || r.URL.Path != "/.well-known/mta-sts.txt" {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	p := h(r.Context(), domain)
	if p == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	p.WriteTo(w)
}
