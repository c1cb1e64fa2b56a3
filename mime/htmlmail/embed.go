package htmlmail

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strings"

	"golang.org/x/net/html"

	"github.com/postrider/postrider/mime"
)

// ErrPicture says that HTML refers to a picture by something that is no path
// in a file system.
var ErrPicture = errors.New("htmlmail: no path of a picture")

// Embed puts the pictures into the message that its HTML refers to by
// relative URLs: each becomes a file of Inline, read from fsys when the
// message is written, and the HTML refers to it by "cid:". It looks at the
// attributes src and background, and at url() in style. URLs with a scheme or
// a host, and those that begin with "/" or "#", stay as they are. A picture
// that is not in fsys is an error (fs.ErrNotExist), as is one outside
// ([ErrPicture]); the message is not changed then.
func Embed(m *mime.Message, fsys fs.FS) error {
	e := embedder{fsys: fsys, domain: "inline", files: map[string]string{}, ids: map[string]bool{}}
	if len(m.From) > 0 && m.From[0].Domain != "" {
		e.domain = m.From[0].Domain
	}
	for _, f := range m.Inline {
		e.ids[f.ContentID] = true
	}
	var out strings.Builder
	z := html.NewTokenizer(strings.NewReader(m.HTML))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			break // the end: a strings.Reader has no other
		}
		raw := string(z.Raw())
		if kind == html.StartTagToken || kind == html.SelfClosingTagToken {
			tag := z.Token()
			changed := false
			for i, a := range tag.Attr {
				v, err := e.attr(a)
				if err != nil {
					return err
				}
				if v != a.Val {
					tag.Attr[i].Val, changed = v, true
				}
			}
			if changed {
				raw = tag.String()
			}
		}
		out.WriteString(raw)
	}
	m.HTML = out.String()
	m.Inline = append(m.Inline, e.inline...)
	return nil
}

type embedder struct {
	fsys   fs.FS
	domain string
	files  map[string]string // path to Content-ID
	ids    map[string]bool   // taken
	inline []mime.File
}

func (e *embedder) attr(a html.Attribute) (string, error) {
	switch strings.ToLower(a.Key) {
	case "src", "background":
		return e.ref(a.Val)
	case "style":
		return e.style(a.Val)
	}
	return a.Val, nil
}

// style replaces the url() in a style.
func (e *embedder) style(s string) (string, error) {
	var out strings.Builder
	for {
		i := strings.Index(strings.ToLower(s), "url(")
		if i < 0 || len(strings.ToLower(s)) != len(s) {
			break
		}
		i += len("url(")
		n := strings.IndexByte(s[i:], ')')
		if n < 0 {
			break
		}
		v := strings.TrimSpace(s[i : i+n])
		quote := ""
		if len(v) > 1 && (v[0] == '\'' || v[0] == '"') && v[len(v)-1] == v[0] {
			quote, v = v[:1], v[1:len(v)-1]
		}
		ref, err := e.ref(v)
		if err != nil {
			return "", err
		}
		out.WriteString(s[:i] + quote + ref + quote)
		s = s[i+n:]
	}
	out.WriteString(s)
	return out.String(), nil
}

// ref returns what a URL becomes.
func (e *embedder) ref(v string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(v))
	if err != nil || u.Scheme != "" || u.Host != "" || u.Path == "" || strings.HasPrefix(u.Path, "/") {
		return v, nil
	}
	name := path.Clean(u.Path)
	if id, ok := e.files[name]; ok {
		return "cid:" + id, nil
	}
	if !fs.ValidPath(name) {
		return "", fmt.Errorf("%w: %q", ErrPicture, v)
	}
	if info, err := fs.Stat(e.fsys, name); err != nil {
		return "", fmt.Errorf("htmlmail: picture: %w", err)
	} else if info.IsDir() {
		return "", fmt.Errorf("%w: %q is a directory", ErrPicture, v)
	}
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:12]) + "@" + e.domain
	e.files[name] = id
	if !e.ids[id] {
		f := mime.FileFS(e.fsys, name)
		f.ContentID = id
		e.inline = append(e.inline, f)
	}
	return "cid:" + id, nil
}
