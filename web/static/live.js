// Live numbers and lists, by server-sent events. The stream is closed while the
// page is not looked at: a browser has few connections to one server.

const patience = 8000; // milliseconds without a stream before the page says so

export function live() {
  if (!document.querySelector("[data-live]") || !window.EventSource) return;
  let source, timer;
  const cut = document.querySelector("[data-cut]");
  const say = (isCut) => { if (cut) cut.hidden = !isCut; };

  const open = () => {
    if (source && source.readyState !== EventSource.CLOSED) return;
    source = new EventSource("/events?in=" + encodeURIComponent(here(document)));
    source.addEventListener("open", () => { clearTimeout(timer); timer = undefined; say(false); });
    source.addEventListener("error", () => { timer ??= setTimeout(() => say(true), patience); });
    source.addEventListener("approvals", (event) => {
      const { waiting } = JSON.parse(event.data);
      const known = badge(waiting);
      if (first && known === waiting && !document.querySelector("[data-unsettled]")) { first = false; return; } // the page is new
      first = false;
      refresh("approvals");
    });
    for (const topic of ["calls", "integrations"]) source.addEventListener(topic, () => refresh(topic));
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { source.close(); clearTimeout(timer); timer = undefined; } else open();
  });
  addEventListener("pagehide", () => source.close());
  open();
}

// here returns the workspace that a page is about: the person may have gone to
// another one meanwhile, in another window.
function here(page) { return page.querySelector("[data-in]")?.dataset.in ?? ""; }

// badge shows how many wait, and returns how many it showed before.
function badge(n) {
  let known;
  for (const b of document.querySelectorAll('[data-live="waiting"]')) {
    known = Number(b.firstChild.data);
    b.firstChild.data = n;
    b.hidden = n === 0;
  }
  return known;
}

// refresh replaces the parts of the page that follow the topic by those of the
// page as it is now. Parts in which somebody is about to choose or type stay.
let running = false, again = false, first = true;
async function refresh(topic) {
  const parts = document.querySelectorAll(`[data-refresh~="${topic}"]`);
  if (parts.length === 0) return;
  if (running) { again = true; return; }
  running = true;
  try {
    do {
      again = false;
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok || answer.redirected) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (here(page) !== here(document)) {
        const cut = document.querySelector("[data-cut]");
        if (cut) cut.hidden = false;
        return;
      }
      for (const part of document.querySelectorAll(`[data-refresh~="${topic}"]`)) {
        const now = page.getElementById(part.getAttribute("id")); // part.id may be a field of a form
        if (now && now.outerHTML !== part.outerHTML && !part.querySelector("input:checked")) swap(part, now);
      }
    } while (again);
  } finally {
    running = false;
  }
}

function swap(part, now) {
  const held = document.activeElement;
  const place = part.contains(held) ? held.getAttribute("href") : null;
  part.className = now.className;
  part.replaceChildren(...now.childNodes);
  if (place) part.querySelector(`[href="${CSS.escape(place)}"]`)?.focus();
  part.dispatchEvent(new CustomEvent("refreshed", { bubbles: true }));
}
