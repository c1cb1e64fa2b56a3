package imap

// StatusType is the kind of a status response (RFC 9051 §7.1).
type StatusType string

// The kinds.
const (
	OK      StatusType = "OK"
	NO      StatusType = "NO"
	BAD     StatusType = "BAD"
	PREAUTH StatusType = "PREAUTH"
	BYE     StatusType = "BYE"
)

// Code is the name of a response code, in upper case (RFC 9051 §7.1).
type Code string

// Response codes. Those of RFC 5530 and later are all in RFC 9051 §7.1 but
// where another RFC is named.
const (
	CodeAlert                Code = "ALERT"
	CodeAlreadyExists        Code = "ALREADYEXISTS"
	CodeAppendUID            Code = "APPENDUID"
	CodeAuthenticationFailed Code = "AUTHENTICATIONFAILED"
	CodeAuthorizationFailed  Code = "AUTHORIZATIONFAILED"
	CodeBadCharset           Code = "BADCHARSET"
	CodeCannot               Code = "CANNOT"
	CodeCapability           Code = "CAPABILITY"
	CodeClientBug            Code = "CLIENTBUG"
	CodeClosed               Code = "CLOSED"
	CodeContactAdmin         Code = "CONTACTADMIN"
	CodeCopyUID              Code = "COPYUID"
	CodeCorruption           Code = "CORRUPTION"
	CodeExpired              Code = "EXPIRED"
	CodeExpungeIssued        Code = "EXPUNGEISSUED"
	CodeHasChildren          Code = "HASCHILDREN"
	CodeHighestModSeq        Code = "HIGHESTMODSEQ" // RFC 7162
	CodeInUse                Code = "INUSE"
	CodeLimit                Code = "LIMIT"
	CodeModified             Code = "MODIFIED" // RFC 7162
	CodeNoModSeq             Code = "NOMODSEQ" // RFC 7162
	CodeNonExistent          Code = "NONEXISTENT"
	CodeNoPerm               Code = "NOPERM"
	CodeNotSaved             Code = "NOTSAVED" // RFC 5182
	CodeOverQuota            Code = "OVERQUOTA"
	CodeParse                Code = "PARSE"
	CodePermanentFlags       Code = "PERMANENTFLAGS"
	CodePrivacyRequired      Code = "PRIVACYREQUIRED"
	CodeReadOnly             Code = "READ-ONLY"
	CodeReadWrite            Code = "READ-WRITE"
	CodeServerBug            Code = "SERVERBUG"
	CodeTooBig               Code = "TOOBIG" // RFC 7889
	CodeTryCreate            Code = "TRYCREATE"
	CodeUIDNext              Code = "UIDNEXT"
	CodeUIDNotSticky         Code = "UIDNOTSTICKY"
	CodeUIDValidity          Code = "UIDVALIDITY"
	CodeUnavailable          Code = "UNAVAILABLE"
	CodeUnknownCTE           Code = "UNKNOWN-CTE"
	CodeUnseen               Code = "UNSEEN"  // RFC 3501
	CodeUseAttr              Code = "USEATTR" // RFC 6154
)

// Error is a status response that says no: a server returns it to choose the
// reply, a client when it got one.
type Error struct {
	Type StatusType // NO, BAD or BYE
	Code Code       // "" = none
	Arg  string     // what follows Code in the brackets, as on the wire
	Text string     // for people
	Err  error      // private cause; never sent
}

// Error implements error.
func (e *Error) Error() string {
	s := "imap: " + string(e.Type)
	if e.Code != "" {
		s += " [" + string(e.Code)
		if e.Arg != "" {
			s += " " + e.Arg
		}
		s += "]"
	}
	s += " " + e.Text
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
