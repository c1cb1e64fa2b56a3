// Package archtest holds the import rules of the module. Its test reads them
// against what `go list` says, so that the shape of the project is checked
// like everything else.
package archtest

import (
	"path"
	"strings"
)

// Module is the path that every package of ours begins with.
const Module = "github.com/postrider/postrider"

// rule says what one package, or every package below one folder, may import.
type rule struct {
	// pkg is a package path below the module; "x/*" stands for every
	// package below x. The first rule that fits a package is its rule.
	pkg string
	// ours are the packages of this module that it may import, as patterns
	// like pkg; internal/* is understood.
	ours string
	// third are the third-party modules that it may import itself.
	third string
	// bare forbids even internal/*.
	bare bool
}

const (
	sasl    = "github.com/emersion/go-sasl"
	message = "github.com/emersion/go-message"
	dns     = "github.com/miekg/dns"
	net     = "golang.org/x/net"
	text    = "golang.org/x/text"
	crypto  = "golang.org/x/crypto"
	pebble  = "github.com/cockroachdb/pebble/v2"
	pgx     = "github.com/jackc/pgx/v5"
	s3      = "github.com/aws/aws-sdk-go-v2 github.com/aws/smithy-go"
)

// rules is the table of the architecture, in the order of its rows.
var rules = []rule{
	{pkg: "."},
	// Values.
	{pkg: "smtp", third: net},
	{pkg: "smtp/returnpath", ours: "smtp"},
	{pkg: "imap", third: net + " " + text},
	{pkg: "pop3"},
	{pkg: "mime", ours: "smtp", third: message + " " + text + " " + net},
	{pkg: "mime/detect", ours: "mime", third: "github.com/wlynxg/chardet"},
	{pkg: "mime/*", ours: "mime mime/* smtp", third: message + " " + text + " " + net},
	// Authentication.
	{pkg: "auth/login", third: sasl + " " + crypto + " " + text, bare: true},
	{pkg: "auth", ours: "auth auth/spf auth/dkim auth/dmarc auth/arc smtp mime mime/report", third: net},
	{pkg: "auth/dmarc/dmarcreport", ours: "auth auth/* !auth/login smtp mime mime/report", third: net + " " + text},
	{pkg: "auth/*", ours: "auth auth/* !auth/login smtp mime mime/report", third: net + " " + crypto},
	// SMTP roles.
	{pkg: "smtp/smtpserver", ours: "smtp auth/login", third: sasl},
	{pkg: "smtp/smtpclient", ours: "smtp auth/login", third: sasl},
	{pkg: "smtp/smtptest", ours: "smtp smtp/* auth/login mime mx/mxtest", third: sasl},
	{pkg: "smtp/proxyproto"},
	{pkg: "smtp/dnsbl", ours: "smtp smtp/smtpserver"},
	{pkg: "smtp/greylist", ours: "smtp smtp/smtpserver"},
	{pkg: "smtp/ratelimit", ours: "smtp smtp/smtpserver"},
	{pkg: "smtp/milter", ours: "smtp smtp/smtpserver"},
	// Routes.
	{pkg: "mx/mxtest", ours: "mx mx/* smtp smtp/smtpclient smtp/smtptest mime", third: dns},
	{pkg: "mx/tlsrpt", ours: "mx mx/* smtp smtp/smtpclient mime"},
	{pkg: "mx", ours: "mx/* smtp smtp/smtpclient", third: net},
	{pkg: "mx/*", ours: "mx mx/* smtp smtp/smtpclient", third: dns + " " + net},
	// The queue.
	{pkg: "queue", ours: "smtp smtp/returnpath mime/report mime"},
	{pkg: "queue/submission", ours: "queue smtp smtp/smtpserver mime mime/* auth auth/*"},
	{pkg: "queue/queuetest", ours: "queue smtp smtp/returnpath mime mime/report"},
	{pkg: "queue/webhook", ours: "queue smtp mime mime/report"},
	{pkg: "queue/feedback", ours: "queue smtp smtp/returnpath mime mime/report"},
	{pkg: "queue/diskqueue", ours: "queue smtp", third: pebble}, // with store/diskstore and what they share the only ones
	{pkg: "queue/pgqueue", ours: "queue smtp", third: pgx},
	{pkg: "queue/*", ours: "queue smtp"},
	// The store.
	{pkg: "store"},
	{pkg: "store/delivery", ours: "store smtp smtp/smtpserver mime mime/* auth auth/*"},
	{pkg: "store/transfer", ours: "store mime mime/*"},
	{pkg: "store/textindex", ours: "store mime mime/searchtext", third: pebble},
	{pkg: "store/diskstore", ours: "store", third: pebble + " github.com/klauspost/compress github.com/zeebo/xxh3"},
	{pkg: "store/storetest", ours: "store mime mime/searchtext"},
	{pkg: "store/pgstore", ours: "store mime mime/searchtext", third: pgx},
	{pkg: "store/s3blobs", third: s3}, // the only one with that SDK, of the queue's as of the store's bodies
	{pkg: "store/*", ours: "store"},
	// Readers.
	{pkg: "imap/imapserver", ours: "imap store mime mime/searchtext auth/login", third: sasl + " " + text},
	{pkg: "imap/imapclient", ours: "imap mime auth/login", third: sasl},
	{pkg: "imap/imaptest", ours: "imap imap/imapserver imap/imapclient store mime auth/login"},
	{pkg: "pop3/pop3server", ours: "pop3 store mime auth/login", third: sasl},
	{pkg: "pop3/pop3client", ours: "pop3 mime auth/login", third: sasl},
	{pkg: "pop3/pop3test", ours: "pop3 pop3/* store mime auth/login"},
	// The rest.
	{pkg: "examples/*", ours: "* !internal/*", third: sasl + " " + dns + " " + pgx, bare: true},
	{pkg: "internal/imapwire", ours: "imap"},
	{pkg: "internal/pgnotify", third: pgx},
	{pkg: "internal/pgschema", third: pgx},
	{pkg: "internal/pgtest", third: pgx},
	{pkg: "internal/diskdb", third: pebble},
	{pkg: "internal/*", ours: "smtp imap pop3 mime"},
}

