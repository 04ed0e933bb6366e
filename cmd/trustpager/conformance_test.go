package main

import (
	"testing"

	"trustpager/server/conformance"
	"trustpager/storage/storagetest"
)

// scenarios are those of the official conformance suite that a product can be
// held to, by the protocol version at which they run. The others call tools and
// prompts that only a test server has: TestConformance in package mcp runs them all.
var scenarios = map[string][]string{
	"2025-11-25": {
		"server-initialize", "ping", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection", // server-sse-multiple-streams wants a session there
	},
	"2026-07-28": {
		"server-stateless", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection", "caching", "http-header-validation",
		"sep-2164-resource-not-found", "server-sse-multiple-streams", "input-required-result-unsupported-methods",
		"input-required-result-ignore-extra-params",
	},
}

// The official conformance suite against the MCP server, with full access.
func TestConformanceServer(t *testing.T) {
	conformance.Node(t)
	want := conformance.Expectation{
		Failures: "testdata/npm/expected-failures.yml",
		Skipped: map[string]string{
			"server-stateless:sep-2575-server-sends-prompts-list-changed-on-subscription": "the server does not say that it tells of changed prompts, as they change with the rights alone",
		},
		Passing: map[string]int{"server-stateless": 20, "caching": 7, "http-header-validation": 13},
	}
	storagetest.EachURL(t, func(t *testing.T, db string) {
		p := demo(t, db)
		target := conformance.Bearing(t, p.info.BaseURL, p.info.Keys.FullAccess) + "/mcp"
		for version, names := range scenarios {
			for _, name := range names {
				t.Run(version+"/"+name, func(t *testing.T) { want.Run(t, target, version, name) })
			}
		}
	})
}
