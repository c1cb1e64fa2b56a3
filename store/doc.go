// Package store is the seam between mail servers and whatever keeps the mail.
// Implement [Store] and the eleven methods of [Account] over your own
// database, and imapserver, pop3server and delivery serve it; storetest
// proves it right. memstore is one implementation.
package store