// find returns the rule of a package given below the module, "." for the root.
func find(pkg string) (rule, bool) {
	for _, r := range rules {
		if fits(r.pkg, pkg) {
			return r, true
		}
	}
	return rule{}, false
}

func fits(pattern, pkg string) bool {
	if pattern == "*" || pattern == pkg {
		return true
	}
	dir, ok := strings.CutSuffix(pattern, "/*")
	return ok && strings.HasPrefix(pkg, dir+"/")
}

// mayOurs reports whether r allows importing a package of this module.
func (r rule) mayOurs(pkg string) bool {
	if fits("internal/*", pkg) && !r.bare {
		return true
	}
	ok := false
	for p := range strings.FieldsSeq(r.ours) {
		if not, banned := strings.CutPrefix(p, "!"); banned {
			if fits(not, pkg) {
				return false
			}
		} else if fits(p, pkg) {
			ok = true
		}
	}
	// The examples' own helpers are theirs.
	return ok || fits("examples/internal/*", pkg) && strings.HasPrefix(r.pkg, "examples/")
}

// mayThird reports whether r allows importing a third-party package.
func (r rule) mayThird(pkg string) bool {
	for m := range strings.FieldsSeq(r.third) {
		if pkg == m || strings.HasPrefix(pkg, m+"/") {
			return true
		}
	}
	return false
}

// isKit reports whether pkg is a test kit, which nothing but tests, other
// kits and examples imports.
func isKit(pkg string) bool {
	return strings.HasSuffix(path.Base(pkg), "test") && !strings.HasPrefix(pkg, "internal/")
}
