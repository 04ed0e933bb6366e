package mcp

import (
	"slices"
	"testing"

	"trustpager/server/conformance"
)

// Every scenario that the official conformance suite has for servers, at each
// version, against the gate with what the suite calls behind it.
func TestConformance(t *testing.T) {
	const skills = "skills are another extension, which the server does not have: what agents may do are the catalog's actions"
	want := conformance.Expectation{
		Failures: "testdata/expected-failures.yml",
		Skipped: map[string]string{
			"server-session-lifecycle":   "there are no sessions, and the suite sees that",
			"tasks-status-notifications": "the suite has not written it yet; see TestListenFollowsTasks",
			"server-stateless:sep-2575-server-sends-prompts-list-changed-on-subscription": "the server does not say that it tells of changed prompts, as they change with the rights alone",
			"sep-2640-skills-directory":   skills,
			"sep-2640-skills-enumeration": skills,
			"sep-2640-skills-manifest":    skills,
		},
		Passing: map[string]int{"server-stateless": 29, "caching": 7, "http-header-validation": 13, "http-custom-header-server-validation": 9, "tasks-lifecycle": 8},
	}
	for _, sc := range conformance.Scenarios(t) {
		for _, version := range []string{"2025-11-25", "2026-07-28", conformance.Extension} {
			if !slices.Contains(sc.Versions, version) {
				continue
			}
			t.Run(version+"/"+sc.Name, func(t *testing.T) {
				t.Parallel()
				want.Run(t, conformance.Bearing(t, newFixture(t), fixtureToken)+"/mcp", version, sc.Name)
			})
		}
	}
}
