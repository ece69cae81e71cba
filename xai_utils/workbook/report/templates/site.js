// Sorting, filters, search and unfolding, added to pages that are complete without them.
"use strict";

// A column header becomes a button; the same button again turns the order. Empty cells stay last.
function sortable(table) {
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const keyed = Array.from(body.rows, (row) => [key(row.cells[column]), row]);
      keyed.sort(([one], [other]) => compare(one, other, rising ? 1 : -1));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

// A number as it is written for people, 1,234 or −0.5; of an interval its lower end.
function key(cell) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (text === "" || text === "–") return null;
  const value = Number(text.split(" to ")[0].replaceAll("−", "-").replaceAll(",", ""));
  return Number.isNaN(value) ? text : value;
}

// A page opens with a few rows of the leaderboard; the others are made from static/leaderboard.js like the first one.
function complete(table) {
  const [body, first] = [table.tBodies[0], table.tBodies[0].rows[0]];
  document.querySelector("[data-fewer]").hidden = true;
  body.replaceChildren(...LEADERBOARD.map((values) => {
    const row = first.cloneNode(true);
    values.forEach((value, place) => {
      const cell = row.cells[place];
      if (cell.className === "plot") drawn(cell.firstElementChild, value);
      else cell.textContent = value;
    });
    ["model", "metric", "operator", "method"].forEach((name, place) => { row.dataset[name] = values[place]; });
    return row;
  }));
}

function drawn(plot, ends) {
  plot.hidden = !ends;
  if (!ends) return;
  const [low, high, mean] = ends;
  const [line, dot] = plot.children;
  [line.style.left, line.style.right, dot.style.left] = [`${low}%`, `${100 - high}%`, `${mean}%`];
}

function compare(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "number" && typeof other === "number") return sign * (one - other);
  return sign * String(one).localeCompare(String(other), "en", { numeric: true });
}

// Show the items that have every chosen value ("|" separates several) and contain the text.
function filtering(form) {
  const list = document.getElementById(form.dataset.filter);
  const items = Array.from(list.querySelectorAll("[data-item]"));
  const texts = items.map((item) => item.textContent.toLowerCase());
  const groups = Array.from(list.querySelectorAll("[data-group]"));
  const output = form.querySelector("output");
  const apply = () => {
    const wanted = Array.from(new FormData(form)).filter(([, value]) => value);
    let shown = 0;
    items.forEach((item, n) => {
      const fits = wanted.every(([name, value]) =>
        name === "text" ? texts[n].includes(value.toLowerCase()) : item.dataset[name].split("|").includes(value));
      item.hidden = !fits;
      shown += fits;
    });
    groups.forEach((group) => { group.hidden = !group.querySelector("[data-item]:not([hidden])"); });
    output.textContent = `${shown} of ${items.length}`;
  };
  form.hidden = false;
  recall(form);
  form.addEventListener("input", () => { apply(); remember(form); });
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", () => { if (recall(form)) { apply(); form.scrollIntoView(); } });
  apply();
}

// The choice stands behind the # of the address: #model=vit-scenes&metric=lift. An address with an anchor is left alone.
function recall(form) {
  if (!window.location.hash.includes("=")) return false;
  const said = new URLSearchParams(window.location.hash.slice(1));
  Array.from(form.elements).filter((field) => field.name).forEach((field) => {
    const value = said.get(field.name) ?? "";
    field.value = value;
    if (field.value !== value) field.value = "";
  });
  return true;
}

function remember(form) {
  const chosen = new URLSearchParams(Array.from(new FormData(form)).filter(([, value]) => value));
  window.history.replaceState(null, "", `#${chosen.size ? chosen : "all=1"}`);
}

// Hits hold every word that was typed, in what static/index.js lists; arrow keys walk through them, Escape leaves.
const HITS = 12;

function searching(form) {
  const input = form.querySelector("input");
  const list = form.querySelector("ul");
  const output = form.querySelector("output");
  const texts = INDEX.map(([text, note]) => `${text} ${note}`.toLowerCase());
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = words.length ? INDEX.filter((_, n) => words.every((word) => texts[n].includes(word))) : [];
    list.replaceChildren(...found.slice(0, HITS).map(hit));
    output.textContent = words.length ? `${found.length} found` : "";
    if (found.length > HITS || (words.length && !found.length)) {
      list.append(Object.assign(document.createElement("li"), { textContent: output.textContent }));
    }
  };
  const leave = () => { input.value = ""; show(); };
  form.hidden = false;
  input.addEventListener("input", show);
  form.addEventListener("submit", (event) => { event.preventDefault(); list.querySelector("a")?.click(); });
  form.addEventListener("keydown", (event) => {
    const places = [input, ...list.querySelectorAll("a")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") { leave(); input.focus(); }
    if (!step) return;
    event.preventDefault();
    places.at((places.indexOf(document.activeElement) + step) % places.length).focus();
  });
  list.addEventListener("click", leave);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    input.focus();
  });
}

function hit([text, note, address]) {
  const item = document.createElement("li");
  const link = Object.assign(document.createElement("a"), { href: address, textContent: text });
  link.append(Object.assign(document.createElement("small"), { textContent: note }));
  item.append(link);
  return item;
}

function unfolding(place) {
  const button = place.querySelector("button");
  place.hidden = false;
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(open));
    document.querySelectorAll("details.code").forEach((one) => { one.open = open; });
  });
}

// On a narrow screen the contents would push the page away.
if (window.matchMedia("(max-width: 60rem)").matches) {
  document.querySelectorAll("details.contents").forEach((one) => { one.open = false; });
}
document.querySelectorAll("table[data-rows]").forEach(complete);
document.querySelectorAll("table[data-sortable]").forEach(sortable);
document.querySelectorAll("form[data-filter]").forEach(filtering);
document.querySelectorAll("[data-search]").forEach(searching);
document.querySelectorAll("[data-unfold]").forEach(unfolding);
