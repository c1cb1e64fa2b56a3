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
)
