"use strict";
(() => {
  const pairs = JSON.parse(document.getElementById("pairs").textContent);
  const [search, os, outcome, shown, dialog, title, list] =
    ["search", "os", "outcome", "shown", "details", "details-title", "details-list"].map((id) => document.getElementById(id));
  const rows = [...document.querySelectorAll("#matrix tbody tr")].map((row) => {
    const buttons = [...row.querySelectorAll("button")];
    const texts = buttons.map((b) => pairs[b.dataset.pair].find);
    return { row, buttons, texts, head: row.querySelector("th").textContent.toLowerCase() };
  });

  function choose() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { row, buttons, texts, head } of rows) {
      let any = false;
      buttons.forEach((button, n) => {
        const text = head + " " + texts[n];
        const fits = words.every((word) => text.includes(word)) && (!outcome.value || button.classList.contains(outcome.value));
        button.classList.toggle("dim", !fits);
        if (fits && (!os.value || row.dataset.os === os.value)) { any = true; count += 1; }
      });
      row.hidden = !any;
    }
    shown.textContent = count === pairs.length ? "" : count + " of " + pairs.length + " pairs shown";
    const parts = new URLSearchParams();
    for (const field of [search, os, outcome]) if (field.value) parts.set(field.id, field.value);
    try { history.replaceState(null, "", "#" + parts); } catch { /* a page out of a file may not */ }
    enter();
  }

  let current = null;
  function enter() {
    if (current && !current.closest("tr").hidden) return;
    const first = rows.find((r) => !r.row.hidden);
    point(first ? first.buttons[0] : null);
  }
  function point(button) {
    if (current) current.tabIndex = -1;
    current = button;
    if (current) current.tabIndex = 0;
  }

  function add(name, value, link) {
    if (value === null || value === undefined || value === "" || value.length === 0) return;
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    if (link && /^https:\/\//.test(value)) {
      const a = document.createElement("a");
      a.href = a.textContent = value;
      a.rel = "noreferrer";
      dd.append(a);
    } else {
      dd.textContent = Array.isArray(value) ? value.join(", ") : value;
    }
    list.append(dt, dd);
  }

  function open(button) {
    const pair = pairs[button.dataset.pair];
    title.textContent = pair.id;
    list.replaceChildren();
    add("Outcome", pair.words);
    pair.why.forEach((sentence, n) => add(n ? "" : "Why", sentence));
    add("See", pair.see, true);
    for (const [name, value] of pair.facts) add(name, value);
    point(button);
    dialog.showModal();
    dialog.scrollTop = 0; // the button that gets the focus is at its end
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("td button");
    if (button) open(button);
    else if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => { if (current) current.focus(); });
  document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
  for (const field of [search, os, outcome]) field.addEventListener("input", choose);

  document.addEventListener("keydown", (event) => {
    if (dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && document.activeElement !== search) {
      event.preventDefault();
      search.focus();
      return;
    }
    if (event.key === "Escape" && document.activeElement === search) { search.value = ""; choose(); return; }
    const here = document.activeElement;
    if (!here || !here.matches("td button")) return;
    const seen = rows.filter((r) => !r.row.hidden);
    const y = seen.findIndex((r) => r.buttons.includes(here));
    const cell = here.closest("td").cellIndex;
    const step = (n) => {
      const target = seen[y + n];
      if (!target) return null;
      const near = (b) => Math.abs(b.closest("td").cellIndex - cell);
      return target.buttons.reduce((best, b) => (near(b) < near(best) ? b : best));
    };
    const buttons = seen[y].buttons, x = buttons.indexOf(here);
    const next = {
      ArrowLeft: () => buttons[x - 1], ArrowRight: () => buttons[x + 1], ArrowUp: () => step(-1), ArrowDown: () => step(1),
      Home: () => buttons[0], End: () => buttons[buttons.length - 1],
    }[event.key];
    if (!next) return;
    event.preventDefault();
    const target = next();
    if (target) { point(target); target.focus(); }
  });

  const wished = new URLSearchParams(location.hash.slice(1));
  for (const field of [search, os, outcome]) if (wished.has(field.id)) field.value = wished.get(field.id);
  choose();
  if (wished.has("pair")) {
    const button = document.querySelector('td button[data-pair="' + Number(wished.get("pair")) + '"]');
    if (button) open(button);
  }
})();
