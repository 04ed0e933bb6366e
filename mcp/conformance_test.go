package mcp

import (
	"slices"
	"testing"

	"trustpager/server/conformance"
)

// Every scenario that the official conformance suite has for servers, at each
// version, against the gate with what the suite calls behind it.
func TestConformance(t *testing.T) {
	want := conformance.Expectation{Failures: "testdata/expected-failures.yml"}
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
