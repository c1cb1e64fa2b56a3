package smtpserver_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// TestCorpus sends real messages: each arrives octet for octet, or is refused
// because of a NUL, a bare CR or a line over the limit, and never otherwise.
func TestCorpus(t *testing.T) {
	dir := conformance.Path(t, "mime")
	var got bytes.Buffer
	b := &backend{data: func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
		got.Reset()
		_, err := io.Copy(&got, r)
		return smtp.Reply{}, err
	}}
	p := dial(t, serve(t, &smtpserver.Server{Backend: b, MaxErrors: -1, MaxCommands: -1}))
	p.must(t, hello)
	accepted, refused := 0, 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
		text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\r\n")) {
			text = append(text, "\r\n"...)
		}
		bad := bytes.ContainsRune(text, 0) || bytes.Contains(bytes.ReplaceAll(text, []byte("\r\n"), nil), []byte("\r"))
		for line := range bytes.SplitAfterSeq(text, []byte("\r\n")) {
			bad = bad || len(line) > 65536
		}
		p.must(t, "> MAIL FROM:<>\n< 250 …\n> RCPT TO:<b@two.test>\n< 250 …\n> DATA\n< 354 …")
		wire := bytes.ReplaceAll(append([]byte("\r\n"), text...), []byte("\r\n."), []byte("\r\n.."))[2:]
		p.Write(append(wire, ".\r\n"...))
		if bad {
			refused++
			p.must(t, "< 554 5.6.0 …")
			return nil
		}
		accepted++
		p.must(t, "< 250 2.0.0 OK")
		if !bytes.Equal(got.Bytes(), text) {
			t.Errorf("%s: changed", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages accepted unchanged, %d refused as malformed", accepted, refused)
}
