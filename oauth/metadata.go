package oauth

import (
	"net/http"
	"strings"

	"trustpager/access"
	"trustpager/typeid"
)

// The well-known paths (RFC 8414 §3, OpenID Connect Discovery §4, RFC 9728 §3).
const (
	metadataPath = "/.well-known/oauth-authorization-server"
	openIDPath   = "/.well-known/openid-configuration"
	resourcePath = "/.well-known/oauth-protected-resource"
)

// serverMetadata is the metadata of the authorization server (RFC 8414 §2).
// Empty members are left out: nulls break clients.
type serverMetadata struct {
	Issuer                   string   `json:"issuer"`
	AuthorizationEndpoint    string   `json:"authorization_endpoint"`
	TokenEndpoint            string   `json:"token_endpoint"`
	RegistrationEndpoint     string   `json:"registration_endpoint"`
	RevocationEndpoint       string   `json:"revocation_endpoint"`
	IntrospectionEndpoint    string   `json:"introspection_endpoint"`
	JWKSURI                  string   `json:"jwks_uri"`
	Scopes                   []string `json:"scopes_supported"`
	ResponseTypes            []string `json:"response_types_supported"`
	ResponseModes            []string `json:"response_modes_supported"`
	GrantTypes               []string `json:"grant_types_supported"`
	TokenAuthMethods         []string `json:"token_endpoint_auth_methods_supported"`
	RevocationAuthMethods    []string `json:"revocation_endpoint_auth_methods_supported"`
	IntrospectionAuthMethods []string `json:"introspection_endpoint_auth_methods_supported"`
	CodeChallengeMethods     []string `json:"code_challenge_methods_supported"`
	ClientIDMetadataDocument bool     `json:"client_id_metadata_document_supported"`
	AuthorizationResponseIss bool     `json:"authorization_response_iss_parameter_supported"`
	SubjectTypes             []string `json:"subject_types_supported,omitempty"`
	IDTokenSigningAlgorithms []string `json:"id_token_signing_alg_values_supported,omitempty"`
}

func (s *Server) serverMetadata() serverMetadata {
	return serverMetadata{
		Issuer:                   s.Issuer,
		AuthorizationEndpoint:    s.Issuer + AuthorizePath,
		TokenEndpoint:            s.Issuer + TokenPath,
		RegistrationEndpoint:     s.Issuer + RegisterPath,
		RevocationEndpoint:       s.Issuer + RevokePath,
		IntrospectionEndpoint:    s.Issuer + IntrospectPath,
		JWKSURI:                  s.Issuer + KeysPath,
		Scopes:                   []string{access.ScopeWorkspace, access.ScopeOffline},
		ResponseTypes:            []string{"code"},
		ResponseModes:            []string{"query"},
		GrantTypes:               []string{GrantCode, GrantRefresh, GrantCredentials},
		TokenAuthMethods:         []string{AuthNone, AuthBasic, AuthPost},
		RevocationAuthMethods:    []string{AuthNone, AuthBasic, AuthPost},
		IntrospectionAuthMethods: []string{AuthBasic, AuthPost},
		CodeChallengeMethods:     []string{"S256"},
		ClientIDMetadataDocument: true,
		AuthorizationResponseIss: true,
	}
}

// metadata answers with the metadata of the authorization server.
func (s *Server) metadata(r *http.Request) (any, error) {
	if err := checkWorkspace(r); err != nil {
		return nil, err
	}
	return s.serverMetadata(), nil
}

// openIDMetadata answers clients that look where OpenID providers have theirs.
// This is none, and issues no ID tokens; but clients do not take a document
// there without these members.
func (s *Server) openIDMetadata(r *http.Request) (any, error) {
	if err := checkWorkspace(r); err != nil {
		return nil, err
	}
	m := s.serverMetadata()
	m.SubjectTypes, m.IDTokenSigningAlgorithms = []string{"public"}, []string{"EdDSA"}
	return m, nil
}

// resourceMetadata answers with the metadata of a protected resource (RFC 9728
// §2). The form without a suffix describes the origin, as RFC 9728 §3.3 has it:
// the resource must be the one whose path is inserted, and clients refuse any
// other. The Go SDK compares the two, byte for byte; the npm SDK takes one that
// the endpoint's URL begins with. A client that knows the URL of the MCP
// endpoint looks at the suffixed form, which a 401 names and which always
// exists, before it would come to this one.
func (s *Server) resourceMetadata(r *http.Request) (any, error) {
	if err := checkWorkspace(r); err != nil {
		return nil, err
	}
	return struct {
		Resource             string   `json:"resource"`
		Name                 string   `json:"resource_name"`
		AuthorizationServers []string `json:"authorization_servers"`
		Scopes               []string `json:"scopes_supported"`
		BearerMethods        []string `json:"bearer_methods_supported"`
	}{
		s.Issuer + strings.TrimPrefix(r.URL.Path, resourcePath), "TrustPager",
		[]string{s.Issuer}, []string{access.ScopeWorkspace}, []string{"header"},
	}, nil
}

// checkWorkspace refuses a path with something else than a workspace's id.
func checkWorkspace(r *http.Request) error {
	if w := r.PathValue("workspace"); w != "" && !typeid.ValidID("ws", w) {
		return &refusal{status: http.StatusNotFound, code: codeInvalidRequest, description: "There is nothing here"}
	}
	return nil
}
