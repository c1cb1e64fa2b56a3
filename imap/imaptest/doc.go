// Package imaptest runs scripts in the format of the imaptest program against
// any IMAP server: commands with the responses that must and must not come.
//
// [Load] reads a folder of scripts and mailboxes, a [Runner] plays them:
//
//	groups, err := imaptest.Load(os.DirFS("tests"))
//	for _, g := range groups {
//		res := runner.Run(ctx, g)
//		fmt.Println(g.Name, res.Outcome, res.Reason)
//	}
//
// The runner has its own reading of the protocol, so that it shares no
// mistake with the server or client that is tested.
package imaptest
