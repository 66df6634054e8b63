"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const PER_PAGE = 60;
  const said = new Map();
  const state = { shown: [], page: 0, at: 0, repeat: null };

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  };
  const nameOf = (image) => image.name ?? image.id;
  const shortName = (image) => nameOf(image).split(/[/#]/).pop() || nameOf(image);
  const isolated = (text) => make("bdi", {}, text);
  const fixed = (value, digits) => (value === undefined ? "–" : value.toFixed(digits));
  const isIn = (element) => element instanceof HTMLElement && element.closest("input, select, textarea, summary") !== null;

  // What people said is kept in this browser, if it lets the page keep anything.
  const SHELF = `patchead ${data.night} ${data.runs.join(" ")}`;
  const remember = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a private window */ } };
  const recall = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
  let unsaved = false;

  // Theme
  const THEMES = ["system", "light", "dark"];
  const setTheme = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    $("theme").textContent = `Theme: ${theme}`;
    $("theme").value = theme;
  };
  setTheme(THEMES.includes(recall("patchead theme")) ? recall("patchead theme") : "system");
  $("theme").addEventListener("click", () => {
    const theme = THEMES[(THEMES.indexOf($("theme").value) + 1) % THEMES.length];
    setTheme(theme);
    remember("patchead theme", theme);
  });

  // Filters
  const option = (value, text) => make("option", { value }, text);
  $("by-group").append(option("", "all products"), ...data.groups.map((name, number) => option(String(number), name)));
  for (const [name, values] of Object.entries(data.keys)) {
    const select = make("select", { "data-key": name }, option("", "all"), ...values.map((value) => option(value, value)));
    $("by-keys").append(make("label", {}, name, " ", select));
  }
  const VERDICTS = {
    flagged: (image) => image.flagged === 1,
    calm: (image) => image.lacking === undefined && image.flagged !== 1,
    lacking: (image) => image.lacking !== undefined,
    repeat: (image) => image.repeat !== undefined,
    said: (image) => said.has(image.id) || image.label !== undefined,
    unsaid: (image) => image.flagged === 1 && !said.has(image.id) && image.label === undefined,
  };
  const ORDERS = {
    best: (a, b) => (a.z ?? Infinity) - (b.z ?? Infinity),
    name: (a, b) => nameOf(a).localeCompare(nameOf(b)),
    time: (a, b) => (a.at ?? "\uffff").localeCompare(b.at ?? "\uffff"),
  };
  const chosenKeys = () => [...$("by-keys").querySelectorAll("select")].filter((s) => s.value !== "");
  const filter = (keep) => {
    const group = $("by-group").value;
    const verdict = VERDICTS[$("by-verdict").value] ?? (() => true);
    const text = $("by-name").value.trim().toLowerCase();
    const keys = chosenKeys().map((select) => [select.dataset.key, select.value]);
    state.shown = data.images.filter((image) =>
      (group === "" || image.group === Number(group)) &&
      (state.repeat === null || image.repeat === state.repeat) &&
      keys.every(([name, value]) => image.keys?.[name] === value) &&
      verdict(image) && (text === "" || nameOf(image).toLowerCase().includes(text)));
    const order = ORDERS[$("order").value];
    if (order) state.shown = [...state.shown].sort(order);
    const at = keep === undefined ? -1 : state.shown.indexOf(keep);
    show(at < 0 ? 0 : at, false);
  };

  // The grid
  const card = (image, at) => {
    const file = image.files?.thumbnail;
    const picture = file
      ? make("img", { src: file, alt: "", loading: "lazy", decoding: "async", width: 120, height: 120 })
      : make("span", { class: "none" }, image.lacking === "failed" ? "failed" : "no picture");
    const line = make("span", { class: "line" }, make("b", {}, image.z === undefined ? (image.lacking ?? "") : `z ${image.z.toFixed(1)}`));
    if (image.flagged === 1) line.append(make("span", { class: "flag" }, "flagged"));
    const verdict = said.get(image.id) ?? image.label;
    const file_line = make("span", { class: "file", title: nameOf(image) }, isolated((verdict ? `${verdict}: ` : "") + shortName(image)));
    const button = make("button", { type: "button", "data-at": at, "aria-current": at === state.at ? "true" : null }, picture, line, file_line);
    return make("li", {}, button);
  };
  const pages = () => Math.max(1, Math.ceil(state.shown.length / PER_PAGE));
  const drawGrid = () => {
    const first = state.page * PER_PAGE;
    const inside = $("grid").contains(document.activeElement);
    $("grid").replaceChildren(...state.shown.slice(first, first + PER_PAGE).map((image, n) => card(image, first + n)));
    if (state.shown.length === 0) $("grid").append(make("li", { class: "nothing" }, "No image is like this."));
    if (inside) $("grid").querySelector("[aria-current]")?.focus({ preventScroll: true });
    $("where").textContent = `page ${state.page + 1} of ${pages()}`;
    $("back").disabled = state.page === 0;
    $("on").disabled = state.page + 1 >= pages();
    $("pages").hidden = pages() === 1;
    const flagged = state.shown.filter((image) => image.flagged === 1).length;
    const family = state.repeat === null ? "" : `, family ${state.repeat}`;
    $("count").textContent = `${state.shown.length} of ${data.images.length} images, ${flagged} flagged${family}`;
  };

  // The chosen image
  const chosen = () => state.shown[state.at];
  const drawStack = (image) => {
    const file = image.files?.picture ?? image.files?.thumbnail;
    $("stack").replaceChildren();
    if (file) {
      const [width, height] = image.size ?? [1, 1];
      const frame = make("div", { class: "frame" });
      frame.style.aspectRatio = `${width} / ${height}`;
      frame.style.maxWidth = `calc(min(44vh, 500px) * ${width / height})`;
      frame.append(make("img", { class: "photo", src: file, alt: `Photo of ${nameOf(image)}` }));
      if (image.files.heatmap) frame.append(make("img", { class: "heat", id: "heat", src: image.files.heatmap, alt: `Heatmap of ${nameOf(image)}` }));
      const space = "http://www.w3.org/2000/svg";
      const svg = document.createElementNS(space, "svg");
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("id", "regions");
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", `${image.boxes?.length ?? 0} regions`);
      for (const [x, y, w, h, peak] of image.boxes ?? []) {
        for (const which of ["under", "over"]) {
          const box = document.createElementNS(space, "rect");
          for (const [name, value] of Object.entries({ x, y, width: w, height: h, class: which })) box.setAttribute(name, value);
          const title = document.createElementNS(space, "title");
          title.textContent = `peak ${peak}`;
          box.append(title);
          svg.append(box);
        }
      }
      for (const [x, y, w, h, text] of image.links ?? []) {
        const patch = document.createElementNS(space, "rect");
        for (const [name, value] of Object.entries({ x, y, width: w, height: h, class: "link" })) patch.setAttribute(name, value);
        const title = document.createElementNS(space, "title");
        title.textContent = text;
        patch.append(title);
        svg.append(patch);
      }
      frame.append(svg);
      $("stack").append(frame);
    }
    const why = image.unseen ?? (file && !image.files.picture ? "A thumbnail: only the worst images have a larger picture here." : null);
    $("unseen").hidden = why === null;
    $("unseen").textContent = why ?? "";
    $("fade").disabled = !image.files?.heatmap;
    fade();
  };
  const fade = () => {
    if ($("heat")) $("heat").style.opacity = String(Number($("fade").value) / 100);
    if ($("regions")) $("regions").style.display = $("boxes").checked ? "" : "none";
  };
  const drawFacts = (image) => {
    const facts = [];
    const gist = [data.groups[image.group] ?? image.product];
    if (image.z !== undefined) gist.push(`z ${image.z.toFixed(2)}`, `rank ${image.rank} of ${image.of}`);
    if (image.flagged === 1) gist.push("flagged");
    $("gist").replaceChildren(...gist.flatMap((text, n) => [n ? " · " : "", isolated(text)]));
    for (const [name, value] of Object.entries(image.keys ?? {})) facts.push([name, value]);
    if (image.score !== undefined) facts.push(["Score", `${fixed(image.score, 4)}; threshold ${fixed(image.limit, 4)}`]);
    if (image.p !== undefined) facts.push(["p", String(image.p)]);
    if (image.repeat !== undefined) facts.push(["Recurs", `family ${image.repeat} of its product`]);
    if (image.boxes) facts.push(["Regions", `${image.boxes.length}, the highest at ${image.boxes[0].slice(0, 2).join(", ")} (${image.boxes[0].slice(2, 4).join(" × ")} px)`]);
    if (image.called) facts.push(["Called", image.called]);
    if (image.size) facts.push(["Size", image.size.join(" × ")]);
    if (image.at) facts.push(["Taken", image.at]);
    if (image.label) facts.push(["Recorded", image.label]);
    if (image.error) facts.push([image.lacking ? "No score" : "Note", image.error]);
    $("facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {}, isolated(name)), make("dd", {}, isolated(value))]));
  };
  const drawCompared = (image) => {
    const found = image.nearest;
    $("compared").replaceChildren();
    if (found === undefined) return;
    $("compared").append(make("h3", {}, "What its worst patch was compared with"));
    if (typeof found === "string") { $("compared").append(make("p", { class: "small" }, found)); return; }
    const some = found.looked < found.of ? `; ${found.looked} of the ${found.of} were looked at` : "";
    $("compared").append(make("p", { class: "small" }, `Patch score ${fixed(found.score, 4)}, from ${found.of} images. The most similar patches of other images${some}:`));
    const picture = (file, alt) => (file ? make("img", { src: file, alt, loading: "lazy" }) : make("span", { class: "none" }, "no picture"));
    const list = make("ul", { class: "patches" }, make("li", {}, picture(found.file, "The worst patch, framed"), make("b", {}, "worst patch")));
    for (const patch of found.patches) {
      const short = patch.name.split(/[/#]/).pop();
      list.append(make("li", { title: patch.name }, picture(patch.file, `Patch of ${patch.name}, framed`), `distance ${fixed(patch.distance, 4)}`, make("br"), isolated(short)));
    }
    $("compared").append(list);
  };
  const drawVerdict = (image) => {
    const verdict = image && said.get(image.id);
    $("say-defect").setAttribute("aria-pressed", String(verdict === "defect"));
    $("say-good").setAttribute("aria-pressed", String(verdict === "good"));
    $("save").textContent = said.size ? `Save ${said.size} verdict${said.size > 1 ? "s" : ""}` : "Save verdicts";
    $("save").disabled = said.size === 0;
  };
  const show = (at, move = true) => {
    state.at = Math.max(0, Math.min(at, state.shown.length - 1));
    state.page = Math.max(0, Math.floor(state.at / PER_PAGE));
    drawGrid();
    const image = chosen();
    $("viewer").hidden = !image;
    if (!image) return;
    $("chosen").replaceChildren(isolated(nameOf(image)));
    drawStack(image);
    drawFacts(image);
    drawCompared(image);
    drawVerdict(image);
    $("previous").disabled = state.at === 0;
    $("next").disabled = state.at + 1 >= state.shown.length;
    if (move) $("grid").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
    const after = state.shown[state.at + 1];
    if (after?.files?.picture) { new Image().src = after.files.picture; if (after.files.heatmap) new Image().src = after.files.heatmap; }
  };

  // Verdicts
  const say = (verdict) => {
    const image = chosen();
    if (!image) return;
    if (verdict === null || said.get(image.id) === verdict) said.delete(image.id); else said.set(image.id, verdict);
    unsaved = said.size > 0;
    remember(SHELF, JSON.stringify([...said]));
    const now = said.get(image.id);
    $("heard").textContent = now ? `${shortName(image)}: ${now}` : `${shortName(image)}: no verdict`;
    drawVerdict(image);
    drawGrid();
  };
  const NEXT = { undefined: "defect", defect: "good", good: null };
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const save = () => {
    if (!said.size) return;
    const runOf = new Map(data.images.map((image) => [image.id, data.runs[image.run]]));
    const lines = [...said].map(([id, verdict]) => [id, verdict, runOf.get(id)].map(quoted).join(","));
    const blob = new Blob(["image_id,verdict,run_id\r\n", lines.join("\r\n"), "\r\n"], { type: "text/csv" });
    const link = make("a", { href: URL.createObjectURL(blob), download: `verdicts-${data.night}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    unsaved = false;
    $("heard").textContent = `Saved as verdicts-${data.night}.csv: patchead feedback reads it.`;
  };
  const known = new Set(data.images.map((image) => image.id));
  try { for (const [id, verdict] of JSON.parse(recall(SHELF) ?? "[]")) if (known.has(id)) said.set(id, verdict); } catch { /* not ours */ }

  // What people do
  $("filters").addEventListener("input", () => { state.repeat = null; filter(); });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(() => { state.repeat = null; filter(); }));
  $("grid").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    show(Number(button.dataset.at), false);
    $("grid").querySelector("[aria-current]")?.focus({ preventScroll: true });
    if (matchMedia("(max-width: 900px)").matches) $("viewer").scrollIntoView({ block: "start" });
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.choose");
    if (!link) return;
    $("filters").reset();
    setTimeout(() => {
      $("by-group").value = link.dataset.group ?? "";
      const select = [...$("by-keys").querySelectorAll("select")].find((each) => each.dataset.key === link.dataset.key);
      if (select) select.value = link.dataset.value;
      state.repeat = link.dataset.repeat ? Number(link.dataset.repeat) : null;
      filter();
    });
  });
  $("previous").addEventListener("click", () => show(state.at - 1));
  $("next").addEventListener("click", () => show(state.at + 1));
  $("back").addEventListener("click", () => show((state.page - 1) * PER_PAGE));
  $("on").addEventListener("click", () => show((state.page + 1) * PER_PAGE));
  $("fade").addEventListener("input", fade);
  $("boxes").addEventListener("input", fade);
  $("say-defect").addEventListener("click", () => say("defect"));
  $("say-good").addEventListener("click", () => say("good"));
  $("save").addEventListener("click", save);
  const KEYS = {
    j: () => show(state.at + 1),
    k: () => show(state.at - 1),
    f: () => say(NEXT[said.get(chosen()?.id)]),
    d: () => say("defect"),
    g: () => say("good"),
    h: () => { if (!$("fade").disabled) { $("fade").value = $("fade").value === "0" ? "100" : "0"; fade(); } },
    r: () => { $("boxes").checked = !$("boxes").checked; fade(); },
  };
  document.addEventListener("keydown", (event) => {
    if (!$("listening").checked || event.ctrlKey || event.metaKey || event.altKey || (isIn(event.target) && event.target.type !== "range" && event.target.type !== "checkbox")) return;
    if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
  });
  addEventListener("beforeunload", (event) => { if (unsaved && recall(SHELF) === null) event.preventDefault(); });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => { details.open = true; }));

  $("filters").hidden = false;
  $("desk").hidden = false;
  filter();
})();
