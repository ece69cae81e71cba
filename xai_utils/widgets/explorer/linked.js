// One input and its maps, linked: what is under the pointer or the focus is the position whose row is shown.
// Only the chosen layer and head are here, so this answers without asking the kernel, however long the text is.

const SIDE = 200; // pixels of a picture's map
const SVG = "http://www.w3.org/2000/svg";
const SMALL = 56; // of a head's
const TINY = 40; // of a head's among those of every layer
const THREADS = 24; // lines at most
const BEAT = 5; // seconds between two questions whether the kernel is there
const MISSED = 3; // questions without an answer after which it is said

const floats = (model, name) => {
  const view = model.get(name);
  if (!view || !view.byteLength) return new Float32Array(0);
  return new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
};

const element = (tag, about = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "text") made.textContent = value;
    else if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

const digits = (value) => (value === undefined || Number.isNaN(value) ? "" : value.toPrecision(3));
/** The value that gets the strongest colour: the largest one of a word or patch; special tokens may lie beyond. */
const largest = (values, special = []) =>
  values.reduce((top, value, i) => (special.includes(i) ? top : Math.max(top, Math.abs(value))), 0) || 1;

/** Colour of a value: amounts from 0 to the largest, signed ones around 0; the same tables as the static figures. */
function colour(model, value, limit, signed) {
  const table = new Uint8Array(model.get("colours").buffer, model.get("colours").byteOffset, 1536);
  const share = signed ? (value / limit + 1) / 2 : value / limit;
  const place = (signed ? 768 : 0) + 3 * Math.round(255 * Math.min(1, Math.max(0, share)));
  return [table[place], table[place + 1], table[place + 2]];
}

const readable = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000" : "#fff");

/** Cover the patches that are taken away with grey and a cross. */
function cover(context, gone, columns, wide, high) {
  for (const i of gone) {
    const [x, y] = [(i % columns) * wide, Math.floor(i / columns) * high];
    context.fillStyle = "#777";
    context.fillRect(x, y, wide + 0.5, high + 0.5);
    context.strokeStyle = "#fff";
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x + wide, y + high);
    context.stroke();
  }
}

/** Paint patches over the picture, or a strip of cells for a text; mark one patch, and cover those taken away. */
function paint(canvas, model, picture, values, signed, marked = -1, gone = []) {
  const [rows, columns] = model.get("grid").length ? model.get("grid") : [1, values.length];
  const context = canvas.getContext("2d");
  const [wide, high] = [canvas.width / columns, canvas.height / rows];
  const limit = largest(values, model.get("special"));
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = picture ? 0.68 : 1;
  values.forEach((value, i) => {
    context.fillStyle = `rgb(${colour(model, value, limit, signed).join()})`;
    context.fillRect((i % columns) * wide, Math.floor(i / columns) * high, wide + 0.5, high + 0.5);
  });
  context.globalAlpha = 1;
  cover(context, gone, columns, wide, high);
  if (marked >= 0) {
    context.lineWidth = 2.5;
    for (const [ink, inset] of [["#000", 0], ["#fff", 2]]) {
      context.strokeStyle = ink;
      const [x, y] = [(marked % columns) * wide + inset, Math.floor(marked / columns) * high + inset];
      context.strokeRect(x, y, wide - 2 * inset, high - 2 * inset);
    }
  }
}

/** Return which patch an event is over. */
function under(event, model) {
  const [rows, columns] = model.get("grid");
  const box = event.target.getBoundingClientRect();
  const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
  const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
  return Math.min(rows - 1, Math.max(0, row)) * columns + Math.min(columns - 1, Math.max(0, column));
}

