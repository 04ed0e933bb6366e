// The form that says what a credential may do: presets move the ladders, the
// number of tools follows, and on a phone each ladder is a list to choose from.

export function ladder() {
  for (const form of document.querySelectorAll("form[data-ladder]")) enhance(form);
}

function enhance(form) {
  form.addEventListener("change", (event) => {
    if (event.target.name === "preset" && event.target.value !== "custom") follow(form, event.target.value);
    count(form);
  });
  count(form);
  const narrow = matchMedia("(max-width: 800px)");
  const fit = () => { for (const group of form.querySelectorAll("[role=radiogroup]")) select(group, narrow.matches); };
  narrow.addEventListener("change", fit);
  fit();
}

// follow puts the ladders where the preset has them.
function follow(form, preset) {
  for (const radio of form.querySelectorAll("[data-presets]")) {
    if (!radio.dataset.presets.split(" ").includes(preset)) continue;
    radio.checked = true;
    const list = radio.closest(".rung")?.querySelector("select");
    if (list) list.value = radio.value;
  }
}

function count(form) {
  const says = form.querySelector("[data-base]");
  if (!says) return;
  let tools = Number(says.dataset.base), waits = 0;
  if (form.querySelector('[name=mode][value="full"]:checked')) {
    tools = Number(says.dataset.allTools);
    waits = Number(says.dataset.allWaits);
  } else {
    let any = false, acts = false;
    for (const radio of form.querySelectorAll("[data-tools]:checked")) {
      tools += Number(radio.dataset.tools);
      waits += Number(radio.dataset.waits);
      any ||= Number(radio.dataset.tools) > 0;
      acts ||= "acts" in radio.dataset;
    }
    if (any) tools += Number(says.dataset.search);
    if (acts) {
      tools += Number(says.dataset.ask);
      waits += Number(says.dataset.ask);
    }
  }
  says.querySelector('[data-count="tools"]').textContent = tools;
  says.querySelector('[data-count="waits"]').textContent = waits;
}

// select stands for the radios of a ladder, which go on holding the choice.
function select(group, narrow) {
  let list = group.parentElement.querySelector("select");
  if (!list && narrow) {
    list = document.createElement("select");
    list.setAttribute("aria-labelledby", group.getAttribute("aria-labelledby"));
    for (const radio of group.querySelectorAll("input")) {
      const option = new Option(radio.parentElement.textContent.trim(), radio.value, false, radio.checked);
      list.add(option);
    }
    list.addEventListener("change", (event) => {
      event.stopPropagation();
      const radio = group.querySelector(`input[value="${CSS.escape(list.value)}"]`);
      radio.checked = true;
      radio.dispatchEvent(new Event("change", { bubbles: true }));
    });
    group.after(list);
  }
  if (list) {
    list.hidden = !narrow;
    list.value = group.querySelector("input:checked")?.value;
  }
  group.hidden = narrow;
}
