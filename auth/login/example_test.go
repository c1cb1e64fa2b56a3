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
