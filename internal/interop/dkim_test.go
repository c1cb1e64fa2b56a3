package interop

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth/dkim"
)

// Each program reads jobs from a file and prints a line for each: "pass", or
// what is wrong. To sign, it writes the signed message to a file instead.
//
// job is one message to verify, or to sign.
type job struct {
	In   string `json:"in"`
	Out  string `json:"out,omitempty"` // set: sign
	Alg  string `json:"alg"`           // rsa or ed25519
	Head string `json:"head"`          // relaxed or simple
	Body string `json:"body"`
}

type jobs struct {
	Jobs    []job             `json:"jobs"`
	Records map[string]string `json:"records"`
	Keys    map[string]string `json:"keys"` // PKCS #8 in PEM, by algorithm
	Seed    string            `json:"seed"` // of Ed25519, base64
}

const dkimPython = `
import sys, json, dkim
d = json.load(open(sys.argv[1]))
def txt(name, timeout=5):
    r = d['records'].get(name.decode().rstrip('.'))
    return r.encode() if r else None
for j in d['jobs']:
    try:
        msg = open(j['in'], 'rb').read()
        if 'out' in j:
            key = d['seed'] if j['alg'] == 'ed25519' else d['keys'][j['alg']]
            sig = dkim.sign(msg, ('sel-' + j['alg']).encode(), b'example.test', key.encode(),
                canonicalize=(j['head'].encode(), j['body'].encode()), signature_algorithm=(j['alg'] + '-sha256').encode())
            open(j['out'], 'wb').write(sig + msg)
            print('pass')
        else:
            print('pass' if dkim.verify(msg, dnsfunc=txt) else 'fail')
    except Exception as e:
        print('error', str(e).replace('\n', ' '))
`

const dkimPerl = `
use strict; use warnings; use JSON::PP; use Net::DNS; use Mail::DKIM::DNS; use Mail::DKIM::Verifier; use Mail::DKIM::Signer; use Mail::DKIM::PrivateKey;
sub slurp { open my $f, '<:raw', $_[0] or die $!; local $/; <$f> }
my $d = decode_json(slurp($ARGV[0]));
package Zone { sub new { bless {}, shift } sub errorstring { 'NXDOMAIN' } sub send { my ($s, $name, $type) = @_;
	my $p = Net::DNS::Packet->new($name, $type); $p->header->qr(1); my $r = $d->{records}{$name};
	$p->push(answer => Net::DNS::RR->new(name => $name, type => 'TXT', ttl => 60, txtdata => [ $r =~ /(.{1,250})/g ])) if $r; $p } }
package main;
Mail::DKIM::DNS::resolver(Zone->new);
for my $j (@{$d->{jobs}}) {
	my $line = eval {
		my $msg = slurp($j->{in});
		if ($j->{out}) {
			my $pem = $d->{keys}{rsa}; $pem =~ s/-----[^-]+-----//g; $pem =~ s/\s//g;
			my $s = Mail::DKIM::Signer->new(Algorithm => 'rsa-sha256', Method => "$j->{head}/$j->{body}", Domain => 'example.test', Selector => 'sel-rsa',
				Key => Mail::DKIM::PrivateKey->load(Data => $pem));
			$s->PRINT($msg); $s->CLOSE;
			open my $o, '>:raw', $j->{out} or die $!; print $o $s->signature->as_string, "\r\n", $msg; close $o;
			return 'pass';
		}
		my $v = Mail::DKIM::Verifier->new; $v->PRINT($msg); $v->CLOSE;
		return $v->result eq 'pass' ? 'pass' : 'fail ' . $v->result_detail;
	};
	$line //= "error $@"; $line =~ s/\n/ /g; print "$line\n";
}
`

const dkimNode = `
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
const { dkimSign } = createRequire(import.meta.url)('mailauth');
const { dkimVerify } = createRequire(import.meta.url)('mailauth/lib/dkim/verify');
const d = JSON.parse(readFileSync(process.argv[2]));
const resolver = async (name, type) => {
  if (type === 'TXT' && d.records[name]) return [[d.records[name]]];
  const e = new Error('not found'); e.code = 'ENOTFOUND'; throw e;
};
for (const j of d.jobs) {
  try {
    const msg = readFileSync(j.in);
    if (j.out) {
      const r = await dkimSign(msg, { canonicalization: j.head + '/' + j.body, algorithm: j.alg + '-sha256', signTime: new Date(),
        signatureData: [{ signingDomain: 'example.test', selector: 'sel-' + j.alg, privateKey: d.keys[j.alg], algorithm: j.alg + '-sha256' }] });
      if (r.errors && r.errors.length) throw r.errors[0].err || new Error(JSON.stringify(r.errors[0]));
      writeFileSync(j.out, Buffer.concat([Buffer.from(r.signatures), msg]));
      console.log('pass');
    } else {
      const r = await dkimVerify(msg, { resolver });
      const s = r.results[0] && r.results[0].status;
      console.log(s && s.result === 'pass' ? 'pass' : 'fail ' + JSON.stringify(s || null));
    }
  } catch (e) { console.log('error ' + String(e.message).replace(/\n/g, ' ')); }
}
`

