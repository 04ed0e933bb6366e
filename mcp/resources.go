package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"trustpager/access"
	"trustpager/approvals"
	"trustpager/catalog"
	"trustpager/problem"
	"trustpager/typeid"
	"trustpager/unseen"
)

// scheme begins the URIs of all resources: trustpager://contacts is the newest
// contacts, trustpager://contacts/{id} one of them.
const scheme = "trustpager://"

// mimeJSON is the type of what every resource holds: what its tool answers.
const mimeJSON = "application/json"

// maxURI is how many bytes a URI may have.
const maxURI = 2000

// A kind is a resource of the catalog that can be read by URI. What it lacks is
// nil.
type kind struct {
	resource *catalog.Resource
	all      *tool // answers trustpager://contacts, without arguments
	one      *tool // answers trustpager://contacts/{id}

	listed   []byte // the entry of resources/list
	template []byte // the entry of resources/templates/list
}

// addKinds finds the kinds that can be read by URI. It fails if one of them
// could not be listed as it should.
func (s *Server) addKinds() error {
	for _, r := range s.Catalog.Resources() {
		k := &kind{resource: r}
		for _, a := range s.Catalog.ActionsOf(r.Name) {
			switch {
			case a.Verb != access.Read:
			case a.Path == "/"+r.Name:
				k.all = s.byName[a.Name]
			case a.Path == "/"+r.Name+"/{id}" && r.Prefix != "":
				k.one = s.byName[a.Name]
			}
		}
		noun := strings.ReplaceAll(r.Singular, "-", " ")
		var err error
		if t := k.all; t != nil {
			what := r.Description
			if t.action.Op == catalog.OpList {
				order := "first"
				if r.Keeps {
					order = "newest"
				}
				what = fmt.Sprintf("The %s %d. %s", order, pageSize, what)
			}
			if k.listed, err = encodeEntry(mcpgo.NewResource(scheme+r.Name, r.Name, mcpgo.WithResourceTitle(r.Label),
				mcpgo.WithResourceDescription(what+" As "+t.name+" answers."), mcpgo.WithMIMEType(mimeJSON))); err != nil {
				return fmt.Errorf("resource %s: %w", r.Name, err)
			}
		}
		if t := k.one; t != nil {
			title := strings.ToUpper(noun[:1]) + noun[1:]
			if k.template, err = encodeEntry(mcpgo.NewResourceTemplate(scheme+r.Name+"/{id}", r.Singular, mcpgo.WithTemplateTitle(title),
				mcpgo.WithTemplateDescription("One "+noun+", as "+t.name+" answers."), mcpgo.WithTemplateMIMEType(mimeJSON))); err != nil {
				return fmt.Errorf("template of %s: %w", r.Name, err)
			}
		}
		if k.all != nil || k.one != nil {
			s.kinds = append(s.kinds, k)
		}
	}
	return nil
}

// pageSize is how many records a list has unless asked otherwise.
const pageSize = 25

// encodeEntry returns the entry of a list, encoded, and refuses hidden
// characters in it.
func encodeEntry(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return b, lint(b)
}

// kindOf returns the kind of the name, nil if there is none.
func (s *Server) kindOf(name string) *kind {
	for _, k := range s.kinds {
		if k.resource.Name == name {
			return k
		}
	}
	return nil
}

// readable reports whether the caller may read with the tool, which may be nil.
func (s *Server) readable(c *call, t *tool) bool {
	return t != nil && s.level(c.grant, c.selection.whole(), t) == access.Run
}

// addReads makes the resources, prompts and completions, and the server of
// mcp-go's that answers for them. It has one template that takes every URI:
// what there is depends on the caller, of whom mcp-go's own lists know nothing.
func (s *Server) addReads() error {
	if err := s.addKinds(); err != nil {
		return err
	}
	hooks := &server.Hooks{}
	hooks.AddOnError(s.misread)
	s.reads, s.readsHTTP = s.newServer(append(s.identity(), server.WithHooks(hooks),
		server.WithResourceCompletionProvider(completions{s}), server.WithPromptCompletionProvider(completions{s}))...)
	s.reads.AddResourceTemplate(mcpgo.NewResourceTemplate(scheme+"{+path}", "any"), func(ctx context.Context, r mcpgo.ReadResourceRequest) (contents []mcpgo.ResourceContents, err error) {
		err = guarded(ctx, func(c *call) error {
			text, err := s.resource(ctx, c, r.Params.URI)
			contents = []mcpgo.ResourceContents{mcpgo.TextResourceContents{URI: r.Params.URI, MIMEType: mimeJSON, Text: text}}
			return err
		})
		return contents, err
	})
	return s.addPrompts(s.reads)
}

// guarded runs what mcp-go has called for a request. mcp-go has one code for
// all errors and tells their text, so the error is kept for [Server.read], as
// a panic is, of which the caller learns no more than that.
func guarded(ctx context.Context, run func(c *call) error) error {
	c := callFrom(ctx)
	if c == nil {
		return errNoCall
	}
	func() {
		defer func() {
			if p := recover(); p != nil {
				c.failed = panicked(c.method, p)
			}
		}()
		c.failed = run(c)
	}()
	return c.failed
}

