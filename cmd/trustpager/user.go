package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/server"
)

type userCmd struct {
	List     userListCmd     `cmd:"" help:"List the members of a workspace."`
	Add      userAddCmd      `cmd:"" help:"Add a person to a workspace; the password is read from standard input, or made and printed."`
	Invite   userInviteCmd   `cmd:"" help:"Invite a person by e-mail; the link is printed too."`
	Role     userRoleCmd     `cmd:"" help:"Change what a member is: owner, admin or member."`
	Remove   userRemoveCmd   `cmd:"" help:"Remove a person from a workspace, with their keys and connected apps."`
	Password userPasswordCmd `cmd:"" help:"Give a person a new password, read from standard input, or made and printed."`
}

type userListCmd struct {
	inWorkspace
	asJSON
}

// Run lists the members.
func (c *userListCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		users, err := s.DB.Users(ctx, g.Workspace.ID)
		if err != nil {
			return err
		}
		if c.JSON {
			return e.printJSON(users)
		}
		var rows [][]string
		for _, u := range users {
			rows = append(rows, []string{u.ID, u.Email, u.Name, string(u.Role)})
		}
		return e.table("ID\tE-MAIL\tNAME\tROLE", rows)
	})
}

type userAddCmd struct {
	Email string `arg:"" help:"E-mail address, which is also the login."`
	Name  string `help:"What people call them."`
	Role  string `help:"owner, admin or member." enum:"owner,admin,member" default:"member"`
	passwordFlag
	inWorkspace
	asJSON
}

// passwordFlag says where a password comes from.
type passwordFlag struct {
	PasswordStdin bool `help:"Read the password from the first line of standard input."`
}

// password returns the password and its hash. made is true if it was not read
// but made.
func (p passwordFlag) password() (text, hash string, made bool, err error) {
	if p.PasswordStdin {
		text, err = bufio.NewReader(os.Stdin).ReadString('\n')
		text = strings.TrimRight(text, "\r\n")
		if err != nil && !errors.Is(err, io.EOF) {
			return "", "", false, fmt.Errorf("read the password: %w", err)
		}
		if len(text) < 12 {
			return "", "", false, errors.New("the password is too short: use at least 12 characters")
		}
	} else {
		text, made = rand.Text(), true
	}
	hash, err = access.HashPassword(text)
	return text, hash, made, err
}

// Run adds a person.
func (c *userAddCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		text, hash, made, err := c.password()
		if err != nil {
			return err
		}
		_, _, ferr := s.DB.UserByEmail(ctx, c.Email)
		u, err := s.Desk.AddUser(ctx, g, c.Email, c.Name, hash, access.Role(c.Role))
		if err != nil {
			return err
		}
		if c.JSON {
			return e.printJSON(u)
		}
		fmt.Fprintf(e.stdout, "%s is %s of %s.\n", printable(u.Email), c.Role, printable(g.Workspace.Name))
		if made && ferr != nil {
			fmt.Fprintf(e.stdout, "Password (shown once): %s\n", text)
		}
		return nil
	})
}

type userInviteCmd struct {
	Email string `arg:"" help:"E-mail address."`
	Name  string `help:"What people call them."`
	Role  string `help:"owner, admin or member." enum:"owner,admin,member" default:"member"`
	inWorkspace
}

// Run invites a person.
func (c *userInviteCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		i, link, err := s.Desk.Invite(ctx, g, admin.Invite{Email: c.Email, Name: c.Name, Role: access.Role(c.Role)})
		if err != nil {
			return err
		}
		if link == "" {
			_, err = fmt.Fprintf(e.stdout, "A message with a link is on its way to %s.\n", printable(i.Email))
			return err
		}
		_, err = fmt.Fprintf(e.stdout, "Pass this link on to %s; it holds for 7 days and works once:\n%s\n", printable(i.Email), link)
		return err
	})
}

// keepFlag names what stays in force of somebody who leaves.
type keepFlag struct {
	Keep []string `help:"Ids of keys of theirs, and of grants of clients that act for themselves, that stay in force." placeholder:"ID"`
}

type userRoleCmd struct {
	Email string `arg:"" help:"E-mail address."`
	Role  string `arg:"" enum:"owner,admin,member" help:"owner, admin or member."`
	keepFlag
	inWorkspace
}

// Run changes a role.
func (c *userRoleCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		u, _, err := s.DB.UserByEmail(ctx, c.Email)
		if err != nil {
			return err
		}
		ended, err := s.Desk.ChangeRole(ctx, g, u.ID, access.Role(c.Role), c.Keep)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.stdout, "%s is %s now. Keys that ended: %d.\n", printable(u.Email), admin.RoleName(access.Role(c.Role)), ended.Keys)
		return err
	})
}

type userRemoveCmd struct {
	Email string `arg:"" help:"E-mail address."`
	keepFlag
	inWorkspace
}

// Run removes a person.
func (c *userRemoveCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		return s.Desk.RemoveUser(ctx, g, c.Email, c.Keep...)
	})
}

type userPasswordCmd struct {
	Email string `arg:"" help:"E-mail address."`
	passwordFlag
	inWorkspace
}

// Run gives a new password.
func (c *userPasswordCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		text, hash, made, err := c.password()
		if err != nil {
			return err
		}
		if err := s.Desk.SetPassword(ctx, g, c.Email, hash); err != nil {
			return err
		}
		if made {
			fmt.Fprintf(e.stdout, "Password (shown once): %s\n", text)
		}
		return nil
	})
}
