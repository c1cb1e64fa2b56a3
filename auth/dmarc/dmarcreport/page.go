package dmarcreport

import (
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	_ "embed"
)

//go:embed page.html
var pageText string

// WriteHTML writes the summary as a page that needs nothing but itself: no
// script, no font, no other host. Everything from reports is escaped.
func (s *Summary) WriteHTML(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"percent": percent,
		"count":   count,
		"date":    func(t time.Time) string { return t.UTC().Format(time.DateOnly) },
		"join":    strings.Join,
		"share":   func(part, whole int64) string { return fmt.Sprintf("%.2f", 100*ratio(part, whole)) },
	}).Parse(pageText)
	if err != nil {
		return err
	}
	return t.Execute(w, struct {
		*Summary
		Chart  chart
		Shown  []Source
		Hidden int
	}{s, s.chart(), s.Sources[:min(len(s.Sources), maxRows)], len(s.Sources) - min(len(s.Sources), maxRows)})
}

// maxRows is how many sources the page shows.
const maxRows = 200

func ratio(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// count writes a number with thin spaces between thousands.
func count(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// chart is the geometry of the bars, in the units of an SVG.
type chart struct {
	Width, Height int
	Left, Right   int // of the plot
	Top, Bottom   int
	Lines         []line
	Bars          []bar
	Labels        []label
}

type line struct {
	Y    int
	Text string
}

type label struct {
	X      float64
	Anchor string
	Text   string
}

type bar struct {
	Title    string
	X, Width float64
	Parts    []barPart
}

type barPart struct {
	Class     string
	Y, Height float64
}

func pow10(n int) int64 {
	p := int64(1)
	for range n {
		p *= 10
	}
	return p
}

// chart draws one bar for each of Days: passed below, then what was blocked,
// and on top what failed and was delivered.
func (s *Summary) chart() chart {
	c := chart{Width: 900, Height: 240, Left: 64, Right: 892, Top: 12, Bottom: 206}
	var most int64 = 1
	for _, d := range s.Days {
		most = max(most, d.Messages)
	}
	step := int64(1) // 1, 2 or 5 times a power of ten, at most five lines
	for i := 0; step*5 < most; i++ {
		step = []int64{2, 5, 10}[i%3] * pow10(i/3)
	}
	top := step * ((most + step - 1) / step)
	plot := float64(c.Bottom - c.Top)
	y := func(n int64) float64 { return float64(c.Bottom) - plot*float64(n)/float64(top) }
	for n := int64(0); n <= top; n += step {
		c.Lines = append(c.Lines, line{int(y(n)), count(n)})
	}
	if len(s.Days) == 0 {
		return c
	}
	width := float64(c.Right-c.Left) / float64(len(s.Days))
	thick := min(width*0.78, 48)
	for i, d := range s.Days {
		middle := float64(c.Left) + width*(float64(i)+0.5)
		b := bar{
			Title: fmt.Sprintf("%s: %s passed, %s blocked, %s failed and delivered", d.Begin.Format(time.DateOnly), count(d.Passed), count(d.Blocked), count(d.Delivered())),
			X:     middle - thick/2, Width: thick,
		}
		var below int64
		for _, p := range []struct {
			class string
			n     int64
		}{{"passed", d.Passed}, {"blocked", d.Blocked}, {"delivered", d.Delivered()}} {
			if p.n > 0 {
				b.Parts = append(b.Parts, barPart{p.class, y(below + p.n), y(below) - y(below+p.n)})
				below += p.n
			}
		}
		c.Bars = append(c.Bars, b)
		if every := (len(s.Days) + 6) / 7; i%every == 0 {
			c.Labels = append(c.Labels, label{middle, "middle", d.Begin.Format("2 Jan 2006")})
		}
	}
	return c
}