// misread is told of every error that mcp-go answers with, and puts into words
// what did not come from here.
func (s *Server) misread(ctx context.Context, _ any, method mcpgo.MCPMethod, message any, err error) {
	c := callFrom(ctx)
	if c == nil || c.failed != nil {
		return
	}
	unreadable := func(fix string) error {
		return problem.Errorf(problem.Validation, "the params of %s cannot be read", method).WithFix("%s", fix)
	}
	switch method {
	case methodResourcesRead:
		c.failed = unreadable(`Send {"uri": "` + scheme + `contacts"}, or another URI of resources/list.`)
		if r, ok := message.(*mcpgo.ReadResourceRequest); ok && errors.Is(err, server.ErrResourceNotFound) && r.Params.URI != "" {
			c.failed = noResource(r.Params.URI)
		}
	case methodPromptsGet:
		c.failed = unreadable(`Send {"name": …, "arguments": {…}}; every argument is a text.`)
		if r, ok := message.(*mcpgo.GetPromptRequest); ok && errors.Is(err, server.ErrPromptNotFound) {
			c.failed = s.noPrompt(c, r.Params.Name)
		}
	case methodComplete:
		c.failed = unreadable(`Send ref as {"type": "ref/resource", "uri": "` + scheme + `contacts/{id}"} or {"type": "ref/prompt", "name": …}, and argument as {"name": …, "value": …}.`)
	}
}

// listReads answers the lists of resources, templates and prompts.
func (s *Server) listReads(w http.ResponseWriter, r *http.Request, c *call, body []byte) error {
	switch c.method {
	case methodResourcesList:
		return s.splice(w, r, c, body, "resources", func(yield func([]byte) bool) {
			for _, k := range s.kinds {
				if s.readable(c, k.all) && !yield(k.listed) {
					return
				}
			}
		})
	case methodTemplatesList:
		return s.splice(w, r, c, body, "resourceTemplates", func(yield func([]byte) bool) {
			for _, k := range s.kinds {
				if s.readable(c, k.one) && !yield(k.template) {
					return
				}
			}
		})
	}
	return s.splice(w, r, c, body, "prompts", func(yield func([]byte) bool) {
		for _, p := range s.prompts {
			if b := s.listedPrompt(c, p); b != nil && !yield(b) {
				return
			}
		}
	})
}

// read answers what reads a resource, makes a prompt or completes a word: with
// mcp-go's answer, or with the error that there was, for which mcp-go has no
// code of its own.
func (s *Server) read(w http.ResponseWriter, r *http.Request, c *call, body []byte) error {
	if c.longURI { // mcp-go would match it against a pattern, for seconds
		return problem.Errorf(problem.Validation, "uri is longer than %d bytes", maxURI).WithFix("resources/list and resources/templates/list say what there is.")
	}
	rec := &recorder{header: w.Header(), status: http.StatusOK}
	s.readsHTTP.ServeHTTP(rec, forward(r, body))
	if c.failed == nil {
		w.WriteHeader(rec.status)
		w.Write(rec.body.Bytes()) // fails only if the client has gone
		return nil
	}
	c.outcome = outcomeOf(c.failed)
	e := problem.Report(r.Context(), c.failed)
	data, _ := json.Marshal(e) // cannot fail: e holds only strings
	code, status := e.Code(), http.StatusOK
	if missing, ok := errors.AsType[*unknownURI](c.failed); ok {
		if uri, _ := json.Marshal(missing.uri); !strings.ContainsFunc(missing.uri, unseen.Hidden) {
			data = append(append(data[:len(data)-1], `,"uri":`...), append(uri, '}')...)
		}
		if !c.client.modern {
			code = mcpgo.RESOURCE_NOT_FOUND
		}
	}
	if c.client.modern && code == mcpgo.INVALID_PARAMS {
		status = http.StatusBadRequest
	}
	(&fault{status, code, withFix(e), json.RawMessage(data)}).write(w, c.id)
	return nil
}

// An unknownURI is the error for a URI at which the caller finds nothing.
type unknownURI struct {
	uri string
	err error
}

func (e *unknownURI) Error() string { return e.err.Error() }
func (e *unknownURI) Unwrap() error { return e.err }

// noResource is told of every URI at which the caller finds nothing, whether
// there is nothing or they may not read it.
func noResource(uri string) error {
	return &unknownURI{uri, problem.Errorf(problem.NotFound, "there is no resource %q", shown(uri)).
		WithFix("resources/list and resources/templates/list say what there is.")}
}

// shown returns what a caller has sent as it can be told back: short, and with
// hidden characters as code points.
func shown(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return unseen.Text(strings.ToValidUTF8(s, "\uFFFD"))
}

// resource returns what stands at the URI. It is read as the tool of the kind
// reads it.
func (s *Server) resource(ctx context.Context, c *call, uri string) (string, error) {
	name, id, item := strings.Cut(strings.TrimPrefix(uri, scheme), "/")
	k := s.kindOf(name)
	if k == nil || !strings.HasPrefix(uri, scheme) || item && !typeid.ValidID(k.resource.Prefix, id) {
		return "", noResource(uri)
	}
	t := k.all
	if item {
		t = k.one
	}
	if !s.readable(c, t) {
		return "", noResource(uri)
	}
	c.tool = t
	r, err := s.fetch(ctx, c, t, id, "{}")
	if problem.Is(err, problem.NotFound) {
		return "", noResource(uri)
	}
	if err != nil {
		return "", err
	}
	return string(resultAnswer(t, r).structured), nil
}

// fetch reads with the tool, as the caller who may.
func (s *Server) fetch(ctx context.Context, c *call, t *tool, id, input string) (catalog.Result, error) {
	out, err := s.Gate.Do(ctx, c.grant, t.action, approvals.Incoming{
		ID:      id,
		Input:   json.RawMessage(input),
		Request: approvals.Request{Door: "mcp", Tool: t.name},
	})
	if err == nil && out.Approval != nil {
		err = problem.Errorf(problem.Forbidden, "%s waits for approval", t.name).WithFix("Call the tool %s.", t.name)
	}
	return out.Result, err
}
