package interop

import (
	"bytes"
	"image/color"
	"image/png"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dmarc/dmarcreport"
)

// hostile are texts of reports that would colour the page, if they could.
var hostile = []string{
	`<style>body{background:#ff00ff!important}</style>`,
	`<img src=x onerror="document.body.style.background='#f0f'">`,
	`</title><script>document.documentElement.style.background='#ff00ff'</script>`,
	`"><svg onload="document.body.style.background='#f0f'">`,
}

// TestDMARCPage looks at the summary page in a real browser: chart and bars are
// there in light and dark, on a wide and a narrow screen, and reports cannot
// change it.
func TestDMARCPage(t *testing.T) {
	need(t, "chromium")
	begin := time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)
	var reports []*dmarcreport.Report
	for d := range 14 {
		r := &dmarcreport.Report{Organization: hostile[d%len(hostile)], ID: strconv.Itoa(d), Begin: begin.AddDate(0, 0, d), End: begin.AddDate(0, 0, d+1),
			Policy: dmarcreport.Published{Domain: "example.org" + hostile[d%2]}}
		r.Records = []dmarcreport.Record{
			{Source: netip.MustParseAddr("192.0.2.1"), Count: 500, DKIM: auth.Pass, Signatures: []dmarcreport.Signature{{Domain: "example.org", Result: auth.Pass}}},
			{Source: netip.MustParseAddr("198.51.100.1"), Count: 200, Disposition: "reject", SourceText: hostile[0]},
			{Source: netip.MustParseAddr("203.0.113.1"), Count: 150, Disposition: "none", Hosts: []dmarcreport.Host{{Domain: hostile[d%len(hostile)], Result: auth.Pass}}},
		}
		reports = append(reports, r)
	}
	var html bytes.Buffer
	if err := dmarcreport.Summarize(reports).WriteHTML(&html); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	page := filepath.Join(dir, "page.html")
	write(t, page, html.String())
	type rgb [3]uint8
	for _, look := range []struct {
		name                             string
		args                             []string
		width                            string
		paper, passed, blocked, delivery rgb
	}{
		{"light", nil, "1100", rgb{0xfc, 0xfc, 0xfb}, rgb{0x2f, 0x7d, 0x5b}, rgb{0x8a, 0x7f, 0xb8}, rgb{0xd2, 0x69, 0x1e}},
		{"dark", []string{"--blink-settings=preferredColorScheme=0"}, "1100", rgb{0x17, 0x19, 0x1c}, rgb{0x4f, 0xb2, 0x86}, rgb{0xa7, 0x9b, 0xd8}, rgb{0xf0, 0x92, 0x4a}},
		{"narrow", nil, "500", rgb{0xfc, 0xfc, 0xfb}, rgb{0x2f, 0x7d, 0x5b}, rgb{0x8a, 0x7f, 0xb8}, rgb{0xd2, 0x69, 0x1e}},
	} {
		t.Run(look.name, func(t *testing.T) {
			shot := filepath.Join(dir, look.name+".png")
			args := append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + filepath.Join(dir, look.name),
				"--window-size=" + look.width + ",1100", "--screenshot=" + shot}, look.args...)
			run(t, dir, "chromium", append(args, "file://"+page)...)
			f, err := os.Open(shot)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			img, err := png.Decode(f)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[rgb]int{}
			b := img.Bounds()
			for y := b.Min.Y; y < b.Max.Y; y++ {
				for x := b.Min.X; x < b.Max.X; x++ {
					c := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA)
					seen[rgb{c.R, c.G, c.B}]++
				}
			}
			all := b.Dx() * b.Dy()
			if seen[look.paper] < all/3 {
				t.Errorf("%d of %d dots are paper", seen[look.paper], all)
			}
			if seen[rgb{0xff, 0, 0xff}] > 0 {
				t.Error("a report has coloured the page")
			}
			// Of 850 messages 500 passed, 200 were blocked, 150 delivered.
			if p, k, d := seen[look.passed], seen[look.blocked], seen[look.delivery]; p < all/100 || k < p/5 || d < p/6 || p < k || k < d {
				t.Errorf("the chart has %d, %d and %d dots of %d", p, k, d, all)
			}
		})
	}
}
