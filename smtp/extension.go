package smtp

// The keywords of the service extensions in the reply to EHLO (RFC 5321
// §2.2, the IANA registry "SMTP Service Extensions").
const (
	ExtSize                = "SIZE"                // RFC 1870
	ExtPipelining          = "PIPELINING"          // RFC 2920
	Ext8BitMIME            = "8BITMIME"            // RFC 6152
	ExtSMTPUTF8            = "SMTPUTF8"            // RFC 6531
	ExtEnhancedStatusCodes = "ENHANCEDSTATUSCODES" // RFC 2034
	ExtSTARTTLS            = "STARTTLS"            // RFC 3207
	ExtAuth                = "AUTH"                // RFC 4954
	ExtDSN                 = "DSN"                 // RFC 3461
	ExtChunking            = "CHUNKING"            // RFC 3030
	ExtBinaryMIME          = "BINARYMIME"          // RFC 3030
	ExtRequireTLS          = "REQUIRETLS"          // RFC 8689
	ExtDeliverBy           = "DELIVERBY"           // RFC 2852
	ExtFutureRelease       = "FUTURERELEASE"       // RFC 4865
	ExtMTPriority          = "MT-PRIORITY"         // RFC 6710
	ExtRRVS                = "RRVS"                // RFC 7293
	ExtNoSoliciting        = "NO-SOLICITING"       // RFC 3865
	ExtLimits              = "LIMITS"              // RFC 9422
	ExtETRN                = "ETRN"                // RFC 1985
	ExtVRFY                = "VRFY"                // RFC 5321 §4.1.1.6
	ExtEXPN                = "EXPN"                // RFC 5321 §4.1.1.7
	ExtHELP                = "HELP"                // RFC 5321 §4.1.1.8
	ExtXCLIENT             = "XCLIENT"             // Postfix, XCLIENT_README
	ExtXFORWARD            = "XFORWARD"            // Postfix, XFORWARD_README
)
