// What every page has: live badges, buttons that copy, and the list of keys.
import { live } from "./live.js";
import { keys } from "./keys.js";
import { ladder } from "./ladder.js";
import { forecast } from "./forecast.js";

// On a phone the links scroll sideways: the one of this page is in sight.
document.querySelector(".side nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

live();
keys();
ladder();
forecast();

for (const button of document.querySelectorAll("[data-copy]")) {
  const from = document.getElementById(button.dataset.copy);
  if (!from || !navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(from.textContent.trim());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy it yourself";
    }
  });
}
