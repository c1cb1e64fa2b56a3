package transfer

import (
	"context"
	"strings"

	"github.com/postrider/postrider/store"
)

// changes are what happened at the source to messages that had been copied.
// Messages that get the same flags share one step.
type changes struct {
	gone  store.UIDSet
	flags map[string]*flagged
}

type flagged struct {
	flags store.Flags
	uids  store.UIDSet // with other flags at the destination
	same  store.UIDSet // with these, but changed and changed back meanwhile
}

func newChanges() *changes { return &changes{flags: make(map[string]*flagged)} }

// compare notes what the destination's there lacks of the source's m. A client
// may have seen flags that m had for a while: it must be told of the message
// even if its flags are now what they were.
func (c *changes) compare(m, there *store.Message, exact bool) {
	switch {
	case !there.Flags.Equal(m.Flags):
		g := c.group(m.Flags)
		g.uids.Add(m.UID)
	case exact && there.ModSeq < m.ModSeq:
		g := c.group(m.Flags)
		g.same.Add(m.UID)
	}
}

func (c *changes) group(f store.Flags) *flagged {
	key := string(rune(f.System)) + strings.Join(f.Keywords, " ")
	g := c.flags[key]
	if g == nil {
		g = &flagged{flags: store.NewFlags(f.System, f.Keywords...)}
		c.flags[key] = g
	}
	return g
}

// change brings changes over.
func (c *copier) change(ctx context.Context, x *changes) error {
	if len(x.flags) == 0 && x.gone.Empty() {
		return nil
	}
	if err := c.raise(ctx); err != nil {
		return err
	}
	for _, g := range x.flags {
		if !g.same.Empty() {
			other := store.Flags{System: g.flags.System ^ store.Flagged, Keywords: g.flags.Keywords}
			for _, f := range []store.Flags{other, g.flags} {
				if _, err := c.to.SetFlags(ctx, c.dst.ID, g.same, store.FlagOp{Mode: store.ReplaceFlags, Flags: f}); err != nil {
					return err
				}
			}
		}
		if g.uids.Empty() {
			continue
		}
		r, err := c.to.SetFlags(ctx, c.dst.ID, g.uids, store.FlagOp{Mode: store.ReplaceFlags, Flags: g.flags})
		if err != nil {
			return err
		}
		c.report.Flagged += int(r.Changed.Count())
	}
	if x.gone.Empty() {
		return nil
	}
	r, err := c.to.Expunge(ctx, c.dst.ID, x.gone, store.ExpungeOptions{})
	c.report.Expunged += int(r.UIDs.Count())
	return err
}
