package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"strings"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

var (
	sender    = mime.Address{Name: "Zoë Ångström", Address: smtp.Address{Local: "zoe", Domain: north}}
	recipient = mime.Address{Name: "Łukasz Wójcik", Address: smtp.Address{Local: "lukasz", Domain: south}}
	stranger  = mime.Address{Address: smtp.Address{Local: "nobody", Domain: south}}
)

const (
	subject  = "Grüße von unterwegs 🐎"
	fileName = "Reiseplan für Mai.csv"
	text     = "Hallo Łukasz,\n\ndie Route hängt an.\n.\nEin Punkt allein auf einer Zeile, und alles ist noch da.\n"
	csv      = "Tag,Etappe\r\n1,Größe\r\n2,Łódź\r\n"
)

// compose makes the e-mail: text and HTML, a picture inside the HTML, and an
// attachment.
func compose() *mime.Message {
	return &mime.Message{
		From:        []mime.Address{sender},
		To:          []mime.Address{recipient},
		Cc:          []mime.Address{stranger},
		Subject:     subject,
		Text:        text,
		HTML:        `<p>Hallo Łukasz,</p><p>die Route hängt an.</p><img src="cid:sun@north.example" alt="Sonne">`,
		Inline:      []mime.File{{Name: "sonne.png", ContentID: "sun@north.example", Data: sun()}},
		Attachments: []mime.File{{Name: fileName, Data: []byte(csv)}},
	}
}

// sun paints a small picture.
func sun() []byte {
	img := image.NewRGBA(image.Rect(0, 0, 48, 48))
	for y := range 48 {
		for x := range 48 {
			d := math.Hypot(float64(x)-24, float64(y)-24)
			img.Set(x, y, color.RGBA{255, uint8(max(0, 220-5*d)), 40, 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err) // an image in memory can always be encoded
	}
	return b.Bytes()
}

// outline draws the tree of a message.
func outline(p *mime.Part, indent string) string {
	var b strings.Builder
	name := ""
	if f := p.FileName(); f != "" {
		name = "  " + f
	}
	fmt.Fprintf(&b, "%s%s/%s  %d octets%s\n", indent, p.Type, p.Subtype, p.Size, name)
	for _, c := range p.Parts {
		b.WriteString(outline(c, indent+"  "))
	}
	return b.String()
}

// leaves lists the parts that hold content.
func leaves(p *mime.Part) []*mime.Part {
	if len(p.Parts) == 0 {
		return []*mime.Part{p}
	}
	var all []*mime.Part
	for _, c := range p.Parts {
		all = append(all, leaves(c)...)
	}
	return all
}
