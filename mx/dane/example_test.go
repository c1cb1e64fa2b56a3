package dane_test

import (
	"fmt"

	"github.com/postrider/postrider/mx/dane"
)

func ExampleParse() {
	r, err := dane.Parse("3 1 1 D2ABDE240D7CD3EE6B4B28C54DF034B9 7983A1D16E8A410E4561CB106618E971")
	fmt.Println(r.Usable(), err)
	fmt.Println(dane.Name("mail.example.com", 25), "TLSA", r)
	// Output:
	// true <nil>
	// _25._tcp.mail.example.com. TLSA 3 1 1 D2ABDE240D7CD3EE6B4B28C54DF034B97983A1D16E8A410E4561CB106618E971
}
