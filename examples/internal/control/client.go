package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"

	"github.com/postrider/postrider/queue"
)

// Client talks to the socket of a data directory.
type Client struct{ http *http.Client }

// Dial returns a Client, or an error when nobody serves the socket.
func Dial(ctx context.Context, data string) (*Client, error) {
	path := Path(data)
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	c.Close()
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
	}}}, nil
}

// Close gives the connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// List yields what f chooses, in no order.
func (c *Client) List(ctx context.Context, f queue.Filter) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		body, err := c.post(ctx, "list", f)
		if err != nil {
			yield(nil, err)
			return
		}
		defer body.Close()
		d := json.NewDecoder(body)
		for {
			var l line
			err := d.Decode(&l)
			switch {
			case err == io.EOF:
				return
			case err == nil && l.Error != "":
				err = errors.New(l.Error)
			}
			if !yield(l.Entry, err) || err != nil {
				return
			}
		}
	}
}

// Do does one of hold, release, retry, drop, bounce, suspend and resume with
// what f chooses, and returns how many entries changed at once.
func (c *Client) Do(ctx context.Context, verb string, f queue.Filter) (int, error) {
	body, err := c.post(ctx, verb, f)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	var a Changed
	err = json.NewDecoder(body).Decode(&a)
	return a.Changed, err
}

// Suspended returns what was suspended and not resumed.
func (c *Client) Suspended(ctx context.Context) ([]queue.Filter, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://queue/suspended", nil)
	if err != nil {
		return nil, err
	}
	body, err := c.do(req)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var rules []queue.Filter
	err = json.NewDecoder(body).Decode(&rules)
	return rules, err
}

func (c *Client) post(ctx context.Context, path string, f queue.Filter) (io.ReadCloser, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://queue/"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return c.do(req)
}

func (c *Client) do(req *http.Request) (io.ReadCloser, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return resp.Body, nil
}
