"use strict";
(() => {
  // Everything recorded arrives as JSON and is shown through textContent only: markup in names,
  // messages and state is text.
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows;
  const HEIGHT = 24;
  const OVERSCAN = 12;
  const SIGNS = {
    error: "✗", failed: "✗", crashed: "✗", cancelled: "⊘", abandoned: "⊘", running: "…",
  };

  const list = document.getElementById("list");
  const canvas = document.getElementById("rows");
  const search = document.getElementById("search");
  const failures = document.getElementById("failures");
  const count = document.getElementById("count");
  const details = document.getElementById("details");

  // The row after the last one below each row: rows are in the order of drawing.
  const ends = new Array(rows.length).fill(rows.length);
  const parents = new Array(rows.length).fill(-1);
  const open = [];
  rows.forEach((row, at) => {
    while (open.length && rows[open[open.length - 1]].depth >= row.depth) ends[open.pop()] = at;
    parents[at] = open.length ? open[open.length - 1] : -1;
    open.push(at);
  });

  const folded = new Set();
  let shown = [];
  let found = null;
  let chosen = -1;

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  const texts = [];
  function textOf(at) {
    if (texts[at] === undefined) {
      const row = rows[at];
      const parts = [row.name, row.failure ? row.failure.text : "", row.app, row.trace, row.span];
      (row.parts || []).forEach((part) => parts.push(part.text));
      (row.logged || []).forEach((pair) => parts.push(pair[0], pair[1]));
      texts[at] = parts.join("\n").toLowerCase();
    }
    return texts[at];
  }

  function isBad(row) {
    return ["error", "failed", "crashed"].includes(row.outcome);
  }

  function update() {
    const wanted = search.value.trim().toLowerCase();
    const filtering = wanted !== "" || failures.checked;
    found = null;
    let kept = null;
    if (filtering) {
      found = new Set();
      kept = new Set();
      rows.forEach((row, at) => {
        if (row.kind === "note") return;
        if (failures.checked && !isBad(row)) return;
        if (wanted && !textOf(at).includes(wanted)) return;
        found.add(at);
        for (let up = at; up >= 0 && !kept.has(up); up = parents[up]) kept.add(up);
      });
    }
    shown = [];
    for (let at = 0; at < rows.length; ) {
      if (!kept || kept.has(at)) shown.push(at);
      // A search looks into folded rows too.
      at = !kept && folded.has(at) ? ends[at] : at + 1;
    }
    const spans = rows.filter((row) => row.kind !== "note").length;
    count.textContent = found
      ? `${found.size.toLocaleString("en")} of ${spans.toLocaleString("en")} spans`
      : `${spans.toLocaleString("en")} spans`;
    canvas.style.height = `${shown.length * HEIGHT}px`;
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - OVERSCAN);
    const last = Math.min(
      shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + OVERSCAN);
    const nodes = [];
    for (let line = first; line < last; line += 1) nodes.push(drawRow(shown[line], line));
    canvas.replaceChildren(...nodes);
  }

  function drawRow(at, line) {
    const row = rows[at];
    const node = make("div", `row ${row.kind} ${row.outcome || ""}`);
    node.style.top = `${line * HEIGHT}px`;
    node.dataset.at = at;
    if (row.kind === "note") {
      node.append(make("span", "label", row.name));
      return node;
    }
    node.setAttribute("role", "treeitem");
    node.setAttribute("aria-level", row.depth + 1);
    node.setAttribute("aria-selected", at === chosen);
    if (at === chosen) node.classList.add("chosen");
    if (found) node.classList.add(found.has(at) ? "found" : "aside");
    const name = make("div", "name");
    name.style.paddingLeft = `${4 + Math.min(row.depth, 24) * 14}px`;
    const fold = make("button", "fold", ends[at] > at + 1 ? (folded.has(at) ? "▶" : "▼") : "");
    fold.tabIndex = -1;
    if (ends[at] > at + 1) {
      node.setAttribute("aria-expanded", !folded.has(at));
      fold.setAttribute("aria-label", folded.has(at) ? "unfold" : "fold");
    }
    name.append(fold, make("span", "sign", SIGNS[row.outcome] || ""));
    const label = make("span", "label");
    if (row.number !== null) label.append(make("span", "number", row.number));
    label.append(row.name);
    label.title = row.name;
    name.append(label);
    if (row.why) {
      const why = make("span", "why", row.why);
      why.title = row.why;
      name.append(why);
    }
    const track = make("div", "track");
    const bar = make("div", "bar");
    bar.style.left = `${row.from * 100}%`;
    bar.style.width = `${Math.max(0, row.to - row.from) * 100}%`;
    track.append(bar);
    row.marks.forEach((mark) => {
      const tick = make("div", "mark");
      tick.style.left = `${mark.at * 100}%`;
      tick.title = mark.text;
      track.append(tick);
    });
    node.append(name, track, make("div", "took", row.took));
    return node;
  }

  function section(title, ...nodes) {
    details.append(make("h3", "", title), ...nodes);
  }

  function facts(pairs) {
    const made = make("dl");
    pairs.filter((pair) => pair[1]).forEach(([term, value]) => {
      made.append(make("dt", "", term), make("dd", term.endsWith("id") ? "id" : "", value));
    });
    return made;
  }

  function choose(at) {
    chosen = at;
    const row = rows[at];
    details.replaceChildren();
    const close = make("button", "close", "Close");
    close.addEventListener("click", () => { details.hidden = true; chosen = -1; draw(); });
    const title = make("h2", "", (row.number === null ? "" : `${row.number} `) + row.name);
    title.append(make("span", `badge ${row.outcome}`, row.word));
    details.append(close, title, facts([
      ["began", row.began], ["took", row.took], ["tokens", row.tokens], ["run", row.app],
      ["session id", row.session],
      ["trace id", row.trace], ["span id", row.span],
    ]));
    if (row.failure) {
      section("Failure", make("pre", "failure", row.failure.text));
      if (row.failure.stack) section("Traceback", make("pre", "stack", row.failure.stack));
    }
    (row.parts || []).forEach((part) => {
      section(part.title, make("pre", "", part.text));
      if (part.cut) details.append(make("div", "cut", part.cut));
    });
    if (row.logged && row.logged.length) {
      const table = make("dl");
      row.logged.forEach(([key, value]) => table.append(make("dt", "", key), make("dd", "", value)));
      section("Logged", table);
    }
    if (row.marks.length) {
      section("Stream", ...row.marks.map((mark) => make("div", "", mark.text)));
    }
    if (row.links && row.links.length) {
      section("Links", ...row.links.map((link) => make("div", "id", link)));
    }
    details.hidden = false;
    details.scrollTop = 0;
    draw();
  }

  function toggle(at) {
    if (folded.has(at)) folded.delete(at); else folded.add(at);
    update();
  }

  function move(step) {
    const line = shown.indexOf(chosen);
    let next = line < 0 ? 0 : line + step;
    while (next >= 0 && next < shown.length && rows[shown[next]].kind === "note") next += step;
    if (next < 0 || next >= shown.length) return;
    const top = next * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + HEIGHT > list.scrollTop + list.clientHeight) {
      list.scrollTop = top + HEIGHT - list.clientHeight;
    }
    choose(shown[next]);
  }

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { list.scrollTop = 0; update(); }, 60);
  });
  failures.addEventListener("change", () => { list.scrollTop = 0; update(); });
  document.getElementById("fold").addEventListener("click", () => {
    rows.forEach((row, at) => { if (row.kind === "step" && ends[at] > at + 1) folded.add(at); });
    update();
  });
  document.getElementById("unfold").addEventListener("click", () => { folded.clear(); update(); });
  list.addEventListener("scroll", draw, { passive: true });
  window.addEventListener("resize", draw);
  canvas.addEventListener("click", (event) => {
    const node = event.target.closest(".row");
    if (!node) return;
    const at = Number(node.dataset.at);
    if (rows[at].kind === "note") return;
    if (event.target.classList.contains("fold") && ends[at] > at + 1) toggle(at); else choose(at);
  });
  list.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") move(1);
    else if (event.key === "ArrowUp") move(-1);
    else if (event.key === "ArrowLeft" && chosen >= 0 && !folded.has(chosen)) toggle(chosen);
    else if (event.key === "ArrowRight" && chosen >= 0 && folded.has(chosen)) toggle(chosen);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== search) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && document.activeElement === search) {
      search.value = "";
      update();
      list.focus();
    }
  });

  update();
})();
