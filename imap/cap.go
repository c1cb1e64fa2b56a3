package imap

import (
	"slices"
	"strings"
)

// Cap is a capability as CAPABILITY lists it (RFC 9051 §7.2.2).
type Cap string

// Capabilities.
const (
	CapIMAP4rev1     Cap = "IMAP4rev1"          // RFC 3501
	CapIMAP4rev2     Cap = "IMAP4rev2"          // RFC 9051
	CapStartTLS      Cap = "STARTTLS"           // RFC 9051 §6.2.1
	CapLoginDisabled Cap = "LOGINDISABLED"      // RFC 9051 §6.2.3
	CapSASLIR        Cap = "SASL-IR"            // RFC 4959
	CapLiteralPlus   Cap = "LITERAL+"           // RFC 7888
	CapLiteralMinus  Cap = "LITERAL-"           // RFC 7888
	CapID            Cap = "ID"                 // RFC 2971
	CapEnable        Cap = "ENABLE"             // RFC 5161
	CapIdle          Cap = "IDLE"               // RFC 2177
	CapNamespace     Cap = "NAMESPACE"          // RFC 2342
	CapUnselect      Cap = "UNSELECT"           // RFC 3691
	CapUIDPlus       Cap = "UIDPLUS"            // RFC 4315
	CapMove          Cap = "MOVE"               // RFC 6851
	CapMultiAppend   Cap = "MULTIAPPEND"        // RFC 3502
	CapBinary        Cap = "BINARY"             // RFC 3516
	CapESearch       Cap = "ESEARCH"            // RFC 4731
	CapSearchRes     Cap = "SEARCHRES"          // RFC 5182
	CapChildren      Cap = "CHILDREN"           // RFC 3348
	CapListExtended  Cap = "LIST-EXTENDED"      // RFC 5258
	CapListStatus    Cap = "LIST-STATUS"        // RFC 5819
	CapSpecialUse    Cap = "SPECIAL-USE"        // RFC 6154
	CapCreateSpecial Cap = "CREATE-SPECIAL-USE" // RFC 6154
	CapStatusSize    Cap = "STATUS=SIZE"        // RFC 8438
	CapUTF8Accept    Cap = "UTF8=ACCEPT"        // RFC 6855
	CapCondStore     Cap = "CONDSTORE"          // RFC 7162
	CapQResync       Cap = "QRESYNC"            // RFC 7162
	CapSort          Cap = "SORT"               // RFC 5256
	CapQuota         Cap = "QUOTA"              // RFC 9208
	CapACL           Cap = "ACL"                // RFC 4314
	CapMetadata      Cap = "METADATA"           // RFC 5464
	CapNotify        Cap = "NOTIFY"             // RFC 5465
	CapCompress      Cap = "COMPRESS=DEFLATE"   // RFC 4978
	CapObjectID      Cap = "OBJECTID"           // RFC 8474
	CapWithin        Cap = "WITHIN"             // RFC 5032
)

// rev2Implies are the extensions that IMAP4rev2 took in (RFC 9051 Appendix E).
const rev2Implies = " NAMESPACE UNSELECT UIDPLUS ESEARCH SEARCHRES ENABLE IDLE SASL-IR LIST-EXTENDED LIST-STATUS MOVE LITERAL- BINARY SPECIAL-USE STATUS=SIZE "

// CapAuth returns the capability of a SASL mechanism, "AUTH=PLAIN".
func CapAuth(mechanism string) Cap { return Cap("AUTH=" + mechanism) }

// Caps is a list of capabilities.
type Caps []Cap

// Has tells whether c is listed, without regard to case, or implied by
// IMAP4rev2 or LITERAL+. Note that only the FETCH and STATUS side of BINARY
// and only plain LIST-EXTENDED options are part of IMAP4rev2.
func (s Caps) Has(c Cap) bool {
	return s.Lists(c) ||
		strings.Contains(rev2Implies, " "+strings.ToUpper(string(c))+" ") && s.Lists(CapIMAP4rev2) ||
		c == CapLiteralMinus && s.Lists(CapLiteralPlus)
}

// Lists tells whether c itself is listed, without regard to case.
func (s Caps) Lists(c Cap) bool {
	return slices.ContainsFunc(s, func(x Cap) bool { return strings.EqualFold(string(x), string(c)) })
}

// Mechanisms returns the SASL mechanisms listed, in order, in upper case.
func (s Caps) Mechanisms() []string {
	var out []string
	for _, c := range s {
		if len(c) > 5 && strings.EqualFold(string(c[:5]), "AUTH=") {
			out = append(out, strings.ToUpper(string(c[5:])))
		}
	}
	return out
}