// dkimMessages are what is hard to canonicalize, as it is on the wire.
var dkimMessages = map[string]string{
	"plain":         "From: Alice <alice@example.test>\r\nTo: bob@example.test\r\nSubject: Hello\r\n\r\nHello Bob.\r\n",
	"odd folding":   "From: Alice\r\n\t <alice@example.test>\r\nSUBJECT:\r\n  a\t\tb   \r\n \t c\t \r\nTo:bob@example.test\r\nX:   \r\n\r\nHello\r\n",
	"long lines":    "From: alice@example.test\r\nSubject: " + strings.Repeat("long ", 150) + "\r\n\r\n" + strings.Repeat("x y", 3000) + "\r\n",
	"empty body":    "From: alice@example.test\r\nSubject: nothing\r\n\r\n",
	"empty lines":   "From: alice@example.test\r\nSubject: lines\r\n\r\n\r\n\r\n\r\n",
	"blank lines":   "From: alice@example.test\r\nSubject: blanks\r\n\r\n  \r\n\t\r\n \t \r\n",
	"trailing":      "From: alice@example.test  \r\nSubject: trailing \t \r\n\r\ntext \t \r\n  leading\r\n\tx \t y\r\n\r\nend\r\n\r\n\r\n",
	"8-bit":         "From: alice@example.test\r\nSubject: 8-bit\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe \xa0 \xff\r\n",
	"UTF-8 header":  "From: Jos\u00e9 <alice@example.test>\r\nSubject: Gr\u00fc\u00dfe \u60a8\u597d\r\n\r\nbody\r\n",
	"octet A0":      "From: alice@example.test\r\nSubject: \u4f60  \u00e0\r\n\r\nbody\r\n",
	"no final CRLF": "From: alice@example.test\r\nSubject: cut\r\n\r\nfirst\r\nlast",
	"several":       "From: alice@example.test\r\nTo: a@example.test\r\nTo: b@example.test\r\nSubject: one\r\nReceived: x\r\nReceived: y\r\n\r\nHi\r\n",
	"dots":          "From: alice@example.test\r\nSubject: dots\r\n\r\n.\r\n..\r\n.x\r\n",
	"large":         "From: alice@example.test\r\nSubject: large\r\n\r\n" + strings.Repeat("The quick  brown fox \tjumps over the lazy dog. \r\n", 6000),
}

// excused says why a program need not agree about a message, "" = it must.
func excused(program string, j job) string {
	in := filepath.Base(j.In)
	switch {
	case program == "Mail-DKIM" && strings.HasPrefix(in, "no-final-CRLF") && j.Body == "simple":
		return "it does not add the CRLF that RFC 6376 §3.4.3 wants"
	case program == "mailauth" && strings.HasPrefix(in, "octet-A0") && j.Head == "relaxed":
		return "it takes the octet A0 within UTF-8 for white space"
	case program == "OpenDKIM" && strings.HasPrefix(in, "no-final-CRLF") && j.Body == "relaxed":
		return "it gives up: CRLF at end of body missing"
	case program == "OpenDKIM" && strings.HasPrefix(in, "odd-folding") && j.Head == "simple":
		return "its test mode reads headers without the white space behind the colon"
	}
	return ""
}

