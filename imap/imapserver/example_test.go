package imapserver_test

import (
	"context"
	"fmt"
	"net"

	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/store/memstore"
)

func ExampleServer() {
	st := memstore.New()
	if err := st.CreateAccount(context.Background(), "alice"); err != nil {
		fmt.Println(err)
		return
	}
	// A real server has a *login.Passwords as its Auth, and TLS.
	srv := &imapserver.Server{Store: st, Auth: testAuth{}, InsecureAuth: true}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() { served <- srv.Serve(l) }()

	// … until the program is told to end:
	if err := srv.Shutdown(context.Background()); err != nil {
		srv.Close()
	}
	fmt.Println(<-served)
	// Output: server closed
}
