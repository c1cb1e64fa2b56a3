package imapserver

import "github.com/postrider/postrider/imap"

// command is one row of the command table.
type command struct {
	states state
	run    func(*session) (result, error)
	// keepNumbers: no EXPUNGE may be sent while it is answered (RFC 9051
	// §7.5.1).
	keepNumbers bool
	// sync: ask the store what happened, whether it told us or not.
	sync bool
}

// result is how a command ended well; the zero value is "OK NAME completed".
type result struct {
	code   imap.Code
	arg    string
	text   string
	quiet  bool // no updates of the mailbox before the tagged OK
	silent bool // the handler has written the tagged reply itself
}

// commands says which commands there are, in which states they may be used
// (RFC 9051 §6), and what runs them.
var commands = map[string]command{
	"CAPABILITY": {states: anyState, run: (*session).capability},
	"NOOP":       {states: anyState, run: (*session).noop, sync: true},
	"LOGOUT":     {states: anyState, run: (*session).logout},
	"ID":         {states: anyState, run: (*session).identify},

	"STARTTLS":     {states: notAuthenticated, run: (*session).startTLS},
	"AUTHENTICATE": {states: notAuthenticated, run: (*session).authenticate},
	"LOGIN":        {states: notAuthenticated, run: (*session).login},

	"ENABLE":      {states: authenticated, run: (*session).enable},
	"SELECT":      {states: afterLogin, run: (*session).selectMailbox},
	"EXAMINE":     {states: afterLogin, run: (*session).examine},
	"CREATE":      {states: afterLogin, run: (*session).create},
	"DELETE":      {states: afterLogin, run: (*session).delete},
	"RENAME":      {states: afterLogin, run: (*session).rename},
	"SUBSCRIBE":   {states: afterLogin, run: (*session).subscribe},
	"UNSUBSCRIBE": {states: afterLogin, run: (*session).unsubscribe},
	"LIST":        {states: afterLogin, run: (*session).list},
	"LSUB":        {states: afterLogin, run: (*session).lsub},
	"NAMESPACE":   {states: afterLogin, run: (*session).namespace},
	"STATUS":      {states: afterLogin, run: (*session).status},
	"APPEND":      {states: afterLogin, run: (*session).append},
	"IDLE":        {states: afterLogin, run: (*session).idle},

	"CHECK":       {states: selected, run: (*session).noop, sync: true},
	"CLOSE":       {states: selected, run: (*session).closeMailbox},
	"UNSELECT":    {states: selected, run: (*session).unselectMailbox},
	"EXPUNGE":     {states: selected, run: (*session).expunge},
	"UID EXPUNGE": {states: selected, run: (*session).uidExpunge},
	"SEARCH":      {states: selected, run: (*session).searchSeq, keepNumbers: true},
	"UID SEARCH":  {states: selected, run: (*session).searchUID},
	"FETCH":       {states: selected, run: (*session).fetchSeq, keepNumbers: true},
	"UID FETCH":   {states: selected, run: (*session).fetchUID},
	"STORE":       {states: selected, run: (*session).storeSeq, keepNumbers: true},
	"UID STORE":   {states: selected, run: (*session).storeUID},
	"COPY":        {states: selected, run: (*session).copySeq},
	"UID COPY":    {states: selected, run: (*session).copyUID},
	"MOVE":        {states: selected, run: (*session).moveSeq},
	"UID MOVE":    {states: selected, run: (*session).moveUID},
}
