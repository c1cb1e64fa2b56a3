// Command dmarcreport says who sends in the name of a domain, and what fails,
// from the DMARC reports that others sent:
//
//	go run . [-html page.html] [-record DOMAIN] [FILE or FOLDER]...
//
// Files are mails (.eml), XML, or XML within gzip or zip. With -record it also
// says what is wrong with the domain's policy record.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/dmarc/dmarcreport"
)

func main() {
	page := flag.String("html", "", "write a page with a chart to this file")
	record := flag.String("record", "", "check the policy record of this domain")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, os.Stderr, *page, *record, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "dmarcreport:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, warn io.Writer, page, record string, paths []string) error {
	if record != "" {
		if err := lint(ctx, out, record, net.DefaultResolver); err != nil {
			return err
		}
	}
	var reports []*dmarcreport.Report
	for _, p := range paths {
		err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			r, err := read(path)
			if err != nil {
				fmt.Fprintf(warn, "%s: %v\n", path, err)
				return nil
			}
			reports = append(reports, r)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(paths) == 0 {
		return nil
	}
	s := dmarcreport.Summarize(reports)
	if page != "" {
		f, err := os.Create(page)
		if err != nil {
			return err
		}
		if err := errors.Join(s.WriteHTML(f), f.Close()); err != nil {
			return err
		}
	}
	return s.WriteText(out)
}

func read(path string) (*dmarcreport.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if filepath.Ext(path) != ".eml" {
		return dmarcreport.Read(f, dmarcreport.Limits{})
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return dmarcreport.ReadMessage(f, info.Size(), dmarcreport.Limits{})
}

// lint prints what is wrong with the record of a domain.
func lint(ctx context.Context, out io.Writer, domain string, r dmarc.Resolver) error {
	txts, err := r.LookupTXT(ctx, "_dmarc."+domain+".")
	if err != nil {
		return err
	}
	for _, txt := range txts {
		if !strings.HasPrefix(txt, "v=DMARC1") {
			continue
		}
		fmt.Fprintf(out, "_dmarc.%s: %q\n", domain, txt)
		for _, p := range dmarc.Lint(txt) {
			fmt.Fprintln(out, " ", p)
		}
	}
	return nil
}
