// Package searchtext is what a search in the text of a message sees: the
// decoded fields of its headers and the decoded text of its parts, without
// regard to case. IMAP's SEARCH (RFC 9051 §6.4.4) finds substrings in it.
//
// imapserver searches by it, and so does whoever keeps an index beside it (a
// store.Searcher): an index over the texts of [Scanner.Scan], folded by
// [AppendFolded], leaves out nothing that SEARCH finds.
package searchtext
