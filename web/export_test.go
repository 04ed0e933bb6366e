package web

import (
	"maps"
	"slices"
)

// Patterns returns the patterns of all pages.
func Patterns() []string { return slices.Sorted(maps.Keys((&Pages{}).routes())) }