function render({ model, el }) {
  const root = element("div", { class: "linked" });
  const heading = element("p", { class: "linked-title" });
  const decision = element("p", { class: "linked-decision", role: "status" });
  const input = element("figure", { class: "linked-input" });
  const masks = element("div", { class: "linked-masks", role: "group", "aria-label": "tokens taken away" });
  const main = element("div", { class: "linked-main" });
  const heads = element("div", { class: "linked-heads", role: "group", "aria-label": "heads of this layer" });
  const maps = element("div", { class: "linked-maps" });
  const status = element("p", { class: "linked-status", role: "status" });
  const table = element("div", { class: "linked-table" });
  const overview = element("div", { class: "linked-overview", role: "group", "aria-label": "all layers and heads" });
  const lost = element("p", { class: "linked-lost", role: "alert", hidden: "", text:
    "The kernel does not answer: it is busy, or it has ended. What is shown still holds. If this line stays, reload the " +
    "page; in JupyterLab run the cell again." });
  const lines = document.createElementNS(SVG, "svg");
  lines.setAttribute("class", "linked-lines");
  root.append(lost, heading, decision, masks, element("div", { class: "linked-top" }, input, main), status, heads, overview, maps, table);
  el.append(root);

  let masking = false; // whether a click takes a token away instead of choosing it
  let hovered = -1; // position under the pointer; the pinned one is the model's
  let picture = null;
  let rows = new Float32Array(0);

  const names = () => model.get("names");
  const prefix = () => model.get("prefix");
  /** Pieces of one word stand together. */
  const kindOf = (i) => {
    const words = model.get("words");
    const joined = i > 0 && words[i] >= 0 && words[i] === words[i - 1] ? " linked-joined" : "";
    return `linked-token${model.get("special").includes(i) ? " linked-special" : ""}${joined}`;
  };
  const isPicture = () => model.get("grid").length === 2;
  const reader = () => (hovered >= 0 ? hovered : model.get("query"));
  const row = () => rows.slice(reader() * names().length, (reader() + 1) * names().length);

  /** Take a word or patch away, or put it back; a piece alone where pieces are asked for. */
  const take = (position) => {
    const [token, words, gone] = [position - prefix(), model.get("words"), model.get("gone")];
    if (token < 0 || words[token] < 0) return say(`${names()[position]} is always read: it cannot be taken away`);
    const whole = model.get("pieces") ? [token] : [...words.keys()].filter((i) => words[i] === words[token]);
    const kept = gone.filter((i) => !whole.includes(i));
    change(kept.length < gone.length ? kept : [...gone, ...whole]);
  };
  const change = (gone) => {
    model.set("gone", gone);
    model.save_changes();
  };
  const choose = (position) => (masking ? take(position) : pin(position));

  const pin = (position) => {
    if (position < 0 || position >= names().length) return;
    model.set("query", position);
    model.save_changes();
  };
  const say = (words) => (status.textContent = words);
  const tell = () => {
    const read = row();
    if (!read.length) return say("");
    const order = [...read.keys()].sort((a, b) => read[b] - read[a]).slice(0, 4);
    say(`${names()[reader()]} reads: ${order.map((i) => `${names()[i]} ${digits(read[i])}`).join(", ")}`);
  };

  const keys = (event) => {
    const columns = isPicture() ? model.get("grid")[1] : 1;
    if (["Delete", "x"].includes(event.key)) return take(model.get("query"));
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const here = model.get("query");
    const next = event.key === "Home" ? 0 : event.key === "End" ? names().length - 1 : here + (steps[event.key] ?? 0);
    if (next === here) return;
    event.preventDefault();
    pin(Math.min(names().length - 1, Math.max(0, next)));
  };

  function drawMain() {
    const [read, gone] = [row(), model.get("gone")];
    if (isPicture()) {
      const canvas = main.querySelector("canvas");
      const marked = read.length ? reader() - prefix() : -1;
      paint(canvas, model, picture, read.slice(prefix()), false, marked, gone);
      main.querySelectorAll("button").forEach((one, i) => one.setAttribute("aria-pressed", String(reader() === i)));
    } else {
      const limit = largest(read, model.get("special"));
      main.querySelectorAll("button").forEach((one, i) => {
        const ink = read.length ? colour(model, read[i], limit, false) : [238, 238, 238];
        one.style.background = `rgb(${ink.join()})`;
        one.style.color = readable(ink);
        one.classList.toggle("linked-gone", gone.includes(i));
        one.setAttribute("aria-pressed", String(i === reader()));
        one.tabIndex = i === model.get("query") ? 0 : -1;
      });
    }
    drawLines();
    tell();
  }

  /** Lines from the chosen position to what it reads most, as thick as its share. */
  function drawLines() {
    lines.replaceChildren();
    const read = model.get("lines") ? row() : [];
    if (!read.length) return;
    const box = main.getBoundingClientRect();
    const spot = (i) => {
      const onCanvas = isPicture() && i >= prefix();
      const part = (onCanvas ? main.querySelector("canvas") : main.querySelectorAll("button")[i]).getBoundingClientRect();
      const [high, wide] = onCanvas ? model.get("grid") : [1, 1];
      const place = onCanvas ? i - prefix() : 0;
      return [part.left - box.left + ((place % wide + 0.5) * part.width) / wide,
              part.top - box.top + ((Math.floor(place / wide) + 0.5) * part.height) / high];
    };
    const [x, y] = spot(reader());
    const limit = largest(read, model.get("special"));
    const most = [...read.keys()].filter((i) => i !== reader()).sort((a, b) => read[b] - read[a]).slice(0, THREADS);
    for (const i of most) {
      const [right, down] = spot(i);
      const share = Math.min(1, read[i] / limit);
      const line = document.createElementNS(SVG, "path");
      line.setAttribute("d", `M ${x} ${y} Q ${(x + right) / 2} ${Math.min(y, down) - 18} ${right} ${down}`);
      line.setAttribute("stroke-width", String(0.5 + 3.5 * share));
      line.setAttribute("opacity", String(0.25 + 0.7 * share));
      lines.append(line);
    }
  }

  function buildMain() {
    main.replaceChildren();
    const hover = (position) => {
      hovered = position;
      drawMain();
    };
    if (isPicture()) {
      const tokens = names().slice(0, prefix());
      const canvas = element("canvas", {
        width: 2 * SIDE, height: 2 * SIDE, tabindex: 0, role: "img", class: "linked-picture",
        "aria-label": "what the chosen patch reads; arrow keys choose another patch, Home the class token, x takes it away",
        onmousemove: (event) => hover(under(event, model) + prefix()),
        onmouseleave: () => hover(-1),
        onclick: (event) => choose(under(event, model) + prefix()),
        onkeydown: keys,
      });
      const buttons = tokens.map((name, i) => element("button", { text: name, onclick: () => pin(i) }));
      main.append(canvas, element("div", { class: "linked-prefix" }, ...buttons), lines);
      return;
    }
    names().forEach((name, i) => {
      const chip = { text: name, class: kindOf(i), onclick: () => choose(i), onkeydown: keys };
      main.append(element("button", { ...chip, onmouseenter: () => hover(i), onmouseleave: () => hover(-1) }));
    });
    main.append(lines);
  }

  function drawMasks() {
    const [gone, words] = [model.get("gone"), model.get("words")];
    masks.replaceChildren();
    masks.hidden = !model.get("checkable");
    const button = (text, title, act, about = {}) => element("button", { text, title, onclick: act, ...about });
    masks.append(button("take away by click", "a click on a word or patch takes it away, or puts it back", () => {
      masking = !masking;
      drawMasks();
    }, { "aria-pressed": String(masking) }));
    if (!gone.length) return;
    const last = gone[gone.length - 1];
    masks.append(
      button("undo", "put the last one back", () => change(gone.filter((i) => words[i] !== words[last]))),
      button("put all back", "show the whole input", () => change([])),
      element("span", { class: "linked-told", role: "status",
                        text: `without ${gone.map((i) => names()[i + prefix()]).join(" ")}: ${model.get("told")}` }));
  }

  /** The input itself, whatever the maps do; the part that the model sees is outlined where it is not all. */
  function drawInput() {
    const stored = model.get("whole");
    input.replaceChildren();
    input.hidden = !stored.byteLength;
    if (input.hidden) return;
    const bytes = new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
    const source = `data:image/png;base64,${btoa(Array.from(bytes, (one) => String.fromCharCode(one)).join(""))}`;
    const words = model.get("cropped") ? "input; the model sees the outlined part" : "input";
    input.append(element("img", { src: source, alt: words }), element("figcaption", { text: words }));
  }

  function drawHeads() {
    const [values, n] = [floats(model, "heads"), names().length];
    const count = n ? values.length / n : 0;
    heads.replaceChildren();
    heads.hidden = !count;
    const choose = (head) => {
      model.set("head", head);
      model.save_changes();
    };
    if (count) heads.append(element("button", { text: "mean", onclick: () => choose(-1),
                                                "aria-pressed": String(model.get("head") === -1) }));
    for (let head = 0; head < count; head++) {
      const one = values.slice(head * n + prefix(), (head + 1) * n);
      const size = isPicture() ? { width: SMALL, height: SMALL } : { width: 120, height: 14 };
      const canvas = element("canvas", { ...size, "aria-hidden": "true" });
      paint(canvas, model, picture, one, false);
      const pressed = String(model.get("head") === head);
      heads.append(element("button", { title: `enlarge head ${head}`, onclick: () => choose(head), "aria-pressed": pressed },
                           canvas, element("span", { text: `head ${head}` })));
    }
  }

  /** Every layer and head at the chosen position; a click enlarges one. */
  function drawOverview() {
    const [values, n, layers] = [floats(model, "overview"), names().length, model.get("layers")];
    const count = n && layers ? values.length / n / layers : 0;
    overview.replaceChildren();
    overview.hidden = !count;
    overview.style.gridTemplateColumns = `auto repeat(${count || 1}, auto)`;
    for (let layer = 0; layer < layers && count; layer++) {
      overview.append(element("span", { text: `layer ${layer}` }));
      for (let head = 0; head < count; head++) {
        const start = (layer * count + head) * n;
        const size = isPicture() ? { width: TINY, height: TINY } : { width: 60, height: 12 };
        const canvas = element("canvas", { ...size, "aria-hidden": "true" });
        paint(canvas, model, picture, values.slice(start + prefix(), start + n), false);
        const name = `layer ${layer}, head ${head}`;
        const pressed = String(layer === model.get("layer") && head === model.get("head"));
        overview.append(element("button", { title: name, "aria-label": name, "aria-pressed": pressed,
                                            onclick: () => model.send({ layer, head }) }, canvas));
      }
    }
  }

  function drawMaps() {
    const [all, tokens] = [floats(model, "scores"), names().length - prefix()];
    let place = 0;
    const signed = model.get("maps").some((one) => one.signed && !one.problem);
    const against = signed ? "; where scores have signs orange speaks for and violet against, white is 0" : "";
    const known = model.get("maps").some((one) => one.badge) ? ` ${model.get("explained")}` : "";
    maps.replaceChildren(element("p", { class: "linked-scale",
      text: `Colours: each map from 0 (dark) to its own greatest value (yellow)${against}.${known}` }));
    for (const about of model.get("maps")) {
      const caption = element("figcaption", { text: about.title });
      const box = element("figure", {}, caption);
      maps.append(box);
      if (about.problem) {
        box.append(element("p", { class: "linked-problem", text: about.problem }));
        continue;
      }
      const values = all.slice(place * tokens, (place + 1) * tokens);
      const limit = largest(values, model.get("special"));
      const number = model.get("maps").indexOf(about);
      place += 1;
      if (model.get("checkable")) caption.append(element("button", {
        text: "− top 5", title: `take the first five of ${about.title} away, beside five at random`, class: "linked-best",
        onclick: () => model.send({ top: number }) }));
      if (about.badge) caption.append(element("div", { class: "linked-badge", text: about.badge, title: model.get("explained") }));
      if (isPicture()) {
        const show = (event) => say(`${about.title}, ${names()[under(event, model) + prefix()]}: ` +
                                    `${digits(values[under(event, model)])} ${about.unit}`);
        const label = `${about.title}: map over the picture, greatest at ${about.top}`;
        const canvas = element("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": label, onmousemove: show,
                                           onmouseleave: tell, onclick: (event) => pin(under(event, model) + prefix()) });
        paint(canvas, model, picture, values, about.signed);
        box.append(canvas);
      } else {
        box.classList.add("linked-line");
        const line = element("div");
        values.forEach((value, i) => {
          const ink = colour(model, value, limit, about.signed);
          const style = `background: rgb(${ink.join()}); color: ${readable(ink)}`;
          const show = () => say(`${about.title}, ${names()[i + prefix()]}: ${digits(value)} ${about.unit}`);
          line.append(element("span", { text: names()[i + prefix()], class: kindOf(i), style, onmouseenter: show,
                                        onmouseleave: tell }));
        });
        box.append(line);
      }
    }
  }

  function drawTable() {
    table.replaceChildren();
    if (!model.get("table")) return;
    const [read, all, shown] = [row(), floats(model, "scores"), model.get("maps").filter((one) => !one.problem)];
    const tokens = names().length - prefix();
    const first = read.length ? [`read by ${names()[reader()]}`] : [];
    const titles = ["token", ...first, ...shown.map((one) => one.title)];
    const head = element("tr", {}, ...titles.map((title) => element("th", { text: title, scope: "col" })));
    const lines = names().map((name, i) => {
      const own = shown.map((_, k) => (i < prefix() ? undefined : all[k * tokens + i - prefix()]));
      const numbers = [...(read.length ? [read[i]] : []), ...own].map((value) => element("td", { text: digits(value) }));
      return element("tr", {}, element("th", { text: name, scope: "row" }), ...numbers);
    });
    table.append(element("table", {}, element("caption", { text: "the numbers of this view" }),
                         element("thead", {}, head), element("tbody", {}, ...lines)));
  }

  function drawAll() {
    rows = floats(model, "matrix");
    hovered = -1;
    heading.textContent = model.get("title");
    decision.textContent = model.get("decision");
    drawInput();
    drawMasks();
    buildMain();
    drawMain();
    drawHeads();
    drawOverview();
    drawMaps();
    drawTable();
    root.dataset.drawn = model.get("version");
  }

  async function load() {
    const stored = model.get("picture");
    picture = stored && stored.byteLength ? await createImageBitmap(new Blob([stored], { type: "image/png" })) : null;
    drawAll();
  }

  // The kernel changes several traits for one view and then the version: one redraw for all of them.
  model.on("change:version", () => (model.get("fresh") ? load() : drawAll()));
  model.on("change:query", () => {
    drawMain();
    drawTable();
  });
  model.on("change:gone change:told", () => {
    drawMasks();
    drawMain();
  });
  model.on("change:stale", () => root.classList.toggle("linked-stale", model.get("stale")));
  model.on("change:heads", drawHeads);
  model.on("change:overview", drawOverview);
  model.on("change:lines", drawLines);
  model.on("change:table", drawTable);

  // A kernel that ended says nothing: it is asked, and if it has answered before and does no longer, that is said.
  let [answered, missed] = [false, 0];
  model.on("msg:custom", (told) => {
    if ("alive" in told) [answered, missed, lost.hidden] = [true, 0, true];
  });
  const ask = () => {
    lost.hidden = !answered || missed < MISSED;
    missed += 1;
    model.send({ alive: missed });
  };
  const beat = setInterval(ask, 1000 * BEAT);
  load().then(ask);
  return () => clearInterval(beat);
}

export default { render };
