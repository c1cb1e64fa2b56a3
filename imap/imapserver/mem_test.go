package imapserver_test

import (
	"runtime"
	"testing"
)

// BenchmarkIdleSession tells what a session costs that waits in IDLE with a
// mailbox selected: heap and stack, the client's side included.
func BenchmarkIdleSession(b *testing.B) {
	const n = 500
	var before, after runtime.MemStats
	for b.Loop() {
		srv, st := newServer(b)
		srv.MaxConnectionsPerIP = -1
		add(b, st, "INBOX", 0, simple)
		addr := serve(b, srv)
		runtime.GC()
		runtime.ReadMemStats(&before)
		conns := make([]*client, n)
		for i := range conns {
			c := start(b, addr)
			c.ok("SELECT INBOX")
			c.write("i IDLE\r\n")
			c.line()
			c.r = nil
			conns[i] = c
		}
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapInuse-before.HeapInuse)/n, "heap-B/session")
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/n, "stack-B/session")
		srv.Close()
	}
}
