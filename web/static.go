package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"time"
)

//go:embed static
var staticFiles embed.FS

// staticVersion names what is in the directory by its content, so that browsers
// may keep it for good. It stands in the path, so that modules find each other.
var staticVersion = func() string {
	sum := sha256.New()
	err := fs.WalkDir(staticFiles, "static", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := staticFiles.ReadFile(name)
		sum.Write([]byte(name))
		sum.Write(b)
		return err
	})
	if err != nil {
		panic(err) // the program does not hold its own files
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}()

// staticPath returns where the browser finds the file.
func staticPath(name string) string { return "/static/" + staticVersion + "/" + name }

func static(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	b, err := staticFiles.ReadFile("static/" + name)
	if err != nil || r.PathValue("version") != staticVersion {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

// icon serves the icon at an address that stays, for programs that show it
// beside what they do here.
func icon(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := staticFiles.ReadFile("static/" + name)
		if err != nil {
			panic(err) // the program does not hold its own files
		}
		w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
		w.Header().Set("Cache-Control", "public, max-age=86400")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}
