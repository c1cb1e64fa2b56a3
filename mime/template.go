package mime

import (
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Template is what a *template.Template of text/template or html/template is.
type Template interface {
	Execute(w io.Writer, data any) error
}

// SetText makes Text from a template; when that fails, Text stays as it is.
// Use text/template: what html/template escapes is not for plain text.
func (m *Message) SetText(t Template, data any) error { return execute(&m.Text, t, data) }

// SetHTML makes HTML from a template; when that fails, HTML stays as it is.
// Use html/template, which escapes the data. The package mime/htmlmail puts
// the pictures into the message that the HTML refers to.
func (m *Message) SetHTML(t Template, data any) error { return execute(&m.HTML, t, data) }

func execute(to *string, t Template, data any) error {
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return err
	}
	*to = b.String()
	return nil
}

// FileFS is a file of a file system, which is opened when the message is
// written. Its Name is the last element of name.
func FileFS(fsys fs.FS, name string) File {
	return File{Name: path.Base(name), Open: func() (io.ReadCloser, error) { return fsys.Open(name) }}
}

// FileReader is a file that comes from a reader, read to its end when the
// message is written. A reader that cannot seek can be read only once: so can
// the message be written once, and Size and Envelope come too late or spend
// it. A message/* from such a reader becomes application/octet-stream.
func FileReader(name string, r io.Reader) File {
	f := File{Name: name}
	seeker, ok := r.(io.ReadSeeker)
	f.once = !ok
	var start int64
	begun := false
	f.Open = func() (io.ReadCloser, error) {
		switch {
		case !begun && ok:
			var err error
			if start, err = seeker.Seek(0, io.SeekCurrent); err != nil {
				return nil, err
			}
		case begun && ok:
			if _, err := seeker.Seek(start, io.SeekStart); err != nil {
				return nil, err
			}
		case begun:
			return nil, &fs.PathError{Op: "read again", Path: name, Err: os.ErrClosed}
		}
		begun = true
		return io.NopCloser(r), nil
	}
	return f
}
