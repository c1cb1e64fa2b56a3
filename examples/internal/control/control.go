// Package control opens the queue of a program that runs to its operator: the
// program serves a Unix socket in its data directory, which nobody but its own
// user (and root) can reach, and queuectl connects to it. What is said on it
// is HTTP and JSON:
//
//	POST /list    a queue.Filter; an Entry on each line of the answer
//	POST /hold    a queue.Filter; {"changed": 3}; and so release, retry, drop,
//	              bounce, suspend and resume
//	GET /suspended  what was suspended, queue.Filters
//
// Copy this folder together with queuectl.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/postrider/postrider/queue"
)

// Entry is what an operator sees of a queue.Entry.
type Entry struct {
	ID, Message              queue.ID
	Since, Due               time.Time
	From                     string
	To                       []string
	Dest, Tenant, Campaign   string `json:",omitempty"`
	Priority                 int8   `json:",omitempty"`
	Size                     int64
	Attempt                  int
	Held, Suspended, Sending bool   `json:",omitempty"`
	Last                     string `json:",omitempty"` // what was said at the last attempt
}

func newEntry(e *queue.Entry) *Entry {
	v := &Entry{ID: e.ID, Message: e.Message.ID, Since: e.Since, Due: e.Due, From: e.Envelope.From.String(),
		Dest: e.Lane.Dest, Tenant: e.Lane.Tenant, Campaign: e.Message.Campaign, Priority: e.Lane.Priority,
		Size: e.Message.Size, Attempt: e.Attempt, Held: e.Held, Suspended: e.Suspended, Sending: e.Owner != ""}
	for _, to := range e.Envelope.To {
		v.To = append(v.To, to.Address.String())
	}
	for _, r := range e.Last {
		if r.Reply.Code != 0 {
			v.Last = r.Reply.String()
			break
		} else if r.Err != nil {
			v.Last = r.Err.Error()
			break
		}
	}
	return v
}

// line is one line of a list: an entry, or why there are no more.
type line struct {
	*Entry
	Error string `json:",omitempty"`
}

// Changed is the answer to a change.
type Changed struct {
	Changed int `json:"changed"`
}

// verbs returns what can be done with entries, by name.
func verbs(q *queue.Queue) map[string]func(context.Context, queue.Filter) (int, error) {
	return map[string]func(context.Context, queue.Filter) (int, error){
		"hold":    q.Hold,
		"release": q.Release,
		"retry":   q.RetryNow,
		"drop":    q.Drop,
		"bounce":  func(ctx context.Context, f queue.Filter) (int, error) { return q.Bounce(ctx, f, nil) },
		"suspend": func(ctx context.Context, f queue.Filter) (int, error) { return 0, q.Suspend(ctx, f) },
		"resume":  func(ctx context.Context, f queue.Filter) (int, error) { return 0, q.Resume(ctx, f) },
	}
}

// Handler answers for q. Whoever reaches it may do all of it.
func Handler(q *queue.Queue) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /list", func(w http.ResponseWriter, r *http.Request) {
		f, ok := filter(w, r)
		if !ok {
			return
		}
		w.Header().Set("Content-Type", "application/jsonl")
		out := json.NewEncoder(w)
		for e, err := range q.List(r.Context(), f) {
			l := line{}
			if err != nil {
				l.Error = err.Error()
			} else {
				l.Entry = newEntry(e)
			}
			if out.Encode(l) != nil || err != nil {
				return // nobody reads any more
			}
		}
	})
	for name, do := range verbs(q) {
		mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			f, ok := filter(w, r)
			if !ok {
				return
			}
			n, err := do(r.Context(), f)
			answer(w, Changed{n}, err)
		})
	}
	mux.HandleFunc("GET /suspended", func(w http.ResponseWriter, r *http.Request) {
		rules, err := q.Suspended(r.Context())
		answer(w, rules, err)
	})
	return mux
}

func filter(w http.ResponseWriter, r *http.Request) (f queue.Filter, ok bool) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	d.DisallowUnknownFields() // a condition that is not understood must not be left out
	if err := d.Decode(&f); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return f, false
	}
	return f, true
}

func answer[T any](w http.ResponseWriter, v T, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// Path is where the socket of a data directory is.
func Path(data string) string { return filepath.Join(data, "control", "socket") }

// Server is a socket that is served.
type Server struct {
	http   http.Server
	wg     sync.WaitGroup
	mu     sync.RWMutex // read-locked by each request
	closed bool
}

// Serve opens the socket of data for q, whose storage must be in use by
// nobody else: what lies there from before is removed.
func Serve(data string, q *queue.Queue) (*Server, error) {
	path := Path(data)
	// The folder keeps others out from the first moment on.
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	s := &Server{}
	handler := Handler(q)
	s.http.ReadHeaderTimeout = time.Minute
	s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		if !s.closed {
			handler.ServeHTTP(w, r)
		}
	})
	s.wg.Go(func() { s.http.Serve(l) })
	return s, nil
}

// Close gives what is under way a second, cuts the rest, and returns when
// nobody uses the queue any more.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
	return err
}
