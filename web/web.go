// Package web is the pages that people see.
package web

import (
	"embed"
	"html/template"
	"net/http"
	"regexp"
)

//go:embed *.html
var files embed.FS

var pages = template.Must(template.ParseFS(files, "*.html"))

// Handler returns the pages. There is one so far: where the url of an approval
// leads. It tells how to decide from the terminal or over the API, and shows
// nothing of the workspace, for nobody is logged in.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /settings/api", func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("approval")
		if !approvalID.MatchString(id) {
			id = ""
		}
		render(w, http.StatusOK, "approval.html", id)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { render(w, http.StatusOK, "approval.html", "") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { render(w, http.StatusNotFound, "missing.html", nil) })
	return mux
}

var approvalID = regexp.MustCompile(`^apr_[0-9a-z]{26}$`)

func render(w http.ResponseWriter, status int, page string, data any) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	pages.ExecuteTemplate(w, page, data) // fails only if the client has gone
}
