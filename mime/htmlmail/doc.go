// Package htmlmail is for the HTML in mail: it turns HTML into plain text, for
// previews, search and the text beside a message's HTML, and puts the
// pictures into a message that its HTML refers to.
//
// It stands apart from package mime so that only who imports it links an HTML
// parser.
package htmlmail
