// Package server puts the program together: one database, the gate that every
// action passes, the doors that lead to it, and the work in the background.
package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"trustpager/access"
	"trustpager/admin"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/integrations"
	"trustpager/jobs"
	"trustpager/mcp"
	"trustpager/messages"
	"trustpager/oauth"
	"trustpager/origin"
	"trustpager/rest"
	"trustpager/secret"
	"trustpager/storage"
	"trustpager/web"
	"trustpager/webhook"
)

// A Config says how the server is set up.
type Config struct {
	BaseURL     string         // as people and clients write it
	WebhookNets []netip.Prefix // non-public networks that webhooks may reach
	Origins     []string       // further web origins that may call
	Hosts       []string       // further names of this server
	OAuthRate   int            // requests a minute of one address at each OAuth endpoint; 0 means the default
	Mail        integrations.Mail
	Roots       *x509.CertPool // whom to believe about certificates of outside services; nil means the system's
	Proxies     []netip.Prefix // reverse proxies whose X-Forwarded-For is believed
	Version     string         // of the program
	Now         func() time.Time
}

// A Server is the whole program on an open database. Its parts are for the
// command line and for tests.
type Server struct {
	DB       *storage.DB
	Catalog  *catalog.Catalog
	Gate     *approvals.Gate
	Desk     *admin.Desk
	Auth     *access.Authenticator
	Limiter  *access.Limiter
	Usage    *access.Usage
	Webhooks *webhook.Endpoints
	OAuth    *oauth.Server
	Mail     *integrations.Mailer
	Accounts *integrations.Accounts
	Messages *messages.Carrier

	handler http.Handler
	mcp     *mcp.Server
	pages   *web.Pages
	runner  *jobs.Runner
	unwatch func()
	now     func() time.Time
}

