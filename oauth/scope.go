package oauth

import (
	"fmt"
	"slices"
	"strings"

	"trustpager/access"
)

// maxScope bounds a scope parameter, so that tokens fit into headers.
const maxScope = 4000

// A scopeSet is what a scope parameter asks for.
type scopeSet struct {
	coarse  bool
	offline bool
	fine    []access.Scope
}

// scopes reads a scope parameter. An empty one asks for the coarse scope.
func (s *Server) scopes(param string) (scopeSet, error) {
	var set scopeSet
	if len(param) > maxScope {
		return set, fmt.Errorf("it is longer than %d bytes", maxScope)
	}
	for name := range strings.FieldsSeq(param) {
		switch name {
		case access.ScopeWorkspace:
			set.coarse = true
		case access.ScopeOffline:
			set.offline = true
		default:
			scope, err := access.ParseScope(name)
			if err != nil {
				return set, err
			}
			set.fine = append(set.fine, scope)
		}
	}
	if err := s.CheckScopes(set.fine); err != nil {
		return set, err
	}
	if len(set.fine) == 0 {
		set.coarse = true
	}
	return set, nil
}

// String returns the set as it stands in tokens.
func (set scopeSet) String() string {
	var names []string
	if set.coarse {
		names = append(names, access.ScopeWorkspace)
	} else if len(set.fine) > 0 {
		names = append(names, access.FormatScopes(set.fine))
	}
	if set.offline {
		names = append(names, access.ScopeOffline)
	}
	return strings.Join(names, " ")
}

// narrow returns the scope that a refresh request asks for, if it is within the
// original one (RFC 6749 §6): names that it has, or rungs that give no more than
// it does.
func (s *Server) narrow(original, asked string) (string, error) {
	if strings.TrimSpace(asked) == "" {
		return original, nil
	}
	if len(asked) > maxScope {
		return "", fmt.Errorf("it is longer than %d bytes", maxScope)
	}
	has := strings.Fields(original)
	token := access.Token{Scope: original}
	rights := token.Rights()
	var names []string
	for name := range strings.FieldsSeq(asked) {
		if slices.Contains(names, name) {
			continue
		}
		if !slices.Contains(has, name) {
			scope, err := access.ParseScope(name)
			if err != nil {
				return "", err
			}
			if err := s.CheckScopes([]access.Scope{scope}); err != nil {
				return "", err
			}
			if !scope.Levels().Within(rights.Levels(scope.Resource)) {
				return "", fmt.Errorf("%s is more than was granted", scope)
			}
		}
		names = append(names, name)
	}
	return strings.Join(names, " "), nil
}
