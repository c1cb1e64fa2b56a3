// Package webhook tells a web server what becomes of queued mail: the events of
// a storage's log, in order, in batches, signed, and at least once.
//
//	d := &webhook.Deliverer{Storage: storage, URL: "https://app.example/mail-events", Secret: secret}
//	go d.Run(ctx)
//
// A batch is one POST with a JSON array of [Event]. It is done when the
// receiver answers 2xx; until then it is sent again, and nothing after it. What
// was answered is forgotten by the log, so a restart repeats at most the batch
// that was under way: the receiver tells by Event.ID what it has.
//
// The receiver proves where a batch comes from, and that it is not an old one:
//
//	events, err := webhook.Read(r, 0, secret)
package webhook
