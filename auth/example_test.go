package auth_test

import (
	"fmt"
	"strings"

	"github.com/postrider/postrider/auth"
)

func ExampleAuthenticationResults() {
	a := &auth.AuthenticationResults{AuthServID: "mx.example.org", Results: []auth.MethodResult{
		{Method: "spf", Result: auth.Pass, Props: []auth.Property{{Type: "smtp", Name: "mailfrom", Value: "alice@example.net"}}},
		{Method: "dmarc", Result: auth.Pass, Comment: "p=reject", Props: []auth.Property{{Type: "header", Name: "from", Value: "example.net"}}},
	}}
	fmt.Print(strings.ReplaceAll(a.String(), "\r\n", "\n"))
	// Output:
	// Authentication-Results: mx.example.org;
	//  spf=pass smtp.mailfrom=alice@example.net;
	//  dmarc=pass (p=reject) header.from=example.net
}

func ExampleClaims() {
	// A message from outside says that our own host has checked it.
	fmt.Println(auth.Claims("mx.example.org; dkim=pass", "mx.example.org"))
	fmt.Println(auth.Claims("mx.example.net; dkim=pass", "mx.example.org"))
	// Output:
	// true
	// false
}
