package interop

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/dkim"
)

// arcJob is one message to validate, or to seal. A line is printed for each:
// "pass", or what is wrong.
type arcJob struct {
	In  string `json:"in"`
	Out string `json:"out,omitempty"` // set: seal
	CV  string `json:"cv,omitempty"`  // what the seal says of the chain so far
}

// arcHost is who seals, in the programs' tests. To seal, a message has an
// Authentication-Results field of this host on top.
const arcHost = "mx.example.test"

const arcPython = `
import sys, json, dkim
d = json.load(open(sys.argv[1]))
def txt(name, timeout=5):
    r = d['records'].get(name.decode().rstrip('.'))
    return r.encode() if r else None
for j in d['arc']:
    try:
        msg = open(j['in'], 'rb').read()
        if 'out' in j:
            fields = dkim.arc_sign(msg, b'sel-rsa', b'example.test', d['keys']['rsa'].encode(), b'mx.example.test')
            if len(fields) != 3:
                print('not sealed')
                continue
            open(j['out'], 'wb').write(b''.join(fields) + msg)
            print('pass')
        else:
            cv, _, why = dkim.arc_verify(msg, dnsfunc=txt)
            print('pass' if cv == b'pass' else 'fail ' + why.replace('\n', ' '))
    except Exception as e:
        print('error', str(e).replace('\n', ' '))
`

const arcPerl = `
use strict; use warnings; use JSON::PP; use Net::DNS; use Mail::DKIM::DNS; use Mail::DKIM::ARC::Verifier; use Mail::DKIM::ARC::Signer; use Mail::DKIM::PrivateKey;
sub slurp { open my $f, '<:raw', $_[0] or die $!; local $/; <$f> }
my $d = decode_json(slurp($ARGV[0]));
package Zone { sub new { bless {}, shift } sub errorstring { 'NXDOMAIN' } sub send { my ($s, $name, $type) = @_;
	my $p = Net::DNS::Packet->new($name, $type); $p->header->qr(1); my $r = $d->{records}{$name};
	$p->push(answer => Net::DNS::RR->new(name => $name, type => 'TXT', ttl => 60, txtdata => [ $r =~ /(.{1,250})/g ])) if $r; $p } }
package main;
Mail::DKIM::DNS::resolver(Zone->new);
for my $j (@{$d->{arc}}) {
	my $line = eval {
		my $msg = slurp($j->{in});
		if ($j->{out}) {
			my $pem = $d->{keys}{rsa}; $pem =~ s/-----[^-]+-----//g; $pem =~ s/\s//g;
			my $s = Mail::DKIM::ARC::Signer->new(Algorithm => 'rsa-sha256', Chain => 'ar', Domain => 'example.test', SrvId => 'mx.example.test',
				Selector => 'sel-rsa', Key => Mail::DKIM::PrivateKey->load(Data => $pem));
			$s->PRINT($msg); $s->CLOSE;
			my @f = $s->as_strings; die $s->{details} || 'not sealed' if @f != 3;
			open my $o, '>:raw', $j->{out} or die $!; print $o join("\r\n", @f), "\r\n", $msg; close $o;
			return 'pass';
		}
		my $v = Mail::DKIM::ARC::Verifier->new; $v->PRINT($msg); $v->CLOSE;
		return $v->result eq 'pass' ? 'pass' : 'fail ' . $v->result_detail;
	};
	$line //= "error $@"; $line =~ s/\n/ /g; print "$line\n";
}
`

const arcNode = `
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
const { authenticate, sealMessage } = createRequire(import.meta.url)('mailauth');
const d = JSON.parse(readFileSync(process.argv[2]));
const resolver = async (name, type) => {
  if (type === 'TXT' && d.records[name]) return [[d.records[name]]];
  const e = new Error('not found'); e.code = 'ENOTFOUND'; throw e;
};
for (const j of d.arc) {
  try {
    const msg = readFileSync(j.in);
    if (j.out) {
      const fields = await sealMessage(msg, { signingDomain: 'example.test', selector: 'sel-rsa', privateKey: d.keys.rsa, signTime: new Date(),
        authResults: 'mx.example.test; arc=' + j.cv + '; spf=pass smtp.mailfrom=alice@example.test', cv: j.cv });
      writeFileSync(j.out, Buffer.concat([fields, msg]));
      console.log('pass');
    } else {
      const { arc } = await authenticate(msg, { resolver, disableDmarc: true, disableBimi: true, ip: '192.0.2.1', helo: 'a.example', mta: 'mx.example.test', sender: 'a@a.example' });
      console.log(arc.status.result === 'pass' ? 'pass' : 'fail ' + JSON.stringify(arc.status));
    }
  } catch (e) { console.log('error ' + String(e.message).replace(/\n/g, ' ')); }
}
`

// excusedARC says why a program need not agree about a message, "" = it must.
func excusedARC(program, in string) string {
	if program == "mailauth" && strings.HasPrefix(in, "octet-A0") {
		return "it takes the octet A0 within UTF-8 for white space"
	}
	return ""
}

