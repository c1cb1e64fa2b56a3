package login_test

import (
	"context"
	"fmt"

	"github.com/postrider/postrider/auth/login"
)

// A user database is one function. Here it is a map; a real one asks a
// directory or an SQL table.
func ExamplePasswords() {
	hash, err := login.Hash("correct horse battery staple")
	if err != nil {
		fmt.Println(err)
		return
	}
	hashes := map[string]string{"alice@example.test": hash}
	auth := &login.Passwords{
		Lookup: func(ctx context.Context, user string) (login.Record, error) {
			h, ok := hashes[user]
			if !ok {
				return login.Record{}, login.ErrNoUser
			}
			return login.Record{Hash: h}, nil
		},
	}

	// Servers run the mechanisms; Password is the short way.
	id, err := login.Password(context.Background(), auth, &login.Conn{Protocol: "imap"},
		"Alice@Example.Test", "correct horse battery staple")
	fmt.Println(id.User, err)
	_, err = login.Password(context.Background(), auth, &login.Conn{Protocol: "imap"}, "alice@example.test", "guess")
	fmt.Println(err)
	// Output:
	// alice@example.test <nil>
	// login: invalid credentials
}

// SCRAM needs keys, which are made when the password is set, beside its hash
// or in place of it. PLAIN works with them too, so that every client gets in,
// and one value serves all three protocols.
func ExampleSCRAM() {
	keys, err := login.SCRAM("SCRAM-SHA-256", "correct horse battery staple")
	if err != nil {
		fmt.Println(err)
		return
	}
	auth := &login.Passwords{
		Offer: []string{"SCRAM-SHA-256", "PLAIN", "LOGIN"},
		Lookup: func(ctx context.Context, user string) (login.Record, error) {
			if user != "alice" {
				return login.Record{}, login.ErrNoUser
			}
			return login.Record{SCRAM: []string{keys}}, nil
		},
	}
	fmt.Println(auth.Mechanisms(&login.Conn{}))

	// The client's side chooses the best of what is offered.
	ctx := context.Background()
	me := &login.Credentials{User: "alice", Password: "correct horse battery staple"}
	client, err := me.Client(ctx, auth.Mechanisms(&login.Conn{}), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	mech, response, _ := client.Start()
	server, err := auth.Start(ctx, mech, &login.Conn{})
	for done := false; err == nil && !done; {
		var challenge []byte
		if challenge, done, err = server.Next(response); err == nil && !done {
			response, err = client.Next(challenge)
		}
	}
	fmt.Println(server.Identity().User, mech, login.Proven(client), err)
	// Output:
	// [SCRAM-SHA-256 PLAIN LOGIN]
	// alice SCRAM-SHA-256 true <nil>
}
