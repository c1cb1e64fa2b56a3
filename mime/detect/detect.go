// Package detect guesses the charset of text that does not say it, or says
// the wrong one, for [mime.Reading]:
//
//	d := mime.Reading{Detect: detect.Charset}
//	text := d.Text(part, r)
//
// It is a package of its own because of the size of its tables.
package detect

import (
	"slices"
	"strings"

	"github.com/wlynxg/chardet"
)

// enough is the confidence from which a guess counts.
const enough = 0.5

// most bounds what is looked at, from the first octet that is not ASCII: more
// than this tells little more and takes milliseconds.
const most = 2 << 10

// Charset names the charset of a text from what it begins with; "" when it
// cannot tell. A declared charset is not looked at.
func Charset(text []byte, declared string) string {
	first := max(slices.IndexFunc(text, func(c byte) bool { return c >= 0x80 }), 0)
	text = text[max(0, first-most/8):]
	r := chardet.Detect(text[:min(len(text), most)])
	if r.Confidence < enough {
		return ""
	}
	switch name := strings.ToLower(r.Encoding); name {
	case "ascii", "us-ascii":
		return ""
	case "iso-8859-1":
		return "windows-1252" // as all who write it mean it
	default:
		return name
	}
}
