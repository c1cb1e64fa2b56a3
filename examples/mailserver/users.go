package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/delivery"
)

// users is who may log in and receive mail: a map here, your database there.
type users struct {
	domains []string
	records map[string]login.Record // by address, in lower case
	made    []string                // addr:password of those made because none were given
}

// newUsers takes -domain and -user, and gives each user an account.
func newUsers(c *config, mail mailboxes) (*users, error) {
	u := &users{records: map[string]login.Record{}}
	for _, d := range c.domains {
		domain, err := smtp.ParseDomain(d)
		if err != nil {
			return nil, fmt.Errorf("-domain %s: %w", d, err)
		}
		u.domains = append(u.domains, domain)
	}
	specs := []string(c.users)
	if len(specs) == 0 {
		for _, name := range []string{"alice", "bob"} {
			u.made = append(u.made, name+"@"+u.domains[0]+":"+strings.ToLower(rand.Text()[:12]))
		}
		specs = u.made
	}
	for _, spec := range specs {
		if err := u.add(spec); err != nil {
			return nil, err
		}
	}
	for name := range u.records {
		if err := createAccount(mail, name); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// add takes addr:password.
func (u *users) add(spec string) error {
	addr, password, ok := strings.Cut(spec, ":")
	a, err := smtp.ParseAddress(addr)
	if !ok || err != nil || password == "" {
		return fmt.Errorf("-user %s: want addr:password", addr)
	}
	if !slices.Contains(u.domains, a.Domain) {
		return fmt.Errorf("-user %s: %s is none of the domains %v", addr, a.Domain, u.domains)
	}
	hash, err := login.Hash(password)
	if err != nil {
		return fmt.Errorf("-user %s: %w", addr, err)
	}
	name, err := login.PrepareUser(a.String())
	if err != nil {
		return fmt.Errorf("-user %s: %w", addr, err)
	}
	u.records[name] = login.Record{Hash: hash}
	return nil
}

// lookup is the database behind login.Passwords.
func (u *users) lookup(_ context.Context, user string) (login.Record, error) {
	r, ok := u.records[user]
	if !ok {
		return r, login.ErrNoUser
	}
	return r, nil
}

// recipients says who gets mail for an address; alice+anything is alice.
func (u *users) recipients(_ context.Context, to smtp.Address) ([]store.Target, error) {
	if to.Domain == "" { // <Postmaster>, which every server takes
		to.Domain = u.domains[0]
	}
	if !slices.Contains(u.domains, to.Domain) {
		return nil, delivery.ErrRelay
	}
	to.Local, _, _ = strings.Cut(to.Local, "+")
	name := strings.ToLower(to.String())
	if _, ok := u.records[name]; ok {
		return []store.Target{{Account: name}}, nil
	}
	if strings.EqualFold(to.Local, "postmaster") {
		return []store.Target{{Account: slices.Min(slices.Collect(maps.Keys(u.records)))}}, nil
	}
	return nil, delivery.ErrNoUser
}

// createAccount makes an account with the mailboxes that mail programs look
// for (RFC 6154), unless it is there.
func createAccount(s mailboxes, name string) error {
	ctx := context.Background()
	if err := s.CreateAccount(ctx, name); err != nil && !errors.Is(err, store.ErrExist) {
		return err
	}
	acc, err := s.Account(ctx, name)
	if err != nil {
		return err
	}
	boxes, _, err := acc.Mailboxes(ctx, store.MailboxQuery{})
	if err != nil || len(boxes) > 1 {
		return err // what its owner has deleted stays so
	}
	for _, box := range []string{"Archive", "Drafts", "Junk", "Sent", "Trash"} {
		if _, err := acc.CreateMailbox(ctx, store.NewMailbox{Name: box, SpecialUse: []string{`\` + box}}); err != nil {
			return err
		}
	}
	return nil
}
