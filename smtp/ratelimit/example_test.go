package ratelimit_test

import (
	"context"
	"fmt"
	"time"

	"github.com/postrider/postrider/smtp/ratelimit"
	"github.com/postrider/postrider/smtp/smtpserver"
)

func ExampleLimiter_Wrap() {
	var backend smtpserver.Backend // yours
	l := &ratelimit.Limiter{
		Connections: ratelimit.Rate{N: 60, Per: time.Minute},
		Messages:    ratelimit.Rate{N: 200, Per: time.Hour, Burst: 50},
		Recipients:  ratelimit.Rate{N: 1000, Per: 24 * time.Hour},
	}
	s := &smtpserver.Server{Backend: smtpserver.Wrap(backend, l.Wrap)}
	_ = s
}

// The same counting serves whatever else should not happen too often.
func ExampleLimiter_Take() {
	var l ratelimit.Limiter
	resets := ratelimit.Rate{N: 3, Per: 3 * time.Hour}
	for range 4 {
		wait, err := l.Take(context.Background(), "password resets of ann", 1, resets)
		fmt.Println(wait.Round(time.Minute), err)
	}
	// Output:
	// 0s <nil>
	// 0s <nil>
	// 0s <nil>
	// 1h0m0s <nil>
}
