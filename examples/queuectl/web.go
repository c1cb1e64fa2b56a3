package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/postrider/postrider/examples/internal/control"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

//go:embed page.html
var pageText string

// refresh is how often the page loads itself anew, in seconds.
const refresh = 5

// serve shows the page until ctx is done.
func serve(ctx context.Context, addr string, c *control.Client, out io.Writer) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: page(c), ReadHeaderTimeout: time.Minute}
	fmt.Fprintf(out, "http://%s/\n", l.Addr())
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err = srv.Serve(l); errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// page shows the queue and changes nothing.
func page(c *control.Client) http.Handler {
	t := template.Must(template.New("page").Funcs(template.FuncMap{"span": span, "size": size, "next": next, "rcpts": rcpts}).Parse(pageText))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if !local(r.Host) {
			http.Error(w, "ask for this page by its address", http.StatusMisdirectedRequest)
			return
		}
		var f queue.Filter
		if d := r.FormValue("dest"); d != "" {
			dest, err := smtp.ParseDomain(d)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			f.Dest = dest
		}
		s, err := look(r.Context(), c, f, 100)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		var b bytes.Buffer
		if err := t.Execute(&b, struct {
			*state
			Refresh int
			Dest    string
		}{s, refresh, f.Dest}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		b.WriteTo(w)
	})
	return mux
}

// local takes addresses and localhost only: a stranger's web page could have a
// name of its own lead here.
func local(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost"
}
