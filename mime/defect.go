package mime

// Defect is something wrong that was put up with.
type Defect struct {
	Offset int64 // in the message
	Kind   DefectKind
	Text   string // for people
}

func (d Defect) String() string { return d.Text }

// DefectKind says what a [Defect] is about.
type DefectKind uint8

// The kinds of defects. Those of a body are found by [Part.Check] alone.
const (
	// DefectLimit: a limit of [Limits] was reached; what lies beyond was not
	// looked into.
	DefectLimit DefectKind = iota + 1
	// DefectHeaderLine: a line in a header is no field.
	DefectHeaderLine
	// DefectHeaderOctets: a header has octets that are no UTF-8 (RFC 6532).
	DefectHeaderOctets
	// DefectEmptyLine: the empty line between header and body is missing.
	DefectEmptyLine
	// DefectContentField: Content-Type or Content-Disposition has no type,
	// or parameters that had to be guessed at.
	DefectContentField
	// DefectBoundary: a multipart has no boundary, or no delimiter or part.
	DefectBoundary
	// DefectTruncated: a multipart lacks its last delimiter.
	DefectTruncated
	// DefectEncoding: the transfer encoding is unknown, or may not be where
	// it is; of a body, it has octets that its encoding does not allow.
	DefectEncoding
	// DefectLineEnd: a line ends in a bare LF, or a CR stands alone.
	DefectLineEnd
	// DefectLineLength: a line has more than 998 octets.
	DefectLineLength
	// DefectNUL: there is a NUL.
	DefectNUL
	// DefectCharset: a text is not of its charset, or nobody knows that.
	DefectCharset
)