// TestDKIMPrograms signs and lets others verify, and the other way round, with
// every message, key and canonicalization.
func TestDKIMPrograms(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	signers := map[string]crypto.Signer{"ed25519": ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))}
	key, err := rsa.GenerateKey(rand.New(rand.NewSource(1)), 2048)
	if err != nil {
		t.Fatal(err)
	}
	signers["rsa"] = key
	set := jobs{Records: map[string]string{}, Keys: map[string]string{}, Seed: base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, 32))}
	for alg, s := range signers {
		r, err := dkim.NewRecord(s.Public())
		if err != nil {
			t.Fatal(err)
		}
		set.Records["sel-"+alg+"._domainkey.example.test"] = r.String()
		der, err := x509.MarshalPKCS8PrivateKey(s)
		if err != nil {
			t.Fatal(err)
		}
		set.Keys[alg] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	// What we sign, and each of these changed.
	var ours, bad, theirs []job
	n := 0
	for name, msg := range dkimMessages {
		plain := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".eml")
		write(t, plain, msg)
		for alg, key := range signers {
			for _, c := range []string{"relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"} {
				head, body, _ := strings.Cut(c, "/")
				s, err := dkim.NewSigner(dkim.SignOptions{Domain: "example.test", Selector: "sel-" + alg, Key: key,
					Header: dkim.Canonicalization(head), Body: dkim.Canonicalization(body)})
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(s, msg)
				field, err := s.Signature()
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				n++
				base := filepath.Join(dir, fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), n))
				write(t, base+".ours", field+msg)
				write(t, base+".bad", field+strings.Replace(msg, "alice@", "malice@", 1))
				j := job{In: base + ".ours", Alg: alg, Head: head, Body: body}
				ours = append(ours, j)
				j.In = base + ".bad"
				bad = append(bad, j)
				j.In, j.Out = plain, base+".theirs"
				theirs = append(theirs, j)
			}
		}
	}
	for _, p := range []struct {
		name, script, file string
		needs, argv        []string
		only               string // the one algorithm it knows, "" = both
		suffix             string
	}{
		{name: "python3-dkim", script: dkimPython, file: "jobs.py", argv: []string{"/usr/bin/python3"}},
		{name: "Mail-DKIM", script: dkimPerl, file: "jobs.pl", argv: []string{"perl"}, only: "rsa"},
		{name: "mailauth", script: dkimNode, file: "jobs.mjs", argv: []string{"node"}},
	} {
		t.Run(p.name, func(t *testing.T) {
			need(t, p.argv[0])
			script := filepath.Join(dir, p.file)
			if p.argv[0] == "node" {
				script = nodeScript(t, p.file)
			}
			write(t, script, p.script)
			if p.argv[0] == "perl" {
				needPerl(t, "Mail::DKIM")
			}
			answers := func(list []job) ([]job, []string) {
				var mine []job
				for _, j := range list {
					if p.only == "" || j.Alg == p.only {
						mine = append(mine, j)
					}
				}
				in := set
				in.Jobs = mine
				b, err := json.Marshal(in)
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(dir, p.file+".json")
				write(t, file, string(b))
				lines := strings.Split(strings.TrimSpace(run(t, dir, p.argv[0], script, file)), "\n")
				if len(lines) != len(mine) {
					t.Fatalf("%d answers to %d jobs: %.2000q", len(lines), len(mine), lines)
				}
				return mine, lines
			}
			verified, signed := 0, 0
			list, got := answers(ours)
			for i, j := range list {
				if got[i] == "pass" {
					verified++
				}
				if why := excused(p.name, j); (got[i] == "pass") != (why == "") {
					t.Errorf("%s does not verify %s, %s, %s/%s: %s", p.name, filepath.Base(j.In), j.Alg, j.Head, j.Body, got[i]+why)
				}
			}
			list, got = answers(bad)
			for i, j := range list {
				if got[i] == "pass" {
					t.Errorf("%s verifies a changed message: %s", p.name, filepath.Base(j.In))
				}
			}
			list, got = answers(theirs)
			for i, j := range list {
				if got[i] != "pass" {
					t.Errorf("%s does not sign %s, %s, %s/%s: %s", p.name, filepath.Base(j.In), j.Alg, j.Head, j.Body, got[i])
					continue
				}
				if excused(p.name, j) == "" {
					weVerify(t, p.name, j, set.Records)
					signed++
				}
			}
			t.Logf("conformance: %s: %d of ours verified, %d of theirs", p.name, verified, signed)
		})
	}
	t.Run("OpenDKIM", func(t *testing.T) { openDKIM(t, dir, ours, bad, theirs, set) })
}

// weVerify verifies what another program signed.
func weVerify(t *testing.T, who string, j job, records map[string]string) {
	t.Helper()
	msg, err := os.ReadFile(j.Out)
	if err != nil {
		t.Error(err)
		return
	}
	p := (&dkim.Verifier{Resolver: txtRecords(records)}).Begin(context.Background())
	defer p.Close()
	p.Write(msg)
	results, err := p.Results()
	if err != nil || len(results) != 1 || results[0].Result != "pass" {
		reason := ""
		if len(results) > 0 {
			reason = fmt.Sprint(results[0].Result, " ", results[0].Err)
		}
		t.Errorf("what %s signed does not verify: %s, %s, %s/%s: %v %s", who, filepath.Base(j.In), j.Alg, j.Head, j.Body, err, reason)
		return
	}
	if s := results[0].Signature; string(s.Header) != j.Head || string(s.Body) != j.Body || s.Algorithm != j.Alg+"-sha256" {
		t.Errorf("%s signed with %s, %s/%s, not %s, %s/%s", who, s.Algorithm, s.Header, s.Body, j.Alg, j.Head, j.Body)
	}
}

