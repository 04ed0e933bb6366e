// Package browsertest gives tests a headless Chromium.
package browsertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"trustpager/storage/storagetest"
)

// A Browser is a browser of one person, with a profile of its own.
type Browser struct {
	tb  testing.TB
	ctx context.Context

	blind bool // it was said that axe is missing

	loaded chan struct{} // holds one when a page has loaded

	mu       sync.Mutex
	requests []string // URLs that pages asked for
	faults   []string // what the console said of faults of pages
}

// A Step is something that a person does, or sees come.
type Step = chromedp.Action[chromedp.Void]

// patience is how long the steps of one call may take.
const patience = 30 * time.Second

// New starts a browser, which ends with the test. Without Chromium the test is
// skipped, or fails as storagetest.Require says.
func New(tb testing.TB) *Browser {
	tb.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		storagetest.Require(tb, "chromium, for pages as people see them")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(tb.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WindowSize(1280, 800))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium's sandbox does not start as root
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	tb.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	tb.Cleanup(cancel)
	b := &Browser{tb: tb, ctx: ctx, loaded: make(chan struct{}, 1)}
	if err := chromedp.Do(ctx); err != nil {
		tb.Fatalf("start the browser: %v", err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		tb.Fatalf("watch the network: %v", err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		tb.Fatalf("watch the log: %v", err)
	}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		tb.Fatalf("watch the pages: %v", err)
	}
	return b
}

func (b *Browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *page.EventLoadEventFired:
		select {
		case b.loaded <- struct{}{}:
		default:
		}
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *log.EventEntryAdded:
		// That a page is an error, or that the server stops, the tests know.
		if e.Entry.Source != log.EntrySourceNetwork || strings.Contains(e.Entry.URL, "/static/") {
			b.faults = append(b.faults, fmt.Sprintf("%s: %s (%s)", e.Entry.Level, e.Entry.Text, e.Entry.URL))
		}
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, fmt.Sprintf("exception: %s", e.ExceptionDetails.Text))
		if x := e.ExceptionDetails.Exception; x != nil {
			b.faults = append(b.faults, x.Description)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			fault := "console." + string(e.Type) + ":"
			for _, a := range e.Args {
				fault += " " + string(a.Value) + a.Description
			}
			b.faults = append(b.faults, fault)
		}
	}
}

// Do performs the steps. The test ends if one fails.
func (b *Browser) Do(steps ...Step) {
	b.tb.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.Shot("failed")
		b.tb.Fatalf("browser: %v\nat %s", err, b.URL())
	}
}

// Follow presses, one after the other, what the CSS selectors find, and waits
// each time for the page that it leads to.
func (b *Browser) Follow(selectors ...string) {
	b.tb.Helper()
	for _, s := range selectors {
		b.Do(See(s))
		select {
		case <-b.loaded: // an earlier page
		default:
		}
		b.Do(Press(s))
		select {
		case <-b.loaded:
		case <-time.After(patience):
			b.Shot("failed")
			b.tb.Fatalf("browser: %s led to no page, at %s", s, b.URL())
		}
	}
}

// Fill types into the field of the given name.
func Fill(name, text string) Step {
	return chromedp.SendKeys(chromedp.CSS(`[name="`+name+`"]`), text)
}

// Press clicks what the CSS selector finds.
func Press(selector string) Step { return chromedp.Click(chromedp.CSS(selector)) }

// See waits until what the CSS selector finds is visible.
func See(selector string) Step { return chromedp.WaitVisible(chromedp.CSS(selector)) }

// Leave waits until what the CSS selector found is gone.
func Leave(selector string) Step { return chromedp.WaitNotPresent(chromedp.CSS(selector)) }

// Open goes to the URL and waits for the page.
func Open(url string) Step { return chromedp.Navigate(url) }

// Get returns what the action finds. The test ends if it fails.
func Get[T any](b *Browser, action chromedp.Action[T]) T {
	b.tb.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		b.tb.Fatalf("browser: %v", err)
	}
	return v
}

// URL returns where the browser is.
func (b *Browser) URL() string {
	b.tb.Helper()
	return Get(b, chromedp.Location())
}

// Text returns what a person reads of what the CSS selector finds.
func (b *Browser) Text(selector string) string {
	b.tb.Helper()
	return Get(b, chromedp.Text(chromedp.CSS(selector)))
}

// Console returns what the console has said of faults since the last call.
func (b *Browser) Console() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	faults := b.faults
	b.faults = nil
	return faults
}

// Behaved is an error if a page has asked for something that does not begin
// with one of the origins, or if the console tells of a fault. It is about all
// that was seen since the last call.
func (b *Browser) Behaved(origins ...string) {
	b.tb.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, asked := range b.requests {
		if !slices.ContainsFunc(append(origins, "data:"), func(o string) bool { return strings.HasPrefix(asked, o) }) {
			b.tb.Errorf("a page asked for %s", asked)
		}
	}
	for _, fault := range b.faults {
		b.tb.Errorf("the console says: %s", fault)
	}
	b.requests, b.faults = nil, nil
}

// Dark makes the pages believe in a dark or a light room.
func (b *Browser) Dark(dark bool) {
	b.tb.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		b.tb.Fatalf("browser: %v", err)
	}
}

// Scripts lets pages run scripts, as they do at first, or keeps them from it.
func (b *Browser) Scripts(run bool) {
	b.tb.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !run}); err != nil {
		b.tb.Fatalf("switch scripts: %v", err)
	}
}

// Size makes the window so large, in CSS pixels.
func (b *Browser) Size(width, height int64) {
	b.tb.Helper()
	b.Do(chromedp.EmulateViewport(width, height))
}

// Shot writes a picture of what is seen in the window, if
// TRUSTPAGER_TEST_SCREENSHOTS names a directory.
func (b *Browser) Shot(name string) {
	dir := os.Getenv("TRUSTPAGER_TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := b.picture()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.tb.Logf("screenshot %s: %v", name, err)
	}
}

// Picture returns a picture of what is seen in the window, as PNG.
func (b *Browser) Picture() []byte {
	b.tb.Helper()
	png, err := b.picture()
	if err != nil {
		b.tb.Fatalf("browser: %v", err)
	}
	return png
}

func (b *Browser) picture() ([]byte, error) { return chromedp.Run(b.ctx, chromedp.CaptureScreenshot()) }