// New puts the server together. It fails if the base URL is not one, if the
// catalog cannot be offered, or if the database does not answer.
func New(ctx context.Context, db *storage.DB, key secret.Key, cat *catalog.Catalog, c Config) (*Server, error) {
	names, err := origin.New(c.BaseURL, c.Hosts, c.Origins)
	if err != nil {
		return nil, err
	}
	c.BaseURL = strings.TrimSuffix(c.BaseURL, "/")
	clock := c.Now
	if clock == nil {
		clock = time.Now
	}
	// What is stored has milliseconds, so what is answered has no more.
	c.Now = func() time.Time { return clock().UTC().Truncate(time.Millisecond) }
	s := &Server{DB: db, now: c.Now}
	if s.Mail, err = integrations.NewMailer(c.Mail, c.BaseURL, key, c.Now); err != nil {
		return nil, err
	}
	s.Mail.IsMember = s.isMember
	guard := &webhook.Guard{Allow: c.WebhookNets}
	s.Webhooks = &webhook.Endpoints{Guard: guard, Sealer: key, Now: c.Now}
	s.Accounts = &integrations.Accounts{Store: db, Sealer: key, Network: integrations.Network{Guard: guard, Roots: c.Roots}}
	s.Desk = &admin.Desk{Store: db, InTx: storage.InTx[admin.Store](db), Webhooks: s.Webhooks, Mail: s.Mail, Accounts: s.Accounts, Now: c.Now, RefusalTime: refusalTime}
	s.Messages = &messages.Carrier{Store: db, InTx: storage.InTx[messages.Store](db), Accounts: s.Accounts, Mail: s.Mail, BaseURL: c.BaseURL, Now: c.Now}
	services := s.Desk.Services()
	maps.Copy(services, s.Messages.Services())
	s.Gate = &approvals.Gate{} // whose service is bound before it is complete
	services[catalog.RequestAccess] = s.Gate.RequestAccess
	if cat, err = cat.Bind(services); err != nil {
		return nil, err
	}
	s.Catalog = cat
	outgoing := s.Desk.Outgoing()
	maps.Copy(outgoing, s.Messages.Outgoing())
	*s.Gate = approvals.Gate{Store: db, InTx: storage.InTx[approvals.Store](db), Watch: db.Watch, Catalog: cat,
		Webhooks: s.Webhooks, Now: c.Now, BaseURL: c.BaseURL, Lookups: s.Desk.Lookups(), Outgoing: outgoing}
	s.Desk.Catalog, s.Desk.Gate = cat, s.Gate
	s.Messages.Catalog, s.Messages.Gate = cat, s.Gate
	address := proxies(c.Proxies).address
	s.OAuth, err = oauth.New(ctx, oauth.Config{
		Store: db, InTx: storage.InTx[oauth.Store](db), Sealer: key, Issuer: c.BaseURL, Origin: names, Now: c.Now,
		RoleRights: cat.RoleRights, CheckScopes: cat.CheckScopes, Cut: cat.Cut, DefaultCeiling: admin.DefaultCeiling(cat),
		Documents: guard.Client(documentTimeout), CheckURL: guard.CheckURL,
		Address: address, Rate: c.OAuthRate,
	})
	if err != nil {
		return nil, err
	}
	s.Auth = &access.Authenticator{Store: db, Tokens: s.OAuth.Verify, Now: c.Now}
	s.Limiter = &access.Limiter{Now: clock, Used: db.UsedSince, Meters: db.Meters()}
	s.Usage = &access.Usage{Store: db, Now: c.Now}

	api := &rest.API{Gate: s.Gate, Desk: s.Desk, Catalog: cat, Auth: s.Auth, Limiter: s.Limiter, Usage: s.Usage, Audit: db, Origin: names,
		BaseURL: c.BaseURL, Now: c.Now}
	s.mcp, err = mcp.New(mcp.Config{Catalog: cat, Gate: s.Gate, Authenticate: s.Auth.Authenticate, Limiter: s.Limiter, Usage: s.Usage,
		Watch: db.Watch, StateKey: key.Derive("mcp request state"), BaseURL: c.BaseURL, Origin: names, Version: c.Version, Now: c.Now})
	if err != nil {
		return nil, err
	}
	s.pages, err = web.New(web.Config{OAuth: s.OAuth, Desk: s.Desk, Admin: s.Desk, Gate: s.Gate, Catalog: cat, Sessions: db, BaseURL: c.BaseURL,
		Origin: names, Address: address, Mails: s.Mail.Sends(), Now: c.Now})
	if err != nil {
		return nil, err
	}
	s.handler = s.routes(api.Handler(), s.pages.Handler())

	deliverer := &webhook.Deliverer{Store: db, InTx: storage.InTx[webhook.Store](db), Guard: guard, Sealer: key, Now: c.Now, Version: c.Version}
	changed, unwatch := db.Watch(storage.JobsTopic)
	s.unwatch = unwatch
	kinds := map[string]jobs.Kind{
		webhook.Kind:              deliverer.Jobs(),
		approvals.ExpireKind:      {Handle: s.Gate.Expire},
		integrations.MailKind:     s.Mail.Jobs(),
		admin.NoticeKind:          s.Desk.Notices(),
		admin.IntegrationTestKind: s.Desk.IntegrationTests(),
		purgeKind:                 {Handle: s.purge, Workers: 1, Timeout: 10 * time.Minute},
	}
	maps.Copy(kinds, s.Messages.Jobs())
	s.runner = &jobs.Runner{Store: db, Now: c.Now, Changed: changed, Kinds: kinds}
	return s, nil
}

// Handler returns all that the server answers.
func (s *Server) Handler() http.Handler { return s.handler }

// isMember reports whether the user belongs to the workspace with the role.
func (s *Server) isMember(ctx context.Context, workspace, user string, role access.Role) (bool, error) {
	of, err := s.DB.Memberships(ctx, user)
	return slices.ContainsFunc(of, func(m access.Membership) bool { return m.Workspace.ID == workspace && m.Role == role }), err
}

// Work does the background work until ctx is done: jobs, usage counters,
// clean-up.
func (s *Server) Work(ctx context.Context) error {
	defer s.unwatch()
	if err := s.schedulePurge(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it had begun
		}
		return err
	}
	if err := s.Desk.StartNotices(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	if err := s.Messages.Start(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	var done sync.WaitGroup
	done.Go(func() { s.Usage.Run(ctx) })
	done.Go(func() { s.expectNotices(ctx) })
	err := s.runner.Run(ctx)
	done.Wait()
	return err
}

// noticesEvery is how often at most the server looks whether people are to be
// told of what was asked. They are told a minute after it.
const noticesEvery = time.Second

// expectNotices has people told of what is asked on any node, until ctx is done.
func (s *Server) expectNotices(ctx context.Context) {
	asked, stop := s.DB.Watch(approvals.Topic(""))
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
		}
		if err := s.Desk.ExpectNotices(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "notices of approvals wait for the next request", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(noticesEvery):
		}
	}
}

