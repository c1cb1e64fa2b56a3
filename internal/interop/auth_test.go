package interop

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// verifyPy verifies a message with python3-dkim: argv is the message, the name
// and the text of the key record.
const verifyPy = `
import sys, dkim
msg = open(sys.argv[1], 'rb').read()
name, record = sys.argv[2], sys.argv[3]
def txt(n, timeout=5):
    return record.encode() if n.decode().rstrip('.') == name else None
sys.exit(0 if dkim.verify(msg, dnsfunc=txt) else 'not verified')
`

// TestDKIM signs on submission and lets others verify.
func TestDKIM(t *testing.T) {
	need(t, "/usr/bin/python3", "swaks")
	for _, alg := range []string{"rsa", "ed25519"} {
		t.Run(alg, func(t *testing.T) {
			dir := t.TempDir()
			var signer crypto.Signer
			var record string
			if alg == "rsa" {
				key, err := rsa.GenerateKey(rand.Reader, 2048)
				if err != nil {
					t.Fatal(err)
				}
				pub, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
				signer, record = key, "v=DKIM1; k=rsa; p="+base64.StdEncoding.EncodeToString(pub)
			} else {
				pub, key, err := ed25519.GenerateKey(rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				signer, record = key, "v=DKIM1; k=ed25519; p="+base64.StdEncoding.EncodeToString(pub)
			}
			der, err := x509.MarshalPKCS8PrivateKey(signer)
			if err != nil {
				t.Fatal(err)
			}
			keyFile := filepath.Join(dir, "dkim.pem")
			write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
			s := start(t, "-dkim", "sel:"+keyFile)
			box := s.imap(t, bob, bobPass)
			run(t, dir, "swaks", "--server", s.addr["submission"], "-tls", "-a", "PLAIN", "-au", alice, "-ap", alicePass,
				"--from", alice, "--to", bob, "--header", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=  two  spaces",
				"--body", "  leading space\ntabs\t and  spaces \n\n.dot\n\n\n")
			box.wait("INBOX", 1)
			box.ok("SELECT INBOX")
			msg := box.message(1)
			// What the receiver put before the signature is not signed.
			if !strings.Contains(msg, "DKIM-Signature: ") || !strings.Contains(msg, "d=example.test") {
				t.Fatalf("no signature: %q", tail(msg, 3000))
			}
			file := filepath.Join(dir, "m.eml")
			write(t, file, msg)
			run(t, dir, "/usr/bin/python3", "-c", verifyPy, file, "sel._domainkey.example.test", record)

			// The test must be able to fail.
			bad := filepath.Join(dir, "bad.eml")
			write(t, bad, strings.Replace(msg, "leading", "Leading", 1))
			if _, err := try(t, dir, "/usr/bin/python3", "-c", verifyPy, bad, "sel._domainkey.example.test", record); err == nil {
				t.Error("python3-dkim verifies a changed message too")
			}
			if alg == "rsa" {
				opendkim(t, dir, file, bad, record)
			}
		})
	}
}

// opendkim evaluates a good and a changed message with OpenDKIM, which reads
// the key from a file.
func opendkim(t *testing.T, dir, good, bad, record string) {
	t.Helper()
	name := "opendkim"
	if _, err := exec.LookPath(name); err != nil {
		name = "/usr/sbin/opendkim"
	}
	need(t, name)
	keys, conf := filepath.Join(dir, "keys"), filepath.Join(dir, "opendkim.conf")
	write(t, keys, "sel._domainkey.example.test "+record+"\n")
	write(t, conf, "Mode v\nTestPublicKeys "+keys+"\nSocket local:"+filepath.Join(dir, "sock")+"\nUserID root\nSyslog no\n")
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{good: ") succeeded", bad: ") failed: signature verification failed"} {
		out, _ := try(t, dir, name, "-x", conf, "-v", "-t", file)
		if !strings.Contains(out, want) {
			t.Errorf("opendkim on %s: %s", filepath.Base(file), out)
		}
	}
}
