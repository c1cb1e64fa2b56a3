package storetest

// Laws returns all laws, in the order in which it is wise to make them hold.
func Laws() []Law {
	return []Law{
		{"Read", "mailboxes and messages can be listed and read, by any selection", ReadOnly, lawRead},
		{"Write", "appends, flags, copies, moves and expunges do what they say and report it", NoHistory, lawWrite},
		{"Mailboxes", "mailboxes can be made, renamed and deleted; names are unique; Inbox stays", NoHistory, lawMailboxes},
		{"L1", "UIDs and ModSeqs strictly ascend and become visible in order", Full, lawOrder},
		{"L2", "Changes reads its bound before the rest: no expunge is missed", Full, lawBound},
		{"L3", "a mailbox's ModSeq is not below any message's or expunge's, and writes that change nothing leave it", NoHistory, lawHighest},
		{"L4", "OnlyDeleted is tested inside the write", NoHistory, lawOnlyDeleted},
		{"L5", "UnchangedSince and IfAbsent are tested inside the write: of many exactly one wins", NoHistory, lawConditions},
		{"L6", "each write is one step: nobody sees half of it, and a failed one leaves nothing", NoHistory, lawAtomic},
		{"L7", "two Views on two handles, with Fold, equal the truth under random writes", NoHistory, lawViews},
		{"Model", "random writes of many at once answer as a simple model does that gets them in the order of their ModSeqs", NoHistory, lawModel},
		{"L8", "Counts equal a recount, and racing writers do not pass the quota", NoHistory, lawCounts},
		{"FirstUnseen", "a mailbox's FirstUnseen is that of a recount, or always 0", NoHistory, lawUnseen},
		{"L9", "a loop over Messages holds nothing: it may stall and make any call", ReadOnly, lawLoop},
		{"L10", "an expunged message can be read to its end, and opened for the grace", NoHistory, lawGrace},
		{"L11", "IDs and ThreadIDs stay with a message through copies and moves, and are never used again", NoHistory, lawIDs},
		{"L12", "mailbox name, UIDVALIDITY and UID together never mean two messages", NoHistory, lawValidity},
		{"L13", "the octets that come out are Head and Body as they went in, at any offset", NoHistory, lawBytes},
		{"Bodies", "a body that fails or ends early leaves nothing, and nobody waits for a slow one", NoHistory, lawBodies},
		{"L14", "a sweep leaves no body without a message, and takes none that is open, coming in or being linked", NoHistory, lawSweep},
		{"Damage", "a body that is damaged or gone is ErrDamaged, and stands in the way of nothing else", NoHistory, lawDamage},
		{"Crashes", "whenever the machine stops, each call has happened or not, and what returned is there", NoHistory, lawCrashes},
		{"L15", "keywords ignore ASCII case and keep their first spelling; 64 fit; beyond the limit nothing changes", NoHistory, lawKeywords},
		{"L16", "Changes gives ErrForgotten below the Horizon, and only there", Full, lawHorizon},
		{"L17", "watchers hear of every commit on another handle, and of none after stop", NoHistory, lawWatch},
		{"L18", "a call whose context is done does all or nothing", NoHistory, lawContext},
		{"L19", "Deliver answers for each target alone and knows a repeated delivery", NoHistory, lawDeliver},
		{"Import", "mail keeps the UIDs and UIDVALIDITY it had elsewhere, and every change is later than all that was known there", NoHistory, lawImport},
		{"Search", "Candidates leaves out no message that has the texts", NoHistory, lawSearch},
	}
}
