package smtp_test

import (
	"errors"
	"fmt"

	"github.com/postrider/postrider/smtp"
)

func ExampleParseAddress() {
	a, err := smtp.ParseAddress(`"Mr. Smith"@Bücher.Example`)
	fmt.Println(a.Local, a.Domain, err)
	fmt.Println(a)
	// Output:
	// Mr. Smith xn--bcher-kva.example <nil>
	// "Mr. Smith"@xn--bcher-kva.example
}

// What the peer reads and what the log says are two things.
func ExampleReplyFor() {
	err := fmt.Errorf("storing: %w", &smtp.Error{
		Code: 452, Enhanced: smtp.EnhancedCode{4, 2, 2}, Text: "Mailbox full",
		Err: errors.New("/srv/mail/42: quota exceeded"),
	})
	fmt.Println(smtp.ReplyFor(err))
	fmt.Println(err)
	fmt.Println(smtp.ReplyFor(errors.New("/srv/mail/42: no such file")))
	// Output:
	// 452 4.2.2 Mailbox full
	// storing: 452 4.2.2 Mailbox full: /srv/mail/42: quota exceeded
	// 451 4.3.0 Local error, try again later
}
