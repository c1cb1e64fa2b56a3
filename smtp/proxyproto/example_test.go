package proxyproto_test

import (
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/postrider/postrider/smtp/proxyproto"
)

func ExampleListener() {
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	l := &proxyproto.Listener{
		Listener: nl,
		Trusted:  []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
	defer l.Close() // smtpserver.Server.Serve does it for you

	// What a proxy does.
	c, err := net.Dial("tcp", nl.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	h, err := proxyproto.Header{
		Source:      netip.MustParseAddrPort("192.0.2.1:4711"),
		Destination: netip.MustParseAddrPort("198.51.100.2:25"),
	}.Append(nil, 1)
	if err != nil {
		log.Fatal(err)
	}
	c.Write(h)

	served, err := l.Accept()
	if err != nil {
		log.Fatal(err)
	}
	defer served.Close()
	fmt.Printf("%q\n%v\n", h, served.RemoteAddr())
	// Output:
	// "PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n"
	// 192.0.2.1:4711
}
