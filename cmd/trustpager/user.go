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
	"trustpager/server"
)

type userCmd struct {
	List     userListCmd     `cmd:"" help:"List the members of a workspace."`
	Add      userAddCmd      `cmd:"" help:"Add a person to a workspace; the password is read from standard input, or made and printed."`
	Remove   userRemoveCmd   `cmd:"" help:"Remove a person from a workspace."`
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

type userRemoveCmd struct {
	Email string `arg:"" help:"E-mail address."`
	inWorkspace
}

// Run removes a person.
func (c *userRemoveCmd) Run(e *env) error {
	return e.with(c.Workspace, func(ctx context.Context, s *server.Server, g access.Grant) error {
		return s.Desk.RemoveUser(ctx, g, c.Email)
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
