package textindex_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/textindex"
)

// prose returns a source of texts of about n octets, whose words are as unevenly
// spread as those of a language.
func prose(n int) func() string {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 20_000)
	for i := range words {
		b := make([]byte, 2+rnd.IntN(9))
		for j := range b {
			b[j] = "eeeaaoinstrhldcumfpgwybvkxjqz"[min(rnd.IntN(29), rnd.IntN(29))]
		}
		words[i] = string(b)
	}
	z := rand.NewZipf(rnd, 1.2, 4, uint64(len(words)-1))
	return func() string {
		var b strings.Builder
		for b.Len() < n {
			b.WriteString(words[z.Uint64()])
			b.WriteString([]string{" ", "\r\n", ". ", ", "}[min(rnd.IntN(12), 3)])
		}
		return b.String()
	}
}

func fill(b *testing.B, s store.Store, n int) {
	acc := handle(b, s)
	text := prose(2400)
	var d []store.Draft
	for i := range n {
		m := fmt.Sprintf("From: Ann <ann%d@example.org>\r\nTo: bob@example.org\r\nSubject: message number %d\r\n\r\n%s", i, i, text())
		if i == n/2 {
			m += "the needle in it"
		}
		if d = append(d, store.Draft{Body: strings.NewReader(m)}); len(d) == 1000 || i == n-1 {
			if _, err := acc.Append(b.Context(), store.Inbox, d, store.AppendOptions{}); err != nil {
				b.Fatal(err)
			}
			d = d[:0]
		}
	}
}

func diskSize(b *testing.B, dir string) (size int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "BALLAST" {
			return err
		}
		i, err := d.Info()
		if err == nil {
			size += i.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return size
}

// BenchmarkBuild indexes 2,000 messages of 2.5 KB.
func BenchmarkBuild(b *testing.B) {
	const n = 2000
	s := alice(b)
	fill(b, s, n)
	ix := open(b, b.TempDir(), s, textindex.Options{Accounts: -1})
	b.ReportAllocs()
	for b.Loop() {
		if err := ix.Drop(b.Context(), "alice"); err != nil {
			b.Fatal(err)
		}
		if err := ix.Sync(b.Context(), "alice"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkCandidates asks an index of 100,000 messages.
func BenchmarkCandidates(b *testing.B) {
	const n = 100_000
	s := alice(b)
	fill(b, s, n)
	dir := b.TempDir()
	ix := open(b, dir, s, textindex.Options{Accounts: -1})
	if err := ix.Sync(b.Context(), "alice"); err != nil {
		b.Fatal(err)
	}
	acc := handle(b, ix).(store.Searcher)
	for _, text := range []string{"the needle in it", "nowhere", "message number 77", "eee"} {
		b.Run(strings.ReplaceAll(text, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			var found int64
			for b.Loop() {
				uids, through, err := acc.Candidates(b.Context(), store.Inbox, []store.Term{{Text: text}})
				if err != nil || through != n {
					b.Fatal(through, err)
				}
				found = uids.Count()
			}
			b.ReportMetric(float64(found), "found")
			b.ReportMetric(float64(diskSize(b, dir))/n, "disk-B/message")
		})
	}
}
