package interop

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/rand"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/mx/mxtest"
)

// TestARCRspamd lets rspamd validate what we seal, through a real DNS, and
// validates what it seals.
func TestARCRspamd(t *testing.T) {
	need(t, "rspamd")
	dir, err := os.MkdirTemp("", "rspamd-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o777)
	key, err := rsa.GenerateKey(rand.New(rand.NewSource(2)), 2048)
	if err != nil {
		t.Fatal(err)
	}
	record, err := dkim.NewRecord(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, "key.pem")
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	os.Chmod(keyFile, 0o644)
	zone := mxtest.NewDNS(mxtest.Zone{"sel._domainkey.example.test": {"TXT " + record.String()}})
	server, err := zone.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer zone.Close()
	address := freePort(t)
	write(t, filepath.Join(dir, "rspamd.conf"), `
options { pidfile = "`+dir+`/pid"; filters = "dkim"; dns { nameserver = ["`+server+`"]; timeout = 5s; retransmits = 3; } }
logging { type = "console"; level = "warning"; }
lua = "/usr/share/rspamd/rules/rspamd.lua";
modules { path = "/usr/share/rspamd/plugins/arc.lua"; }
dkim { check_local = true; check_authed = true; }
arc {
  check_local = true; check_authed = true; sign_local = true; sign_inbound = true; allow_hdrfrom_mismatch = true; allow_env_mismatch = true;
  use_domain = "header"; domain { example.test { path = "`+keyFile+`"; selector = "sel"; } }
}
actions { reject = 15000; }
worker "normal" { bind_socket = "`+address+`"; count = 1; }
`)
	os.Chmod(filepath.Join(dir, "rspamd.conf"), 0o644)
	daemon(t, "rspamd", "-f", "-i", "--var", "DBDIR="+dir, "-c", filepath.Join(dir, "rspamd.conf"))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if r, err := http.Get("http://" + address + "/ping"); err == nil {
			r.Body.Close()
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	type answer struct {
		Symbols map[string]struct{ Options []string }
		Milter  struct {
			Add map[string]struct{ Value string } `json:"add_headers"`
		}
	}
	ask := func(msg string) (a answer) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+address+"/checkv2", strings.NewReader(msg))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("IP", "127.0.0.1")
		req.Header.Set("From", "alice@example.test")
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err == nil {
			err = json.NewDecoder(bytes.NewReader(b)).Decode(&a)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		return a
	}
	seal := func(cv auth.Result, msg string) string {
		t.Helper()
		s, err := arc.NewSealer(arc.SealOptions{Domain: "example.test", Selector: "sel", Key: key})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(s, msg)
		set, err := s.Seal(auth.AuthenticationResults{AuthServID: arcHost, Results: []auth.MethodResult{{Method: "arc", Result: cv}}})
		if err != nil {
			t.Fatal(err)
		}
		return set + msg
	}
	validated, theirs := 0, 0
	// sealed is msg with the set that rspamd gave it.
	sealed := func(name, msg string, a answer, sets int) string {
		t.Helper()
		out := ""
		for _, field := range []string{arc.SealField, arc.SignatureField, arc.ResultsField} {
			out += field + ": " + a.Milter.Add[field].Value + "\r\n"
		}
		out += msg
		p := (&arc.Verifier{Resolver: zone}).Begin(t.Context())
		defer p.Close()
		io.WriteString(p, out)
		c, err := p.Result()
		if err != nil || c.Result != auth.Pass || len(c.Sets) != sets || c.OldestPass != 0 {
			t.Errorf("what rspamd sealed does not validate: %s: %s, %v, %d sets", name, c.Result, c.Err, len(c.Sets))
		} else {
			theirs++
		}
		return out
	}
	for name, msg := range dkimMessages {
		if why := map[string]string{
			"several":     "it breaks signatures on purpose where a field is there twice that should not be",
			"blank lines": "a body of blank lines is one empty line to it, not an empty body as RFC 6376 §3.4.4 has it",
		}[name]; why != "" {
			if a := ask(seal(auth.None, msg)); a.Symbols["ARC_REJECT"].Options == nil {
				t.Errorf("%s validates, although %s", name, why)
			}
			continue
		}
		one := seal(auth.None, msg)
		for i := range 2 {
			a := ask(one)
			if _, ok := a.Symbols["ARC_ALLOW"]; !ok {
				t.Errorf("%s, %d: %v", name, i, a.Symbols)
				break
			}
			validated++
			// rspamd seals over ours, and we over that.
			if i == 0 {
				one = seal(auth.Pass, sealed(name, one, a, 2))
			}
		}
		if a := ask(strings.Replace(one, "alice@", "malice@", 1)); a.Symbols["ARC_REJECT"].Options == nil {
			t.Errorf("%s, changed: %v", name, a.Symbols)
		}
		sealed(name, msg, ask(msg), 1)
	}
	t.Logf("conformance: rspamd: %d messages of ours validated, %d of theirs", validated, theirs)
}
