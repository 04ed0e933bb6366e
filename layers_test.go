package trustpager_test

import (
	"os/exec"
	"strings"
	"testing"
)

// layers lists the packages from the bottom up. Each imports only packages
// that stand below its own line. Tests may import what they like.
var layers = [][]string{
	{"problem", "secret", "typeid", "unseen"},
	{"strictjson", "origin"},
	{"audit", "jobs"},
	{"access", "webhook", "integrations"},
	{"catalog", "oauth"},
	{"approvals"},
	{"admin"},
	{"storage", "rest", "mcp", "web"},
	{"storage/storagetest", "server"},
	{"server/servertest", "server/browsertest"},
	{"cmd/trustpager"},
}

func TestImportsPointDown(t *testing.T) {
	rank := map[string]int{}
	for i, layer := range layers {
		for _, pkg := range layer {
			rank[pkg] = i
		}
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg, ok := strings.CutPrefix(f[0], "trustpager/")
		if !ok {
			continue // the root, which holds only this test
		}
		if _, ok := rank[pkg]; !ok {
			t.Errorf("package %s is in no layer", pkg)
		}
		for _, imp := range f[1:] {
			imp, ok := strings.CutPrefix(imp, "trustpager/")
			if ok && rank[imp] >= rank[pkg] {
				t.Errorf("%s imports %s, which is not below it", pkg, imp)
			}
		}
	}
}

// Only storage may speak SQL: no other package of the program imports a driver
// or database/sql.
func TestOnlyStorageKnowsSQL(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if strings.HasPrefix(f[0], "trustpager/storage") {
			continue
		}
		for _, imp := range f[1:] {
			if strings.HasPrefix(imp, "database/sql") || strings.Contains(imp, "/pgx/") || strings.Contains(imp, "modernc.org/sqlite") {
				t.Errorf("%s imports %s", f[0], imp)
			}
		}
	}
}