// shutdownTime is how long requests in flight may take after a stop.
const shutdownTime = 8 * time.Second

// Serve answers on l until ctx is done. Then it takes no more requests, lets
// those in flight finish, ends the background work and returns.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	worked := make(chan error, 1)
	go func() { worked <- s.Work(work) }()

	server := s.http()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	var err error
	select {
	case err = <-served:
	case err = <-worked:
		worked <- nil
	case <-ctx.Done():
	}
	s.mcp.Close()
	s.pages.Close()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if serr := server.Shutdown(grace); serr != nil {
		server.Close()
		err = errors.Join(err, fmt.Errorf("requests were cut off: %w", serr))
	}
	stopWork()
	return errors.Join(err, <-worked)
}

// http returns the HTTP server. Slow clients cost it a connection for a bounded
// time, and large headers bounded memory.
func (s *Server) http() *http.Server {
	return &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      75 * time.Second, // wait_for_approval takes up to 50
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
}

// purgeKind is the kind of the job that forgets what is old.
const purgeKind = "server.purge"

// refusalTime is more than checking a password and writing that it was wrong
// usually take.
const refusalTime = 100 * time.Millisecond

// documentTimeout is how long fetching a client's metadata document may take.
const documentTimeout = 5 * time.Second

// How long things are kept.
const (
	keepRequests = 30 * 24 * time.Hour // bodies of decided approvals, deliveries
	keepDeadJobs = 30 * 24 * time.Hour
	keepTokens   = 24 * time.Hour       // expired ones, so that their reuse is still noticed
	keepTallies  = 400 * 24 * time.Hour // more than a year of costs
	purgeEvery   = time.Hour

	keepInvitations = 30 * 24 * time.Hour // those that are over
)

func (s *Server) schedulePurge(ctx context.Context) error {
	now := s.now()
	j, err := jobs.New(now, "", purgeKind, purgeKind, struct{}{}, now.Add(time.Minute))
	if err != nil {
		return err
	}
	return s.DB.EnqueueJob(ctx, j)
}

// purge forgets what is old, changes the signing key when that is due, and
// comes back.
func (s *Server) purge(ctx context.Context, _ jobs.Job) error {
	now := s.now()
	if err := s.OAuth.RotateKeys(ctx); err != nil {
		return fmt.Errorf("rotate signing keys: %w", err)
	}
	for _, step := range []struct {
		what   string
		purge  func(context.Context, time.Time) (int64, error)
		before time.Time
	}{
		{"request bodies", s.DB.PurgeRequests, now.Add(-keepRequests)},
		{"deliveries", s.DB.PurgeDeliveries, now.Add(-keepRequests)},
		{"idempotency keys", s.DB.PurgeIdempotencyKeys, now.Add(-approvals.IdempotencyTTL)},
		{"answers of tasks", s.DB.PurgeTasks, now.Add(-approvals.TaskTTL)},
		{"dead jobs", s.DB.PurgeDeadJobs, now.Add(-keepDeadJobs)},
		{"OAuth clients without consent", s.DB.PurgeUnconsented, now.Add(-oauth.Unconsented)},
		{"unused OAuth clients", s.DB.PurgeClients, now.Add(-oauth.UnusedClients)},
		{"tokens", s.DB.PurgeTokens, now.Add(-keepTokens)},
		{"sessions", s.DB.PurgeSessions, now},
		{"tallies", s.DB.PurgeTallies, now.Add(-keepTallies)},
		{"links for a new password", s.DB.PurgeResetLinks, now},
		{"invitations", s.DB.PurgeInvitations, now.Add(-keepInvitations)},
		{"meters", func(ctx context.Context, _ time.Time) (int64, error) { return s.DB.PurgeMeters(ctx) }, now}, // by the database's clock
	} {
		total := int64(0)
		for n := int64(1); n > 0; total += n {
			var err error
			if n, err = step.purge(ctx, step.before); err != nil {
				return fmt.Errorf("purge %s: %w", step.what, err)
			}
		}
		if total > 0 {
			slog.InfoContext(ctx, "purged", "what", step.what, "rows", total)
		}
	}
	return jobs.Again(now.Add(purgeEvery))
}
