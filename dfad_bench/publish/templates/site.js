"use strict";
// Shows one table of the embedded data at a time. The view is a set of names and values that lives in the address after
// the #, so that a link to it shows the same again. Every text reaches the page as text, never as HTML.
(() => {
  const byId = (id) => document.getElementById(id);
  const DATA = JSON.parse(byId("data").textContent);
  const TABLES = new Map(DATA.tables.map((table) => [table.id, table]));
  const NONE = "–";
  const DIRECTIONS = { standing: ["best first", "best last"], model: ["A to Z", "Z to A"], inputs: ["A to Z", "Z to A"] };
  const LEVELS = {
    authenticity: "real or fake (detection)",
    forgery_type: "forgery type",
    family: "family",
    generator: "generator",
  };
  const GROUPS = { means: "means over groups", both: "means and single groups", single: "single groups" };
  const SEVERITIES = { 1: "1 (weak)", 2: "2", 3: "3", 4: "4", 5: "5 (strong)", area: "area over 0 to 5" };
  const START = {
    ...{ q: "", level: "", groups: "means", family: "", type: "", perturbation: "", severity: "1" },
    ...{ sort: "standing", order: "", a: "", b: "" },
  };
  const SELECTS = ["table", "level", "groups", "family", "type", "perturbation", "severity", "a", "b"];
  let view = { ...START, table: DATA.tables.length ? DATA.tables[0].id : "", hide: [] };

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  const percent = (tenths) => (tenths / 10).toFixed(1);
  const signed = (tenths) => (tenths > 0 ? "+" : tenths < 0 ? "−" : "") + percent(Math.abs(tenths));
  const table = () => TABLES.get(view.table);

  // --- cells: null, a number in millionths, or [number or null, low, high in tenths of a percent, ...places of notes] ---

  const valueOf = (cell) => (Array.isArray(cell) ? cell[0] : cell);
  const shownValue = (value) => percent(Math.floor((value + 500) / 1000));

  function shownCell(cell) {
    const value = valueOf(cell);
    if (value === null) return NONE;
    const hasInterval = Array.isArray(cell) && cell[1] !== null;
    return shownValue(value) + (hasInterval ? ` [${percent(cell[1])}, ${percent(cell[2])}]` : "");
  }

  function cellOf(row, place) {
    if (view.perturbation === "") return row.cells[place] ?? null;
    const cells = row.robust?.[table().perturbations.indexOf(view.perturbation)];
    return cells?.[view.severity === "area" ? 5 : Number(view.severity) - 1][place] ?? null;
  }

  function reasonsOf(row, column, cell) {
    if (Array.isArray(cell)) return cell.slice(3).map((place) => DATA.strings[place]);
    if (cell !== null) return [];
    return [view.perturbation !== "" && !row.robust ? "no record of this model under perturbations" : column.absent];
  }

  // --- columns ----------------------------------------------------------------------------------------------------------

  const placedColumns = () => table().columns.map((column, place) => ({ ...column, place }));

  function offeredColumns() {
    const groups = (view.family || view.type) && view.groups === "means" ? "both" : view.groups;
    return placedColumns().filter((column) => {
      if (view.level && column.level !== view.level) return false;
      if (column.group === undefined) return groups !== "single" || view.perturbation !== "";
      if (groups === "means" || view.perturbation !== "") return false;
      return (!view.family || column.family === view.family) && (!view.type || column.type === view.type);
    });
  }

  function shownColumns() {
    const hidden = new Set(view.hide);
    const own = [{ id: "standing", name: table().grouped ? "group or rank" : "rank" }, { id: "model", name: "model" }];
    const last = [{ id: "parameters", name: "parameters" }, { id: "inputs", name: "inputs" }];
    return [...own, ...[...offeredColumns(), ...last].filter((column) => !hidden.has(column.id))];
  }

  // --- rows -------------------------------------------------------------------------------------------------------------

  const isScore = (id) => table().columns.some((column) => column.id === id);
  const falls = () => (view.order || (isScore(view.sort) || view.sort === "parameters" ? "desc" : "asc")) === "desc";

  function shownRows() {
    const words = view.q.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = table().rows.map((row, place) => ({ row, place }))
      .filter(({ row }) => words.every((word) => row.model.toLowerCase().includes(word)));
    const column = table().columns.findIndex((each) => each.id === view.sort);
    const unranked = (row) => row.standing === "not ranked";
    const keys = {
      standing: ({ row, place }) => (unranked(row) ? null : place),
      model: ({ row }) => row.model,
      parameters: ({ row }) => row.parameters,
      inputs: ({ row }) => row.inputs,
    };
    const key = keys[view.sort] ?? (({ row }) => valueOf(cellOf(row, column)));
    const sign = falls() ? -1 : 1;
    // What is undefined comes last whichever way the others run; equals keep the order of the ranking.
    return rows.map((each) => ({ ...each, key: key(each) })).sort((one, other) => {
      if (one.key === null || other.key === null) return (one.key === null) - (other.key === null) || one.place - other.place;
      return sign * ((one.key > other.key) - (one.key < other.key)) || one.place - other.place;
    }).map(({ row }) => row);
  }

  // --- the table --------------------------------------------------------------------------------------------------------

  function header(column) {
    const sorted = column.id === view.sort;
    const button = element("button", { type: "button", textContent: column.name });
    button.dataset.sort = column.id;
    if (sorted) {
      const arrow = element("span", { textContent: falls() ? " ▼" : " ▲" });
      arrow.setAttribute("aria-hidden", "true");
      button.append(arrow);
    }
    const isNumber = isScore(column.id) || column.id === "parameters";
    const made = element("th", { scope: "col", className: isNumber ? "number" : column.id }, button);
    if (sorted) made.setAttribute("aria-sort", falls() ? "descending" : "ascending");
    return made;
  }

  function modelCell(row) {
    const name = element("b", {}, element("bdi", { textContent: row.model }));
    const made = element("th", { scope: "row", className: "model" }, name);
    for (const [kind, place] of row.marks ?? []) {
      made.append(element("span", { className: `mark ${kind}`, textContent: `${kind}: ${DATA.strings[place]}` }));
    }
    const open = element("button", { type: "button", textContent: "provenance" });
    open.setAttribute("aria-label", `provenance of ${row.model}`);
    open.dataset.model = row.model;
    const more = element("span", { className: "more" }, open);
    if (row.link) more.append(element("a", { href: row.link, textContent: "result file" }));
    made.append(more);
    return made;
  }

  function scoreCell(row, column, mark) {
    const cell = cellOf(row, column.place);
    const marks = reasonsOf(row, column, cell).map(mark);
    const made = element("td", { className: "number" }, [shownCell(cell), ...marks].join(" "));
    const seeds = view.perturbation === "" && column.group === undefined ? row.seeds?.[column.place + 1] : null;
    if (seeds) {
      const text = `${row.seeds[0]} seeds: ${percent(seeds[0])} ± ${percent(seeds[1])}`;
      made.append(element("small", { textContent: text }));
    }
    return made;
  }

  function bodyCell(row, column, mark) {
    if (column.id === "model") return modelCell(row);
    if (column.id === "standing") return element("td", { textContent: row.standing });
    if (column.id === "parameters") {
      return element("td", { className: "number", textContent: row.parameters.toLocaleString("en") });
    }
    if (column.id === "inputs") return element("td", { textContent: row.inputs });
    return scoreCell(row, column, mark);
  }

  function drawTable() {
    const columns = shownColumns();
    const rows = shownRows();
    const notes = [];
    const mark = (reason) => {
      if (!notes.includes(reason)) notes.push(reason);
      return `(${notes.indexOf(reason) + 1})`;
    };
    const focused = document.activeElement?.dataset?.sort;
    const results = byId("results");
    results.tHead.replaceChildren(element("tr", {}, ...columns.map(header)));
    const line = (row) => element("tr", {}, ...columns.map((column) => bodyCell(row, column, mark)));
    results.tBodies[0].replaceChildren(...rows.map(line));
    const buttons = [...results.tHead.querySelectorAll("button")];
    if (focused !== undefined) buttons.find((button) => button.dataset.sort === focused)?.focus();
    const numbered = notes.map((reason, place) => `(${place + 1}) ${reason}.`);
    const told = [...numbered, ...standingNotes()];
    byId("notes").replaceChildren(...told.map((text) => element("li", { textContent: text })));
    // A view may be sorted by a column that it hides.
    const by = [...columns, ...table().columns].find((column) => column.id === view.sort)?.name ?? view.sort;
    const direction = (DIRECTIONS[view.sort] ?? ["lowest first", "highest first"])[Number(falls())];
    byId("status").textContent = `${rows.length} of ${table().rows.length} models, sorted by ${by}, ${direction}.`;
  }

  function standingNotes() {
    const { grouped, ranked, faces } = table();
    const told = [`Ranked by ${ranked.join(", then by ")}.`];
    told.push(
      grouped
        ? `Groups: significance groups by ${grouped}, from paired tests of these very predictions.`
        : "Ranks are the bare order of the values: no paired test of these predictions is here, and neighbours may not differ.",
    );
    const severity = view.severity === "area" ? "area over severities 0 to 5" : `severity ${view.severity}`;
    if (view.perturbation) {
      told.push(`Values: ${view.perturbation}, ${severity}. Ranks and groups are those of undisturbed faces.`);
    }
    told.push(`Fingerprint of the test faces: ${faces}.`);
    return told;
  }

  // --- two models -------------------------------------------------------------------------------------------------------

  function testOf(column, a, b) {
    const { models, tests } = table().pairs ?? { models: [], tests: {} };
    const [i, j] = [models.indexOf(a), models.indexOf(b)];
    if (i < 0 || j < 0 || i === j || !tests[column.id]) return null;
    const [low, high] = [Math.min(i, j), Math.max(i, j)];
    // Pairs come as (0, 1), (0, 2), …, (1, 2), …
    const test = tests[column.id][low * models.length - (low * (low + 1)) / 2 + high - low - 1];
    if (test === null || test.length === 1 || i < j) return test;
    const turned = (tenths) => (tenths === null ? null : -tenths);
    return [turned(test[0]), turned(test[2]), turned(test[1]), test[3], test[4]];
  }

  function inWords(test) {
    if (test === null) return "no paired test";
    if (test.length === 1) return `not tested: ${DATA.strings[test[0]]}`;
    const [difference, low, high, p, significant] = test;
    const higher = `${difference > 0 ? "A" : "B"} is higher by ${percent(Math.abs(difference))} points`;
    const first = difference === 0 ? "A and B are equal to one decimal" : higher;
    const interval = low === null ? "no interval" : `95 % interval of A − B: ${signed(low)} to ${signed(high)}`;
    const verdict = p === null ? "no p-value" : significant ? "shown to differ" : "not shown to differ";
    return `${first}; ${verdict} (${interval}${p === null ? "" : `; adjusted p ${p}`})`;
  }

  function drawComparison() {
    const rows = table().rows;
    const [a, b] = [view.a, view.b].map((name) => rows.find((row) => row.model === name));
    const body = byId("comparison").tBodies[0];
    body.closest(".scroll").hidden = !a || !b || a === b;
    if (!a || !b || a === b) {
      byId("paired").textContent = rows.length < 2 ? "There is one model only." : "Choose two different models.";
      body.replaceChildren();
      return;
    }
    const value = (row, column) => shownCell(row.cells[column.place] ?? null);
    const line = (column) => element("tr", {},
      element("th", { scope: "row", textContent: column.name.replace(/ %$/, "") }),
      element("td", { textContent: inWords(testOf(column, a.model, b.model)) }),
      ...[a, b].map((row) => element("td", { className: "number", textContent: value(row, column) })));
    body.replaceChildren(...placedColumns().filter((column) => column.group === undefined).map(line));
    byId("paired").textContent = `A = ${a.model}, B = ${b.model}. ${aboutTests(a.model, b.model)}`;
  }

  function aboutTests(a, b) {
    const pairs = table().pairs;
    if (!pairs || !pairs.models.includes(a) || !pairs.models.includes(b)) {
      return "There is no paired test of these two predictions, so nothing here tells whether they differ: "
        + "run 'dfad-bench compare' on them.";
    }
    const told = ["Adjusted p: for all pairs of models by this mean (maxT); below 0.05 two models are shown to differ."];
    if (pairs.clusters < DATA.few) {
      told.push(`There are ${pairs.clusters} clusters of faces, fewer than ${DATA.few}: p is too small to be believed.`);
    }
    if (pairs.left_out.length) {
      told.push(`Too many tests for this page, so left out: ${pairs.left_out.join(", ")}; 'dfad-bench compare' tests any two.`);
    }
    return told.join(" ");
  }

  // --- provenance -------------------------------------------------------------------------------------------------------

  function showProvenance(name) {
    const row = table().rows.find((each) => each.model === name);
    byId("whose").textContent = `${row.model} on ${table().title}`;
    const marks = (row.marks ?? []).map(([kind, place]) => [kind, DATA.strings[place]]);
    const facts = DATA.facts.map((label, place) => [label, DATA.strings[row.facts[place]]]);
    byId("facts").replaceChildren(...[["standing", row.standing], ...marks, ...facts].flatMap(([label, text]) => [
      element("dt", { textContent: label }), element("dd", { textContent: text })]));
    const link = row.link ? [element("a", { href: row.link, textContent: "the whole result file, with every number" })] : [];
    byId("file").replaceChildren(...link);
    byId("provenance").showModal();
  }

  // --- controls ---------------------------------------------------------------------------------------------------------

  function choose(id, options) {
    const key = JSON.stringify(options);
    if (byId(id).dataset.key !== key) {
      byId(id).replaceChildren(...options.map(([value, text]) => element("option", { value, textContent: text })));
      byId(id).dataset.key = key;
    }
    if (!options.some(([value]) => value === view[id])) view[id] = options.length ? options[0][0] : "";
    byId(id).value = view[id];
  }

  function drawControls() {
    const { columns, rows, perturbations } = table();
    const found = (name) => [...new Set(columns.map((column) => column[name]).filter(Boolean))].sort();
    const kinds = (name) => found(name).map((kind) => [kind, kind]);
    choose("table", DATA.tables.map(({ id, title }) => [id, title]));
    const levels = Object.entries(LEVELS).filter(([level]) => columns.some((column) => column.level === level));
    choose("level", [["", "all"], ...levels]);
    choose("groups", Object.entries(GROUPS));
    choose("family", [["", "any"], ...kinds("family")]);
    choose("type", [["", "any"], ...kinds("type")]);
    choose("perturbation", [["", "none"], ...perturbations.map((name) => [name, name])]);
    choose("severity", Object.entries(SEVERITIES));
    const models = rows.map(({ model }) => [model, model]);
    choose("a", models);
    if (!rows.some(({ model }) => model === view.b)) view.b = rows[Math.min(1, rows.length - 1)].model;  // not A itself
    choose("b", models);
    byId("perturbations").hidden = perturbations.length === 0;
    byId("severities").hidden = view.perturbation === "";
    for (const id of ["groups", "family", "type"]) byId(id).disabled = view.perturbation !== "";
    if (byId("q").value !== view.q) byId("q").value = view.q;
    if (!isScore(view.sort) && !["standing", "model", "parameters", "inputs"].includes(view.sort)) {
      Object.assign(view, { sort: "standing", order: "" });
    }
    drawPicker();
  }

  const pickable = () => [...offeredColumns(), { id: "parameters", name: "parameters" }, { id: "inputs", name: "inputs" }];

  function drawPicker() {
    const offered = pickable();
    const key = JSON.stringify(offered.map(({ id }) => id));
    if (byId("columns").dataset.key !== key) {
      byId("columns").replaceChildren(...offered.map(({ id, name }) => {
        const box = element("input", { type: "checkbox", value: id });
        return element("label", {}, box, element("span", { textContent: name }));
      }));
      byId("columns").dataset.key = key;
    }
    const boxes = [...byId("columns").querySelectorAll("input")];
    for (const box of boxes) box.checked = !view.hide.includes(box.value);
    byId("picked").textContent = `(${boxes.filter((box) => box.checked).length} of ${boxes.length})`;
  }

  // --- the address ------------------------------------------------------------------------------------------------------

  function address() {
    const parameters = new URLSearchParams([["table", view.table]]);
    for (const name of Object.keys(START)) {
      if (view[name] !== START[name]) parameters.set(name, view[name]);
    }
    for (const id of view.hide) parameters.append("hide", id);
    return `#${parameters}`;
  }

  function readAddress() {
    const parameters = new URLSearchParams(location.hash.slice(1));
    const read = { ...START, table: parameters.get("table") ?? DATA.tables[0].id, hide: parameters.getAll("hide") };
    for (const name of Object.keys(START)) read[name] = parameters.get(name) ?? START[name];
    const known = TABLES.has(read.table);
    view = known ? read : { ...read, table: DATA.tables[0].id };
    draw();
    if (!known) byId("status").prepend(`The link names a table that is not on this page: ${read.table}. `);
  }

  function draw() {
    drawControls();
    byId("title").textContent = table().title;
    byId("warning").textContent = table().warning ? `Warning: ${table().warning}` : "";
    byId("ranked").textContent = `By ${table().ranked.join(", then by ")}.`;
    drawTable();
    drawComparison();
    byId("link").href = address();
    history.replaceState(null, "", address());
  }

  function change(changes) {
    Object.assign(view, changes);
    draw();
  }

  function sortBy(id) {
    const again = view.sort === id;
    view.order = again ? (falls() ? "asc" : "desc") : "";
    change({ sort: id });
  }

  if (!DATA.tables.length) {
    byId("app").replaceChildren(element("p", { textContent: "No result yet." }));
    byId("app").hidden = false;
    return;
  }
  for (const id of SELECTS) byId(id).addEventListener("change", (event) => change({ [id]: event.target.value }));
  byId("q").addEventListener("input", (event) => change({ q: event.target.value }));
  byId("columns").addEventListener("change", ({ target }) =>
    change({ hide: target.checked ? view.hide.filter((id) => id !== target.value) : [...view.hide, target.value] }));
  byId("all").addEventListener("click", () => change({ hide: [] }));
  byId("none").addEventListener("click", () => change({ hide: pickable().map(({ id }) => id) }));
  byId("reset").addEventListener("click", () => change({ ...START, hide: [] }));
  byId("results").addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (button?.dataset.sort !== undefined) sortBy(button.dataset.sort);
    if (button?.dataset.model !== undefined) showProvenance(button.dataset.model);
  });
  byId("close").addEventListener("click", () => byId("provenance").close());
  window.addEventListener("hashchange", readAddress);
  byId("app").hidden = false;
  readAddress();
})();
