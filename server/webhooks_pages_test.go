package server_test

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"trustpager/admin"
	"trustpager/server/browsertest"
	"trustpager/server/servertest"
	"trustpager/storage/storagetest"
)

// keyWith is a key of that name with the scopes.
func keyWith(scopes ...string) admin.KeyInput {
	return admin.KeyInput{Name: new("Warehouse"), Scopes: &scopes}
}

// tickEvent ticks or unticks the event in the form of a webhook.
func tickEvent(event string) browsertest.Step {
	return browsertest.Press(`input[name=events][value="` + event + `"]`)
}

// empty clears the field of the name.
func empty(name string) browsertest.Step {
	return chromedp.Clear(chromedp.CSS(`[name="` + name + `"]`))
}

// An admin adds a webhook, sees what it is told, changes and tests it, takes over
// another that is told nothing any more, and deletes it.
func TestWebhooksOnPages(t *testing.T) {
	storagetest.EachURL(t, func(t *testing.T, db string) {
		s := servertest.New(t, db, servertest.Options{Work: true})
		addAdmin(t, s)
		hook := servertest.NewReceiver(t)
		b := browsertest.New(t)
		logIn(b, s, "robin@example.com", "/settings/webhooks")
		b.Do(browsertest.See("main h2"))
		b.Look("webhooks-empty")
		b.Follow(`.side a[href="/settings/webhooks"]`, `main a[href="/settings/webhooks/new"]`)
		b.Look("webhook-new")

		// What cannot be saved says why, and keeps what was typed.
		b.Do(browsertest.Fill("url", "https://10.0.0.1/events"), browsertest.Fill("description", "Data warehouse"))
		b.Do(tickEvent("contacts.created"), tickEvent("contacts.updated"), tickEvent("contacts.deleted"), tickEvent("deals.created"), tickEvent("approval.rejected"))
		b.Do(browsertest.Press("main button.primary"), browsertest.See(".error"))
		if got := b.Text(".error"); !strings.Contains(got, "private address") {
			t.Errorf("a private address: got %q", got)
		}
		b.Look("webhook-wrong")
		b.Do(empty("url"), browsertest.Fill("url", hook.URL+"/events"))
		b.Follow("main button.primary")
		secret := b.Text("#webhook-secret")
		b.Look("webhook-added")
		b.Follow(`main p a[href^="/settings/webhooks/"]`)
		if got := b.Text("main"); !strings.Contains(got, "Robin Hale, that is you") {
			t.Errorf("the webhook: got %q", got)
		}
		b.Look("webhook-one")

		s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Ada"}`).Want(t, 201)
		if got, _ := verified(t, hook.Next(), secret); got != "contacts.created" {
			t.Errorf("got %s, want contacts.created", got)
		}
		list := s.Do("GET", "/v1/webhooks", s.Full, "").Want(t, 200)
		if got := list.Text("data.0.events.0") + " " + list.Text("data.0.events.1") + " " + list.Text("data.0.events.2"); got != "approval.rejected contacts.* deals.created" {
			t.Errorf("events: got %s", list.Body)
		}

		// Other events, and off.
		b.Do(tickEvent("contacts.deleted"), browsertest.Press(`input[name=active]`))
		b.Follow("main .actions button.primary")
		b.Do(browsertest.See(".notice.good"))
		s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Untold"}`).Want(t, 201)
		b.Do(browsertest.Press(`input[name=active]`))
		b.Follow("main .actions button.primary")
		b.Do(browsertest.See(".notice.good"))
		if got := s.Do("GET", "/v1/webhooks", s.Full, "").Want(t, 200); got.Len("data.0.events") != 4 || got.Get("data.0.active") != true {
			t.Errorf("changed: got %s", got.Body)
		}

		// Test, log, another secret.
		b.Follow(`.head a[href$="/deliveries"]`)
		b.Do(browsertest.Press("form[action$='/test'] button"), browsertest.See(".notice.good"))
		if got, _ := verified(t, hook.Next(), secret); got != "webhook.test" {
			t.Errorf("got %s, want webhook.test", got)
		}
		b.Look("webhook-deliveries")
		b.Do(browsertest.Press("form[action$='/rotate'] button"), browsertest.See("#webhook-secret"))
		if got := b.Text("#webhook-secret"); got == secret || !strings.HasPrefix(got, "whsec_") {
			t.Errorf("another secret: got %q", got)
		}

		// A key's webhook falls silent with the key; the admin takes it over.
		key, keyID := s.AddKey(keyWith("webhooks:write", "contacts:read"))
		of, _ := subscribe(t, s, key, hook.URL+"/key", "contacts.created")
		s.Do("POST", "/v1/keys/"+keyID+"/revoke", s.Full, "{}").Want(t, 200)
		b.Do(browsertest.Open(s.URL+"/settings/webhooks"), browsertest.See("tbody tr"))
		if got := b.Text("tbody"); !strings.Contains(got, "Told nothing") || !strings.Contains(got, "Warehouse is revoked") || !strings.Contains(got, "Data warehouse") {
			t.Errorf("the list: got %q", got)
		}
		b.Look("webhooks")
		b.Follow(`tbody a[href="/settings/webhooks/` + of + `"]`)
		b.Look("webhook-silent")
		b.Do(browsertest.Press("form input[name=take_over] ~ button"), browsertest.See(".notice.good"))
		s.Do("POST", "/v1/contacts", s.Full, `{"first_name":"Grace"}`).Want(t, 201)
		hook.Next()
		hook.Next() // both are told

		b.Follow(`a[href$="/delete"]`)
		b.Look("webhook-delete")
		b.Do(browsertest.Fill("name", "something else"), browsertest.Press("main button.danger"), browsertest.See(".error"),
			empty("name"), browsertest.Fill("name", strings.TrimPrefix(hook.URL, "http://")))
		b.Follow("main button.danger")
		if got := s.Do("GET", "/v1/webhooks", s.Full, "").Want(t, 200).Len("data"); got != 1 {
			t.Errorf("got %d webhooks, want 1", got)
		}
		b.Behaved(s.URL + "/")
	})
}
