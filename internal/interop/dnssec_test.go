package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/resolver"
)

const typeTLSA, typeMX, typeA, typeTXT = 52, 15, 1, 16

// validator is a running unbound over zones of the test's own, which it
// validates: those that are signed have their key as a trust anchor. port 0 is
// a free one.
func validator(t *testing.T, port uint16, zones map[string]string, tamper map[string]*strings.Replacer) string {
	t.Helper()
	need(t, "unbound", "dnssec-keygen", "dnssec-signzone")
	dir := t.TempDir()
	if port == 0 {
		l, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port = netip.MustParseAddrPort(l.LocalAddr().String()).Port()
		l.Close()
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, `server:
	directory: %q
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	interface: 127.0.0.1@%d
	do-ip6: no
	do-daemonize: no
	module-config: "validator iterator"
	ede: yes
	do-not-query-localhost: no
	local-zone: "test." nodefault
	num-threads: 1
	msg-cache-size: 1m
	rrset-cache-size: 1m
`, dir, port)
	run := func(name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	for name, records := range zones {
		file := filepath.Join(dir, name+".zone")
		text := fmt.Sprintf("$ORIGIN %s.\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 300\n@ NS ns\nns A 127.0.0.1\n%s\n", name, records)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, signed := tamper[name]; signed {
			key := strings.TrimSpace(run("dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", "-f", "KSK", name))
			run("dnssec-signzone", "-q", "-S", "-z", "-x", "-o", name, "-f", file+".signed", file)
			file += ".signed"
			fmt.Fprintf(&conf, "\ttrust-anchor-file: %q\n", filepath.Join(dir, lastField(key)+".key"))
			if r != nil {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				changed := r.Replace(string(b))
				if changed == string(b) {
					t.Fatalf("nothing to forge in %s", name)
				}
				if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		zones[name] = file
	}
	for name, file := range zones {
		fmt.Fprintf(&conf, "auth-zone:\n\tname: %q\n\tzonefile: %q\n\tfor-downstream: no\n\tfor-upstream: yes\n\tfallback-enabled: no\n", name, file)
	}
	confFile := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(confFile, []byte(conf.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &lockedBuffer{}
	cmd := exec.Command("unbound", "-d", "-p", "-c", confFile)
	cmd.Stderr, cmd.Stdout = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("unbound: %s", log)
		}
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	r := &resolver.Resolver{Servers: []string{addr}, Timeout: 200 * time.Millisecond, Attempts: 1, CacheSize: -1}
	for end := time.Now().Add(20 * time.Second); ; {
		_, err := r.Query(context.Background(), "version.bind.", typeTXT)
		if err == nil || !errors.Is(err, resolver.ErrTimeout) && !strings.Contains(err.Error(), "refused") {
			return addr
		}
		if time.Now().After(end) {
			t.Fatalf("unbound does not answer: %v\n%s", err, log)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func lastField(s string) string {
	f := strings.Fields(s)
	return f[len(f)-1]
}

// TestDNSSEC: what a validating resolver says of answers that are proven,
// forged and unsigned is what Query says.
func TestDNSSEC(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	addr := validator(t, 0, map[string]string{
		"secure.test": "@ MX 10 mx\nmx A 192.0.2.1\n_25._tcp.mx TLSA 3 1 1 " + digest + "\nalias CNAME mx\nout CNAME mx.plain.test.",
		"forged.test": "@ MX 10 mx\nmx A 192.0.2.66\n_25._tcp.mx TLSA 3 1 1 " + digest,
		"plain.test":  "@ MX 10 mx\nmx A 192.0.2.2\n_25._tcp.mx TLSA 3 1 1 " + digest,
	}, map[string]*strings.Replacer{"secure.test": nil, "forged.test": strings.NewReplacer("192.0.2.66", "192.0.2.67")})
	r := &resolver.Resolver{Servers: []string{addr}}
	for _, tt := range []struct {
		name   string
		qtype  uint16
		secure bool
		err    error
		at     string
	}{
		{"secure.test", typeMX, true, nil, "secure.test."},
		{"mx.secure.test", typeA, true, nil, "mx.secure.test."},
		{"_25._tcp.mx.secure.test", typeTLSA, true, nil, "_25._tcp.mx.secure.test."},
		{"alias.secure.test", typeA, true, nil, "mx.secure.test."},
		{"out.secure.test", typeA, false, nil, "mx.plain.test."},
		{"none.secure.test", typeA, false, resolver.ErrNXDomain, ""},
		{"mx.secure.test", typeTXT, false, resolver.ErrNoData, ""},
		{"plain.test", typeMX, false, nil, "plain.test."},
		{"_25._tcp.mx.plain.test", typeTLSA, false, nil, "_25._tcp.mx.plain.test."},
		{"mx.forged.test", typeA, false, resolver.ErrBogus, ""},
		{"forged.test", typeMX, true, nil, "forged.test."},
	} {
		a, err := r.Query(t.Context(), tt.name, tt.qtype)
		if !errors.Is(err, tt.err) || err == nil && (a.Secure != tt.secure || a.Name != tt.at) {
			t.Errorf("%s %d: %+v, %v", tt.name, tt.qtype, a, err)
		}
	}
	a, err := r.Query(t.Context(), "_25._tcp.mx.secure.test", typeTLSA)
	if err != nil || len(a.TLSA) != 1 || !strings.EqualFold(a.TLSA[0].String(), "3 1 1 "+digest) {
		t.Errorf("%+v %v", a, err)
	}
	route, err := mx.Lookup(t.Context(), r, "secure.test")
	if err != nil || !route.Secure || route.Hosts[0].Name != "mx.secure.test" {
		t.Errorf("%+v %v", route, err)
	}
	if route, err := mx.Lookup(t.Context(), r, "plain.test"); err != nil || route.Secure {
		t.Errorf("%+v %v", route, err)
	}
}