type txtRecords map[string]string

func (r txtRecords) LookupTXT(_ context.Context, name string) ([]string, error) {
	if txt, ok := r[strings.TrimSuffix(name, ".")]; ok {
		return []string{txt}, nil
	}
	return nil, fmt.Errorf("no record %s", name)
}

// openDKIM verifies with OpenDKIM in one run for all messages, and signs with
// it. Debian's knows RSA only.
func openDKIM(t *testing.T, dir string, ours, bad, theirs []job, set jobs) {
	name := "opendkim"
	if _, err := exec.LookPath(name); err != nil {
		name = "/usr/sbin/opendkim"
	}
	need(t, name)
	keys, conf, keyFile := filepath.Join(dir, "opendkim.keys"), filepath.Join(dir, "opendkim.conf"), filepath.Join(dir, "opendkim.pem")
	write(t, keys, "sel-rsa._domainkey.example.test "+set.Records["sel-rsa._domainkey.example.test"]+"\n")
	write(t, conf, "Mode v\nTestPublicKeys "+keys+"\nSocket local:"+filepath.Join(dir, "opendkim.sock")+"\nUserID root\nSyslog no\n")
	write(t, keyFile, set.Keys["rsa"])
	verified := 0
	for _, j := range append(append([]job(nil), ours...), bad...) {
		if j.Alg != "rsa" {
			continue
		}
		out, _ := try(t, dir, name, "-x", conf, "-v", "-t", j.In)
		good := strings.HasSuffix(j.In, ".ours") && excused("OpenDKIM", j) == ""
		ok := strings.Contains(out, ") succeeded")
		if good && ok {
			verified++
		}
		if good != ok {
			t.Errorf("opendkim on %s, %s/%s: succeeded %v: %s", filepath.Base(j.In), j.Head, j.Body, ok, out)
		}
	}
	signed := 0
	for _, j := range theirs {
		if j.Alg != "rsa" || excused("OpenDKIM", j) != "" {
			continue
		}
		write(t, conf, "Mode s\nRequireSafeKeys no\nSocket local:"+filepath.Join(dir, "opendkim.sock")+"\nUserID root\nSyslog no\nDomain example.test\nSelector sel-rsa\nKeyFile "+keyFile+
			"\nCanonicalization "+j.Head+"/"+j.Body+"\n")
		out, _ := try(t, dir, name, "-x", conf, "-vv", "-t", j.In)
		_, value, ok := strings.Cut(out, "hname='DKIM-Signature' hvalue='")
		value, _, end := strings.Cut(value, "'\n")
		if !ok || !end {
			t.Errorf("opendkim does not sign %s: %.1000s", filepath.Base(j.In), out)
			continue
		}
		msg, err := os.ReadFile(j.In)
		if err != nil {
			t.Fatal(err)
		}
		value = strings.ReplaceAll(strings.ReplaceAll(value, "\r\n", "\n"), "\n", "\r\n")
		write(t, j.Out, "DKIM-Signature: "+value+"\r\n"+string(msg))
		weVerify(t, "opendkim", j, set.Records)
		signed++
	}
	t.Logf("conformance: OpenDKIM: %d of ours verified, %d of theirs", verified, signed)
}

// nodeScript is where a script finds the npm programs.
func nodeScript(t *testing.T, name string) string {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(wd, "node", "node_modules", "mailauth")); err != nil {
		absent(t, "npm mailauth (cd node && npm ci)")
	}
	path := filepath.Join(wd, "node", "node_modules", "."+name)
	t.Cleanup(func() { os.Remove(path) })
	return path
}

func needPerl(t *testing.T, module string) {
	t.Helper()
	if err := exec.Command("perl", "-M"+module, "-e", "1").Run(); err != nil {
		absent(t, "perl "+module)
	}
}

// absent skips the test for what is missing, or fails it when
// POSTRIDER_REQUIRE is set.
func absent(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("POSTRIDER_REQUIRE") != "" {
		t.Fatalf("%s is required and not installed", what)
	}
	t.Skipf("%s is not installed", what)
}