// TestARCPrograms seals and lets others validate, and the other way round, and
// continues each other's chains.
func TestARCPrograms(t *testing.T) {
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.New(rand.NewSource(1)), 2048)
	if err != nil {
		t.Fatal(err)
	}
	record, err := dkim.NewRecord(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	set := struct {
		jobs
		ARC []arcJob `json:"arc"`
	}{jobs: jobs{
		Records: map[string]string{"sel-rsa._domainkey.example.test": record.String()},
		Keys:    map[string]string{"rsa": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))},
	}}
	field := func(cv string) string {
		return "Authentication-Results: " + arcHost + "; arc=" + cv + ";\r\n spf=pass smtp.mailfrom=alice@example.test\r\n"
	}
	// received is a message as a host has it that has checked it: without the
	// field of the host before, which has the same name in this test.
	received := func(cv, msg string) string {
		return field(cv) + strings.NewReplacer(field("none"), "", field("pass"), "").Replace(msg)
	}
	seal := func(msg string) string {
		t.Helper()
		s, err := arc.NewSealer(arc.SealOptions{Domain: "example.test", Selector: "sel-rsa", Key: key})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(s, msg)
		head, _, _ := strings.Cut(msg, "\r\n\r\n")
		fields, err := s.Seal(arc.Collect([]byte(head), arcHost))
		if err != nil {
			t.Fatalf("%v: %q", err, tail(msg, 2000))
		}
		return fields + msg
	}
	validate := func(file string) *arc.Chain {
		t.Helper()
		msg, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p := (&arc.Verifier{Resolver: txtRecords(set.Records)}).Begin(context.Background())
		defer p.Close()
		p.Write(msg)
		c, err := p.Result()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, p := range []struct{ name, script, file, run string }{
		{"python3-dkim", arcPython, "arc.py", "/usr/bin/python3"},
		{"Mail-DKIM", arcPerl, "arc.pl", "perl"},
		{"mailauth", arcNode, "arc.mjs", "node"},
	} {
		t.Run(p.name, func(t *testing.T) {
			need(t, p.run)
			script := filepath.Join(dir, p.file)
			switch p.run {
			case "node":
				script = nodeScript(t, p.file)
			case "perl":
				needPerl(t, "Mail::DKIM::ARC::Signer")
			}
			write(t, script, p.script)
			answers := func(list []arcJob) []string {
				set.ARC = list
				b, err := json.Marshal(set)
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(dir, p.file+".json")
				write(t, file, string(b))
				lines := strings.Split(strings.TrimSpace(run(t, dir, p.run, script, file)), "\n")
				if len(lines) != len(list) {
					t.Fatalf("%d answers to %d jobs: %.2000q", len(lines), len(list), lines)
				}
				return lines
			}
			var list []arcJob
			var good []bool
			var sealed []string
			job := func(name, suffix, msg string, ok bool) string {
				base := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+"."+p.file+suffix)
				write(t, base, msg)
				list, good = append(list, arcJob{In: base}), append(good, ok)
				return base
			}
			check := func() (n int) {
				t.Helper()
				for i, got := range answers(list) {
					in := filepath.Base(list[i].In)
					if want := good[i]; (got == "pass") != want && excusedARC(p.name, in) == "" {
						t.Errorf("%s on %s: %s, want pass %v", p.name, in, got, want)
					} else if want && got == "pass" {
						n++
					}
				}
				list, good = nil, nil
				return n
			}
			for name, msg := range dkimMessages {
				plain := received("none", msg)
				one := seal(plain)
				job(name, ".ours", one, true)
				job(name, ".changed", strings.Replace(one, "alice@example.test>\r\n", "malice@example.test>\r\n", 1), !strings.Contains(one, "alice@example.test>\r\n"))
				job(name, ".unsealed", strings.Replace(one, "spf=pass", "spf=fail", 1), false)
				// To seal: without a chain, and with ours.
				n := len(list)
				for i, m := range []string{plain, received("pass", one)} {
					base := job(name, fmt.Sprint(".plain", i), m, true)
					list[n+i].Out, list[n+i].CV = base+".theirs", [...]string{"none", "pass"}[i]
					if excusedARC(p.name, filepath.Base(base)) == "" {
						sealed = append(sealed, base+".theirs")
					}
				}
			}
			validated := check()
			for _, file := range sealed {
				c := validate(file)
				if want := 1 + strings.Count(file, ".plain1"); c.Result != auth.Pass || len(c.Sets) != want || c.OldestPass != 0 {
					t.Errorf("what %s sealed does not validate: %s: %s, %v, %d sets", p.name, filepath.Base(file), c.Result, c.Err, len(c.Sets))
					continue
				}
				msg, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if bad := bytes.Replace(msg, []byte("alice@example.test\r\n"), []byte("malice@example.test\r\n"), 1); !bytes.Equal(bad, msg) {
					write(t, file+".bad", string(bad))
					if c := validate(file + ".bad"); c.Result != auth.Fail {
						t.Errorf("%s, changed: %s", filepath.Base(file), c.Result)
					}
				}
				job(filepath.Base(file), ".again", seal(received("pass", string(msg))), true)
			}
			continued := check()
			t.Logf("conformance: %s: %d messages of ours validated or sealed, %d of theirs, %d chains continued by us", p.name, validated, len(sealed), continued)
		})
	}
}
