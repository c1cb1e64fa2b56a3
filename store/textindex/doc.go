// Package textindex keeps an index beside any [store.Store], so that SEARCH in
// the text of messages need not look through all of them:
//
//	ix, err := textindex.Open("/var/cache/postrider", s, textindex.Options{})
//	defer ix.Close()
//	server := &imapserver.Server{Store: ix, ...}
//
// The [Index] is a Store whose accounts are [store.Searcher] too; else they are
// those of s, with all that they can do. It needs nobody to tell it what to
// index: it reads what is new through Mailboxes, Changes and Messages, soon
// after the account says that there is something, and again when it is asked.
// What it has not seen yet counts as found, so a search finds a message that
// came a moment ago, and one that the index is wrong about nobody notices:
// servers look into each message that is found.
//
// It is a cache, of one process. It may be deleted while nobody has it open,
// and by [Index.Drop] at any time; it is made again. It may come out of a
// crash older than it was, which costs the time to read the rest again. A
// damaged part is dropped and made again.
//
// # What it costs
//
// SEARCH looks for substrings, so the index has which messages each sequence of
// three octets is in; a search for less than three octets gets no help from it.
// It takes about half the room of the text, and on one core indexes some
// thousands of messages a second. Candidates among 100,000 messages take 10 to
// 30 milliseconds. An index of words would be smaller, and would miss what
// SEARCH has to find. A general full-text engine that was made to index
// sequences of three (bleve) took three times the room and ten times the time,
// and 25 modules more.
//
// A message with more than [Options].MessageText octets of text is not
// indexed, and always found. Memory is a few MB, and the cache.
//
// # Who can read it
//
// The index has what is in the messages, well enough to tell who wrote about
// what, and it is not encrypted. Beside a store that is sealed it undoes the
// sealing: keep it on a disk that may hold what is in the mail, or do without.
// What a message had leaves the index soon after the message, at the latest
// when a quarter of what it is stored with is gone.
package textindex
