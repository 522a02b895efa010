"use strict";
for (const box of document.querySelectorAll("[data-filter]")) {
  box.hidden = false;
  const rows = document.querySelectorAll("#" + box.dataset.filter + " tbody tr");
  const count = box.querySelector("output");
  box.querySelector("input").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) shown += 1;
    }
    count.textContent = words.length ? shown + " of " + rows.length : "";
  });
}
