package browsertest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"trustpager/storage/storagetest"
)

// Sizes of windows, in CSS pixels: of a desk and of a phone.
var (
	Desk  = [2]int64{1280, 900}
	Phone = [2]int64{390, 844}
)

// looked holds the names of the pages that were looked at.
var looked sync.Map

// sideways reports whether the page is wider than the window.
const sideways = `document.documentElement.scrollWidth > innerWidth`

// Look looks at the page in light and dark, on a desk and on a phone: it takes
// pictures, and it is an error if the page is wider than the window, or if axe
// finds something that keeps people out (WCAG 2.2 A and AA, and best practices),
// once on a desk in light and once on a phone in dark.
// also is called for each. A page of the same name is looked at once in a run of
// the tests: it looks the same on every database, and under the race detector
// (short tests) too, which needs all the time there is.
func (b *Browser) Look(name string, also ...func(window string)) {
	b.tb.Helper()
	if _, again := looked.LoadOrStore(name, true); again || testing.Short() {
		return
	}
	for _, dark := range []bool{false, true} {
		b.Dark(dark)
		for _, size := range [][2]int64{Desk, Phone} {
			b.Size(size[0], size[1])
			window := fmt.Sprintf("%s-%d-dark=%v", name, size[0], dark)
			b.Shot(window)
			if Get(b, chromedp.Evaluate[bool](sideways)) {
				b.tb.Errorf("%s: the page is wider than the window", window)
			}
			if dark == (size == Phone) { // each colour and each width once
				b.access(window)
			}
			for _, f := range also {
				f(window)
			}
		}
	}
	b.Dark(false)
	b.Size(Desk[0], Desk[1])
}

// axe returns the source of axe-core, "" if it is not installed. It is found
// from the directory of a package of this module.
var axe = sync.OnceValue(func() string {
	source, err := os.ReadFile(filepath.Join("..", "cmd", "trustpager", "testdata", "npm", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		return ""
	}
	return string(source)
})

// A violation is a rule of axe that a page breaks.
type violation struct {
	ID, Help string
	Nodes    []struct {
		HTML           string
		FailureSummary string
	}
}

// access refuses a page that keeps people out.
func (b *Browser) access(window string) {
	b.tb.Helper()
	if axe() == "" {
		if !b.blind {
			b.blind = true
			storagetest.Lacks(b.tb, "axe-core, for pages that everybody can use; npm ci in cmd/trustpager/testdata/npm installs it")
		}
		return
	}
	found := Get(b, chromedp.Evaluate[string](axe()+`;
		axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], resultTypes: ['violations']})
			.then(r => JSON.stringify(r.violations))`, chromedp.EvalAwaitPromise))
	var violations []violation
	if err := json.Unmarshal([]byte(found), &violations); err != nil {
		b.tb.Fatalf("axe: %v in %.200s", err, found)
	}
	for _, v := range violations {
		for _, n := range v.Nodes {
			b.tb.Errorf("%s: %s (%s): %.300s\n%s", window, v.Help, v.ID, n.HTML, strings.TrimSpace(n.FailureSummary))
		}
	}
}
