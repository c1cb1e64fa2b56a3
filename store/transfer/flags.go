package transfer

import (
	"strings"

	"github.com/postrider/postrider/store"
)

// system are the system flags by their IMAP names.
var system = [...]struct {
	flag store.SystemFlags
	name string
}{
	{store.Seen, `\Seen`},
	{store.Answered, `\Answered`},
	{store.Flagged, `\Flagged`},
	{store.Deleted, `\Deleted`},
	{store.DraftFlag, `\Draft`},
}

// names returns flags as files keep them.
func names(f store.Flags) []string {
	var out []string
	for _, s := range system {
		if f.System.Has(s.flag) {
			out = append(out, s.name)
		}
	}
	return append(out, f.Keywords...)
}

// flags reads what names wrote. System flags that are not known are dropped.
func flags(names []string) store.Flags {
	var f store.SystemFlags
	var words []string
next:
	for _, n := range names {
		for _, s := range system {
			if strings.EqualFold(n, s.name) {
				f |= s.flag
				continue next
			}
		}
		if !strings.HasPrefix(n, `\`) {
			words = append(words, n)
		}
	}
	return store.NewFlags(f, words...)
}
