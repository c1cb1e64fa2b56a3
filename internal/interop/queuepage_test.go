package interop

import (
	"bufio"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// examples builds programs of examples/ and returns where they are.
func examples(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"build", "-o", dir}
	for _, n := range names {
		args = append(args, "./examples/"+n)
	}
	build := exec.Command("go", args...)
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %v: %v\n%s", names, err, out)
	}
	return dir
}

// background runs a program until the end of the test, and returns the first
// line it says.
func background(t *testing.T, file string, args ...string) string {
	t.Helper()
	cmd := exec.Command(file, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	})
	line := make(chan string, 1)
	go func() {
		sc := bufio.NewScanner(out)
		sc.Scan()
		line <- sc.Text()
		for sc.Scan() {
		}
	}()
	select {
	case s := <-line:
		return s
	case <-time.After(30 * time.Second):
		t.Fatalf("%s says nothing", file)
		return ""
	}
}

// TestQueuePage looks at the page of examples/queuectl in a real browser: it is
// there in light and dark, on a wide and a narrow screen, and what hosts and
// senders say cannot change it.
func TestQueuePage(t *testing.T) {
	need(t, "chromium")
	far := smtptest.New(t)
	for i, text := range hostile {
		far.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "later" + strconv.Itoa(i) + "@", Reply: "451 4.3.0 " + text})
	}
	data, programs := t.TempDir(), examples(t, "relay", "queuectl")
	ctl := filepath.Join(programs, "queuectl")
	addr := strings.TrimPrefix(background(t, filepath.Join(programs, "relay"), "-data", data, "-listen", "127.0.0.1:0", "-hostname", "relay.test", "-smarthost", far.Addr), "smtp ")
	page := background(t, ctl, "-data", data, "web", "-listen", "127.0.0.1:0")
	env := smtp.Envelope{From: smtp.Address{Local: hostile[0], Domain: "north.example"}}
	for i := range 40 {
		env.To = append(env.To, smtp.Recipient{Address: smtp.Address{Local: "later" + strconv.Itoa(i%len(hostile)), Domain: "d" + strconv.Itoa(i%9) + ".example"}})
	}
	d := smtpclient.Dialer{Hello: "client.test"}
	for _, r := range d.Send(t.Context(), smtpclient.Target{Addr: addr}, &env, strings.NewReader("Subject: x\r\n\r\nx\r\n")) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	// All of them were tried, and one is held.
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(run(t, data, ctl, "-data", data), "9 queued: 0 being sent, 0 new, 9 tried before") {
		if time.Now().After(deadline) {
			t.Fatal(run(t, data, ctl, "-data", data))
		}
	}
	run(t, data, ctl, "-data", data, "hold", "-dest", "d3.example")

	dir := t.TempDir()
	type rgb [3]uint8
	for _, look := range []struct {
		name                      string
		args                      []string
		width                     string
		paper, sent, tried, stops rgb
	}{
		{"light", nil, "1100", rgb{0xfc, 0xfc, 0xfb}, rgb{0x2f, 0x7d, 0x5b}, rgb{0xb2, 0x3b, 0x3b}, rgb{0xc2, 0x70, 0x1c}},
		{"dark", []string{"--blink-settings=preferredColorScheme=0"}, "1100", rgb{0x17, 0x19, 0x1c}, rgb{0x4f, 0xb2, 0x86}, rgb{0xea, 0x80, 0x80}, rgb{0xf0, 0x92, 0x4a}},
		{"narrow", nil, "500", rgb{0xfc, 0xfc, 0xfb}, rgb{0x2f, 0x7d, 0x5b}, rgb{0xb2, 0x3b, 0x3b}, rgb{0xc2, 0x70, 0x1c}},
	} {
		t.Run(look.name, func(t *testing.T) {
			shot := filepath.Join(dir, look.name+".png")
			args := append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + filepath.Join(dir, look.name),
				"--window-size=" + look.width + ",1100", "--screenshot=" + shot}, look.args...)
			run(t, dir, "chromium", append(args, page)...)
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
				t.Error("somebody has coloured the page")
			}
			// The edges of the tiles, 6 dots high and at least 100 long; there
			// are two of the last colour.
			if s, n, h := seen[look.sent], seen[look.tried], seen[look.stops]; s < 600 || n < 600 || h < 1200 {
				t.Errorf("the tiles have %d, %d and %d dots", s, n, h)
			}
		})
	}
}
