package pop3_test

import (
	"errors"
	"fmt"

	"github.com/postrider/postrider/pop3"
)

// What a server refuses comes as an *pop3.Error with its response code
// (RFC 2449 §8).
func ExampleError() {
	_, err := pop3.ParseStatus("-ERR [AUTH] wrong user or password")
	var refused *pop3.Error
	fmt.Println(errors.As(err, &refused) && refused.Code == pop3.Auth)
	// Output: true
}
