package s3blobs_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store/s3blobs"
)

func TestMain(m *testing.M) { pgtest.Main(m, stop) }

// gateway is a versitygw over a folder: a bucket is a folder in it, an object a
// file.
type gateway struct {
	addr, dir string
	cmd       *exec.Cmd
}

var errNone = errors.New("versitygw is not installed")

// running is the gateway that the tests share.
var running atomic.Pointer[gateway]

// stop ends it.
func stop() {
	if g := running.Load(); g != nil {
		g.cmd.Process.Kill()
		g.cmd.Wait()
		os.RemoveAll(g.dir)
	}
}

// start starts it, when the first test needs it.
var start = sync.OnceValues(func() (*gateway, error) {
	path, err := exec.LookPath("versitygw")
	if err != nil {
		return nil, errNone
	}
	dir, err := os.MkdirTemp("", "s3")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gateway{addr: l.Addr().String(), dir: dir}
	l.Close()
	g.cmd = exec.Command(path, "--port", g.addr, "--access", "test", "--secret", "testtest", "--region", "us-east-1", "--quiet", "posix", dir)
	out, err := os.Create(filepath.Join(dir, ".log"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	g.cmd.Stdout, g.cmd.Stderr = out, out
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	running.Store(g)
	c := client(g.addr, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := c.ListBuckets(ctx, &s3.ListBucketsInput{})
		if err == nil {
			return g, nil
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(filepath.Join(dir, ".log"))
			return nil, fmt.Errorf("versitygw did not start: %w\n%s", err, text)
		case <-tick.C:
		}
	}
})

// client is one for a server on loopback.
func client(addr string, transport http.RoundTripper) *s3.Client {
	o := s3.Options{
		BaseEndpoint: aws.String("http://" + addr),
		Region:       "us-east-1",
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider("test", "testtest", ""),
	}
	if transport != nil {
		o.HTTPClient = &http.Client{Transport: transport}
	}
	return s3.New(o)
}

var buckets atomic.Int64

// counter counts requests and the octets of their answers, by method.
type counter struct {
	mu     sync.Mutex
	calls  map[string]int
	octets atomic.Int64
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	if c.calls == nil {
		c.calls = make(map[string]int)
	}
	c.calls[r.Method]++
	c.mu.Unlock()
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && r.Method == http.MethodGet && resp.ContentLength > 0 {
		c.octets.Add(resp.ContentLength)
	}
	return resp, err
}

func (c *counter) gets() (requests int, octets int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[http.MethodGet], c.octets.Load()
}

// bucket returns Blobs in a bucket of the test's own, and the folder that it is.
func bucket(tb testing.TB, transport http.RoundTripper) (*s3blobs.Blobs, string) {
	tb.Helper()
	g, err := start()
	if errors.Is(err, errNone) && os.Getenv(conformance.Require) == "" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	name := fmt.Sprintf("bucket-%d", buckets.Add(1))
	c := client(g.addr, transport)
	if _, err := c.CreateBucket(tb.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		tb.Fatal(err)
	}
	dir := filepath.Join(g.dir, name)
	return &s3blobs.Blobs{Client: c, Bucket: name, Prefix: "mail/"}, dir
}

// files are the objects that are in a bucket's folder.
func files(tb testing.TB, dir string) []string {
	tb.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Base(path)[0] != '.' {
			out = append(out, path)
		}
		if d != nil && d.IsDir() && d.Name() == ".sgwtmp" {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}
