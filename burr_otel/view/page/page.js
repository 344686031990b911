"use strict";
(() => {
  // Everything recorded arrives as JSON and is shown through textContent only: markup in names,
  // messages and state is text.
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows;
  const LINE = 18;
  const NARROW = 560;
  const SLIM = 720;
  const OVERSCAN = 400;
  const SIGNS = {
    error: "✗", failed: "✗", crashed: "✗", cancelled: "⊘", abandoned: "⊘", running: "…",
  };

  const list = document.getElementById("list");
  const canvas = document.getElementById("rows");
  const ticks = document.querySelector("#axis .ticks");
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

  const bySpan = new Map(rows.map((row, at) => [row.span, at]));
  const folded = new Set();
  let shown = []; // what is drawn: the place of a row, and a text that stands below it, if it is one
  let tops = [0];
  let axis = -1;
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
      (row.lines || []).forEach((line) => parts.push(line[0]));
      (row.parts || []).forEach((part) => parts.push(part.text));
      (row.changes || []).forEach((change) => parts.push(...change));
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
      if (!kept || kept.has(at)) {
        shown.push({ at });
        (rows[at].lines || []).forEach(([text, bad]) => shown.push({ at, text, bad }));
      }
      // A search looks into folded rows too.
      at = !kept && folded.has(at) ? ends[at] : at + 1;
    }
    const spans = rows.filter((row) => row.kind !== "note").length;
    count.textContent = found
      ? `${found.size.toLocaleString("en")} of ${spans.toLocaleString("en")} spans`
      : `${spans.toLocaleString("en")} spans`;
    fit();
  }

  function fit() {
    const narrow = list.clientWidth < NARROW;
    list.classList.toggle("narrow", narrow);
    list.classList.toggle("slim", list.clientWidth < SLIM);
    tops = [0];
    shown.forEach((each) => {
      const note = rows[each.at].kind === "note";
      const height = each.text !== undefined ? LINE : narrow && !note ? 42 : 24;
      tops.push(tops[tops.length - 1] + height);
    });
    canvas.style.height = `${tops[shown.length]}px`;
    draw();
  }

  function lineAt(y) {
    let low = 0;
    let high = shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (tops[middle + 1] <= y) low = middle + 1; else high = middle;
    }
    return low;
  }

  function draw() {
    const top = list.scrollTop;
    const bottom = top + list.clientHeight + OVERSCAN;
    const nodes = [];
    for (let line = lineAt(top - OVERSCAN); line < shown.length && tops[line] < bottom; line += 1) {
      const each = shown[line];
      const node = each.text === undefined ? drawRow(each.at) : drawLine(each);
      node.style.top = `${tops[line]}px`;
      node.style.height = `${tops[line + 1] - tops[line]}px`;
      node.dataset.at = each.at;
      nodes.push(node);
    }
    canvas.replaceChildren(...nodes);
    drawAxis(lineAt(top));
  }

  function drawAxis(line) {
    const at = shown.slice(line, line + 4).find((each) => rows[each.at].axis !== undefined);
    const wanted = at === undefined ? 0 : rows[at.at].axis;
    if (wanted === axis || !data.axes[wanted]) return;
    axis = wanted;
    ticks.replaceChildren(...data.axes[axis].map((text, number, all) => {
      const tick = make("span", "tick", text);
      tick.style.left = `${(number / (all.length - 1)) * 100}%`;
      return tick;
    }));
  }

  function indent(row) {
    return 4 + Math.min(row.depth, list.classList.contains("narrow") ? 8 : 24) * 14;
  }

  function drawLine(each) {
    const node = make("div", each.bad ? "line bad" : "line", each.text);
    if (each.at === chosen) node.classList.add("chosen");
    node.title = each.text;
    node.style.paddingLeft = `${indent(rows[each.at]) + 34}px`;
    return node;
  }

  function drawRow(at) {
    const row = rows[at];
    const node = make("div", `row ${row.kind} ${row.outcome || ""}`);
    node.id = `row-${at}`;
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
    name.style.paddingLeft = `${indent(row)}px`;
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
    if (row.beside) name.append(make("span", "beside", row.beside));
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
    node.append(name, track, make("div", "tokens", row.inout), make("div", "took", row.took));
    return node;
  }

  function section(title, ...nodes) {
    details.append(make("h3", "", title), ...nodes);
  }

  function facts(pairs) {
    const made = make("dl");
    pairs.filter((pair) => pair[1]).forEach(([term, value]) => {
      const told = make("dd", term.endsWith("id") ? "id" : "");
      told.append(value);
      made.append(make("dt", "", term), told);
    });
    return made;
  }

  function change([path, before, after]) {
    const node = make("div", "change");
    node.append(make("b", "", path), ": ");
    if (before !== null) node.append(make("del", "", before));
    if (before !== null && after !== null) node.append(" → ");
    if (after !== null) node.append(make("ins", "", after));
    return node;
  }

  function anchor(text, url) {
    if (!/^https?:[/][/]/.test(url || "")) return make("span", "id", text);
    const node = make("a", "id", text);
    node.href = url;
    node.target = "_blank";
    node.rel = "noopener noreferrer";
    return node;
  }

  function linkNode(link) {
    const node = make("div");
    const at = bySpan.get(link.span);
    node.append(`${link.kind}: `);
    if (at === undefined) {
      node.append(anchor(`trace ${link.trace}, span ${link.span}`, link.url));
    } else {
      const button = make("button", "", `${rows[at].name}, on this page`);
      button.addEventListener("click", () => reveal(at));
      node.append(button);
    }
    return node;
  }

  function close() {
    details.hidden = true;
    chosen = -1;
    list.removeAttribute("aria-activedescendant");
    document.body.classList.remove("looking");
    fit();
  }

  function choose(at) {
    chosen = at;
    const row = rows[at];
    details.replaceChildren();
    const button = make("button", "close", "Close");
    button.addEventListener("click", close);
    const title = make("h2", "", (row.number === null ? "" : `${row.number} `) + row.name);
    title.append(make("span", `badge ${row.outcome}`, row.word));
    details.append(button, title, facts([
      ["began", row.began], ["took", row.took], ["tokens", row.tokens], ["run", row.app],
      ["session id", row.session],
      ["trace id", row.trace && anchor(row.trace, row.url)], ["span id", row.span],
    ]));
    if (row.failure) {
      section("Failure", make("pre", "failure", row.failure.text));
      if (row.failure.stack) section("Traceback", make("pre", "stack", row.failure.stack));
    }
    (row.parts || []).forEach((part) => {
      section(part.title, make("pre", "", part.text));
      if (part.cut) details.append(make("div", "cut", part.cut));
    });
    if (row.changes) {
      const made = row.changes.map(change);
      if (row.more) made.push(make("div", "cut", `and ${row.more} more; burr-otel show --step`));
      section("State changed", ...(made.length ? made : [make("div", "cut", "nothing")]));
    }
    if (row.logged && row.logged.length) {
      const table = make("dl");
      row.logged.forEach(([key, value]) => table.append(make("dt", "", key), make("dd", "", value)));
      section("Logged", table);
    }
    if (row.marks.length) {
      section("Stream", ...row.marks.map((mark) => make("div", "", mark.text)));
    }
    if (row.links && row.links.length) {
      section("Links", ...row.links.map(linkNode));
    }
    const opened = details.hidden;
    details.hidden = false;
    details.scrollTop = 0;
    list.setAttribute("aria-activedescendant", `row-${at}`);
    document.body.classList.add("looking");
    if (opened) fit(); else draw();
    const line = shown.findIndex((each) => each.at === at);
    let last = line;
    while (last < shown.length && shown[last].at === at) last += 1;
    const height = list.clientHeight - 24; // without the axis
    if (tops[last] > list.scrollTop + height) list.scrollTop = tops[last] - height;
    if (tops[line] < list.scrollTop) list.scrollTop = tops[line];
  }

  function reveal(at) {
    for (let up = parents[at]; up >= 0; up = parents[up]) folded.delete(up);
    update();
    if (!shown.some((each) => each.at === at)) { // a search hides it
      search.value = "";
      failures.checked = false;
      update();
    }
    choose(at);
  }

  function toggle(at) {
    if (folded.has(at)) folded.delete(at); else folded.add(at);
    update();
  }

  function isRow(each) {
    return each.text === undefined && rows[each.at].kind !== "note";
  }

  // The next row in a direction that is a span, and, if asked, a failed one.
  function move(step, wanted = isRow) {
    const line = shown.findIndex((each) => each.at === chosen);
    let next = line < 0 ? (step > 0 ? 0 : shown.length - 1) : line + step;
    while (next >= 0 && next < shown.length && !(isRow(shown[next]) && wanted(shown[next]))) {
      next += step;
    }
    if (next >= 0 && next < shown.length) choose(shown[next].at);
  }

  const keys = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    n: () => move(1, (each) => isBad(rows[each.at])),
    p: () => move(-1, (each) => isBad(rows[each.at])),
    Home: () => { chosen = -1; move(1); },
    End: () => { chosen = -1; move(-1); },
    ArrowLeft: () => {
      if (chosen < 0) return;
      if (ends[chosen] > chosen + 1 && !folded.has(chosen)) toggle(chosen);
      else if (parents[chosen] >= 0) choose(parents[chosen]);
    },
    ArrowRight: () => {
      if (chosen < 0) return;
      if (folded.has(chosen)) toggle(chosen); else if (ends[chosen] > chosen + 1) move(1);
    },
    Escape: () => { if (!details.hidden) close(); },
  };

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
  window.addEventListener("resize", fit);
  canvas.addEventListener("click", (event) => {
    const node = event.target.closest(".row, .line");
    if (!node) return;
    const at = Number(node.dataset.at);
    if (rows[at].kind === "note") return;
    if (event.target.classList.contains("fold") && ends[at] > at + 1) toggle(at); else choose(at);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== search) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && document.activeElement === search) {
      search.value = "";
      update();
      list.focus();
    } else if (
      document.activeElement !== search && keys[event.key]
      && !event.ctrlKey && !event.metaKey && !event.altKey
    ) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  if (rows.some((row) => row.inout)) list.classList.add("spends");

  update();
})();
