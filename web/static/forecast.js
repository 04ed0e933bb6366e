// What the last days' calls would become with the rungs that are chosen: the
// server counts anew as one chooses. Nothing is saved by it.

const pause = 250; // milliseconds after a choice

export function forecast() {
  const part = document.querySelector("[data-forecast]");
  const button = document.querySelector("button[data-preview]");
  if (!part || !button) return;
  const form = button.form;
  button.hidden = true;
  let timer, last = 0;

  async function count() {
    const mine = ++last;
    const body = new URLSearchParams(new FormData(form));
    if (button.name) body.append(button.name, button.value);
    body.append("fragment", "1");
    let answer, text;
    try {
      answer = await fetch(button.formAction, { method: "POST", body });
      text = await answer.text();
    } catch {
      answer = undefined;
    }
    if (mine !== last) return; // somebody has gone on choosing
    const now = answer?.ok && !answer.redirected && new DOMParser().parseFromString(text, "text/html").querySelector("[data-forecast]");
    if (now) show(part, now); else fail(part);
  }

  const soon = () => { clearTimeout(timer); timer = setTimeout(count, pause); };
  form.addEventListener("change", (event) => { if (/^(preset|mode|r\.)/.test(event.target.name)) soon(); });
  // Browsers keep what was chosen over a reload.
  if ([...form.querySelectorAll("input[type=radio]")].some((radio) => radio.checked !== radio.defaultChecked)) soon();
}

// show puts what is new in its place. What says it stays, so that it is read out,
// and what was opened stays open.
function show(part, now) {
  part.querySelector("[role=status]").replaceChildren(...now.querySelector("[role=status]").childNodes);
  const before = part.querySelector("details"), after = now.querySelector("details");
  if (before && after) after.open = before.open;
  before?.remove();
  if (after) part.append(after);
}

function fail(part) {
  part.querySelector("[role=status]").textContent = "What it would mean cannot be told now. Reload the page.";
  part.querySelector("details")?.remove();
}
