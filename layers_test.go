package trustpager_test

import (
	"errors"
	"go/build"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// layers lists the packages from the bottom up. Each imports only packages
// that stand below its own line. Tests may import what they like.
var layers = [][]string{
	{"problem", "secret", "typeid", "unseen"},
	{"strictjson", "origin", "bridge"},
	{"audit", "jobs"},
	{"access", "webhook"},
	{"catalog", "oauth", "integrations"},
	{"approvals"},
	{"messages", "admin"},
	{"storage", "rest", "mcp", "web"},
	{"storage/storagetest", "server", "jobs/jobstest", "integrations/integrationstest"},
	{"server/servertest", "server/browsertest", "server/conformance"},
	{"cmd/trustpager"},
}

// imports returns what each package of the program imports. It reads the files
// itself, so that the result of a test is not remembered when they change.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	of := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); path != "." && (name == "testdata" || strings.HasPrefix(name, ".")) {
			return filepath.SkipDir
		}
		pkg, err := build.ImportDir(path, 0)
		if _, none := errors.AsType[*build.NoGoError](err); none {
			return nil
		}
		of[filepath.ToSlash(path)] = pkg.Imports
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return of
}

func TestImportsPointDown(t *testing.T) {
	rank := map[string]int{}
	for i, layer := range layers {
		for _, pkg := range layer {
			rank[pkg] = i
		}
	}
	seen := imports(t)
	for pkg, imported := range seen {
		if pkg == "." {
			continue // the root, which holds only this test
		}
		if _, ok := rank[pkg]; !ok {
			t.Errorf("package %s is in no layer", pkg)
		}
		for _, imp := range imported {
			imp, ok := strings.CutPrefix(imp, "trustpager/")
			if ok && rank[imp] >= rank[pkg] {
				t.Errorf("%s imports %s, which is not below it", pkg, imp)
			}
		}
	}
	for pkg := range rank {
		if seen[pkg] == nil {
			t.Errorf("there is no package %s", pkg)
		}
	}
}

// Only storage may speak SQL: no other package of the program imports a driver
// or database/sql.
func TestOnlyStorageKnowsSQL(t *testing.T) {
	for pkg, imported := range imports(t) {
		if pkg == "storage" || strings.HasPrefix(pkg, "storage/") {
			continue
		}
		for _, imp := range imported {
			if strings.HasPrefix(imp, "database/sql") || strings.Contains(imp, "/pgx/") || strings.Contains(imp, "modernc.org/sqlite") {
				t.Errorf("%s imports %s", pkg, imp)
			}
		}
	}
}
