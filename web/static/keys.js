// Keys: an element with data-key is pressed, or followed, by its key; j and k
// move in the list with data-moves; ? shows what there is. Keys do nothing while
// a field has the focus.

export function keys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("input, select, textarea, [contenteditable]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "j" || event.key === "k") return move(event, event.key === "j" ? 1 : -1);
    if (event.key === "?") return help(event);
    const wanted = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!wanted || wanted.disabled) return;
    event.preventDefault();
    if (wanted.matches("input, select, textarea")) wanted.focus();
    else wanted.click();
    if (wanted.matches("summary")) wanted.parentElement.querySelector("textarea")?.focus();
  });
}

function move(event, by) {
  const links = [...document.querySelectorAll("[data-moves] a[href]")];
  if (links.length === 0) return;
  event.preventDefault();
  let at = links.indexOf(document.activeElement);
  if (at < 0) at = links.findIndex((a) => a.hasAttribute("aria-current"));
  const to = links[at < 0 ? 0 : Math.min(Math.max(at + by, 0), links.length - 1)];
  to.focus();
  if (document.querySelector("[data-moves][data-follow]") && to !== links[at]) to.click();
}

function help(event) {
  const list = document.getElementById("keys-help");
  if (!list) return;
  event.preventDefault();
  list.open = !list.open;
  if (list.open) list.scrollIntoView({ block: "nearest" });
}
