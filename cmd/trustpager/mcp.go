package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"trustpager/bridge"
)

type mcpCmd struct {
	URL     string `help:"URL of the server, as in https://pager.example.com; with /mcp and what follows it, such as ?toolsets=contacts, if it is to be more." env:"TRUSTPAGER_URL" name:"url"`
	Key     string `help:"API key to act with. Other users of this machine see what is on a command line: better give it by the environment, or in a file." env:"TRUSTPAGER_KEY"`
	KeyFile string `help:"File that holds the API key." type:"path" env:"TRUSTPAGER_KEY_FILE"`
}

// Help is what --help adds.
func (mcpCmd) Help() string {
	return "It reads messages from standard input, a line each, posts them to the server, and writes its answers to standard output. " +
		"It needs no database. The MCP client starts it; what is no message goes to standard error."
}

// Run forwards messages until standard input ends.
func (c mcpCmd) Run(e *env) error {
	if c.URL == "" {
		return errors.New("there is no server: set TRUSTPAGER_URL to its URL, as in https://pager.example.com, or give it with --url")
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	b, err := bridge.New(c.URL, key, "trustpager-mcp/"+strings.Trim(version(), "()"), slog.Default())
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // a client that reads no more ends it with an error, not a signal
	return b.Run(e.ctx, os.Stdin, e.stdout)
}

func (c mcpCmd) key() (string, error) {
	switch {
	case c.Key != "" && c.KeyFile != "":
		return "", errors.New("there is a key and a key file: give only one of them")
	case c.Key != "":
		return c.Key, nil
	case c.KeyFile == "":
		return "", errors.New("there is no key: set TRUSTPAGER_KEY to an API key (tp_live_…), or name a file that holds one with --key-file")
	}
	text, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
