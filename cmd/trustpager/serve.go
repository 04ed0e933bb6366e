package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"trustpager/integrations"
	"trustpager/server"
	"trustpager/storage"
)

// serveFlags are what serve and demo have in common.
type serveFlags struct {
	Listen          string   `help:"Address to listen on." default:"127.0.0.1:8080" env:"TRUSTPAGER_LISTEN"`
	BaseURL         string   `help:"URL by which people and clients reach this server. (default: http:// and the address)" env:"TRUSTPAGER_BASE_URL"`
	AllowWebhookNet []string `help:"Network (CIDR) that webhooks may reach although it is not public." placeholder:"CIDR" env:"TRUSTPAGER_ALLOW_WEBHOOK_NET"`
	AllowOrigin     []string `help:"Web origin that may call this server from a browser." placeholder:"ORIGIN" env:"TRUSTPAGER_ALLOW_ORIGIN"`
	TrustProxy      []string `help:"Network (CIDR) of reverse proxies whose X-Forwarded-For says where requests come from." placeholder:"CIDR" env:"TRUSTPAGER_TRUST_PROXY"`
	OAuthRate       int      `help:"Requests a minute that one address may send to each OAuth endpoint." default:"600" env:"TRUSTPAGER_OAUTH_RATE" name:"oauth-rate"`
	AllowHost       []string `help:"Further name of this server, beside those of the base URL and localhost." placeholder:"HOST" env:"TRUSTPAGER_ALLOW_HOST"`
	SMTPURL         string   `help:"Mail server: smtp://user:password@host:587 (STARTTLS) or smtps://user:password@host:465. Better given by the environment than on the command line, which others may see." placeholder:"URL" env:"TRUSTPAGER_SMTP_URL" name:"smtp-url"`
	MailFrom        string   `help:"Sender of messages, as in \"Acme <pager@example.com>\"; required with a mail server." placeholder:"ADDRESS" env:"TRUSTPAGER_MAIL_FROM"`
	MailOutbox      string   `help:"Folder where messages are written while there is no mail server. (default: outbox beside the SQLite file, or beside the secret key file with PostgreSQL)" type:"path" env:"TRUSTPAGER_MAIL_OUTBOX"`
}

// listen opens the address, and completes the configuration with it.
func (f serveFlags) listen(ctx context.Context) (net.Listener, server.Config, error) {
	c := server.Config{OAuthRate: f.OAuthRate, BaseURL: f.BaseURL, Origins: f.AllowOrigin, Hosts: f.AllowHost}
	for _, nets := range []struct {
		flag  string
		texts []string
		to    *[]netip.Prefix
	}{{"--allow-webhook-net", f.AllowWebhookNet, &c.WebhookNets}, {"--trust-proxy", f.TrustProxy, &c.Proxies}} {
		for _, text := range nets.texts {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, c, fmt.Errorf("%s %q is not of the form 10.0.0.0/8: %w", nets.flag, text, err)
			}
			*nets.to = append(*nets.to, p.Masked())
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", f.Listen)
	if err != nil {
		return nil, c, fmt.Errorf("listen: %w (choose another address with --listen)", err)
	}
	if c.BaseURL == "" {
		c.BaseURL = "http://" + reachable(l.Addr().String())
	}
	c.BaseURL = strings.TrimSuffix(c.BaseURL, "/")
	return l, c, nil
}

// reachable returns an address that can be dialled for one that is listened on.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

type serveCmd struct {
	serveFlags
	JSON bool `help:"Print one line of JSON when it listens."`
}

// serveInfo is what one needs to use a server.
type serveInfo struct {
	BaseURL  string `json:"base_url"`
	MCPURL   string `json:"mcp_url"`
	SetUpURL string `json:"setup_url,omitempty"` // while nobody can log in
}

// setUpLink returns a new link by which the first person sets the server up,
// and tells the operator of it; "" if somebody can log in.
func setUpLink(ctx context.Context, s *server.Server, baseURL string) (string, error) {
	token, err := s.Desk.OfferSetUp(ctx)
	if err != nil || token == "" {
		return "", err
	}
	link := baseURL + "/setup?token=" + token
	slog.Warn("nobody can log in yet: open the link to set the server up; it works once, until the next start", "setup_url", link)
	return link, nil
}

// muchMemory is how many bytes of memory are much for this program.
const muchMemory = 192 << 20

// spareGC lets the heap grow further between collections than Go does by
// itself: the server's live heap is a few MB, so collections would come
// thousands of times a minute, and cost a fifth of the processor. Beyond
// muchMemory it saves memory instead, so that a flood of large requests does
// not take several times what it needs. GOGC and GOMEMLIMIT in the environment
// have the last word.
func spareGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(muchMemory)
	}
}

// start opens the address and what is served there.
func (f serveFlags) start(e *env) (net.Listener, *server.Server, server.Config, error) {
	spareGC()
	l, config, err := f.listen(e.ctx)
	if err != nil {
		return nil, nil, config, err
	}
	config.Mail = integrations.Mail{SMTP: f.SMTPURL, From: f.MailFrom, Outbox: cmp.Or(f.MailOutbox, e.outbox())}
	s, err := e.open(true, config)
	if err != nil {
		l.Close()
	}
	return l, s, config, err
}

// outbox returns where messages are written if nothing else is said.
func (c *cli) outbox() string {
	beside := c.Database
	if storage.IsPostgres(c.Database) {
		beside = c.keyFile()
	}
	return filepath.Join(filepath.Dir(beside), "outbox")
}

// Run serves until it is told to stop.
func (c *serveCmd) Run(e *env) error {
	l, s, config, err := c.start(e)
	if err != nil {
		return err
	}
	defer s.DB.Close()
	slog.Info("serving", "base_url", config.BaseURL, "listen", l.Addr().String(), "database", s.DB.Engine(), "version", version(), "mail", s.Mail.Describe())
	if strings.HasPrefix(config.BaseURL, "https://") && len(config.Proxies) == 0 {
		slog.Warn("the base URL is https, so requests come through a proxy: name it with --trust-proxy, or all clients share the limits of its address")
	}
	if paused, err := s.DB.JobsPaused(e.ctx); err == nil && paused {
		slog.Warn("outgoing jobs are paused, as after a restore; resume them with: trustpager jobs resume")
	}
	info := serveInfo{BaseURL: config.BaseURL, MCPURL: config.BaseURL + "/mcp"}
	if info.SetUpURL, err = setUpLink(e.ctx, s, config.BaseURL); err == nil && c.JSON {
		err = e.printJSON(info)
	}
	if err != nil {
		l.Close()
		return err
	}
	err = s.Serve(e.ctx, l)
	slog.Info("stopped")
	return err
}
