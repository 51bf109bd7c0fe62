/**
 * The review of florence_lab: a grid of labels to accept, reject, rename and redraw, and an editor for the boxes of an image.
 *
 * One ES module without a build step. anywidget calls `render` once for each view of the model. The traits of the model are
 * listed in widget.py. The current card, the open editor and what is drawn there belong to a view; verdicts are sent as
 * messages, and come back as the traits `cards` and `counts`.
 *
 * @typedef {object} Context What the parts of one view share.
 * @property {object} model The anywidget model: get, set, save_changes, on, off, send.
 * @property {string} id A prefix for ids of elements.
 * @property {HTMLElement} root The root of everything that the review adds.
 * @property {AbortSignal} signal Aborted when the view is removed.
 * @property {(text: string, isError?: boolean) => void} announce Show a text in the status line, which screen readers announce.
 * @property {(target: EventTarget, type: string, handler: Function, options?: object) => void} listen Add a listener that is
 *     removed with the view.
 * @property {(name: string, handler: () => void) => void} on Call `handler` when a trait changes.
 * @property {(content: object) => void} send Send a message to Python.
 * @property {(changes: object) => void} set Set traits and send them to Python.
 *
 * @typedef {object} ReviewObject An object as Python sends it.
 * @property {string} id
 * @property {string} image The name of its image.
 * @property {number} number The number of its image; on cards only.
 * @property {string} label
 * @property {number[]} box x0, y0, x1, y1 in pixels of the image.
 * @property {number[][]} polygons Outlines as x, y, x, y, …; empty for a box.
 * @property {number} score
 * @property {string} found_by
 * @property {string} verdict "", "accepted", "rejected", "changed" or "added".
 * @property {string} original_label
 */

const SVG = "http://www.w3.org/2000/svg";
const PALETTE = ["#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#F0E442", "#CC79A7"]; // as in visualization/style.py
const NO_SHORTCUTS = "data-lm-suppress-shortcuts";
const MAX_THUMBNAILS = 240;
const CLICK_PX = 4; // a gesture that moves less is a click
const HANDLE_PX = 12;
const MIN_BOX_PX = 1; // image pixels
const ASPECT = 4 / 3; // of thumbnails, as in pictures.py

const ICONS = {
  accept: "M3 8.5l3.2 3.2L13 4.8",
  reject: "M4 4l8 8M12 4l-8 8",
  rename: "M3 13l.7-2.9 7.4-7.4 2.2 2.2-7.4 7.4zM9.8 4l2.2 2.2",
  redraw: "M4.8 3.5h6.4M4.8 12.5h6.4M3.5 4.8v6.4M12.5 4.8v6.4M2.2 2.2h2.6v2.6H2.2zM11.2 2.2h2.6v2.6h-2.6zM2.2 11.2h2.6v2.6H2.2zM11.2 11.2h2.6v2.6h-2.6z",
  undo: "M6 3L3 6l3 3M3 6h6.5a3.5 3.5 0 0 1 0 7H6",
  add: "M8 3v10M3 8h10",
};
const VERDICTS = { accepted: ["accept", "Accepted"], rejected: ["reject", "Rejected"], changed: ["rename", "Changed"], added: ["add", "Added"] };
const SHOWS = [["uncertain", "Uncertain"], ["undecided", "Not reviewed"], ["decided", "Reviewed"], ["all", "All labels"], ["images", "Whole images"]];
const STATES = { written: "All files up to date", waiting: "Saved; files follow …", writing: "Writing files …", failed: "Saved; files not written" };
const FOUND_BY = { person: "by a person", "": "" };
const HELP = [["←↑↓→", "move"], ["A", "accept"], ["R", "reject"], ["E", "rename"], ["B", "redraw"], ["N", "add"], ["U", "undo"]];
const HANDLES = [
  [-1, -1, "nwse"], [0, -1, "ns"], [1, -1, "nesw"], [1, 0, "ew"], [1, 1, "nwse"], [0, 1, "ns"], [-1, 1, "nesw"], [-1, 0, "ew"],
];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const fill = (element, className, attributes, children) => {
  if (className) element.setAttribute("class", className);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

/** Create an element; the attribute `text` sets its text, null leaves one out. */
const make = (tag, className = "", attributes = {}, ...children) =>
  fill(document.createElement(tag), className, attributes, children);

/** Create an SVG element, like `make`. */
const draw = (tag, className = "", attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), className, attributes, children);

const makeIcon = (name) =>
  draw("svg", "flr-icon", { viewBox: "0 0 16 16", "aria-hidden": "true" }, draw("path", "", { d: ICONS[name] }));

/** Create a button with an icon and a text; `title` names it for screen readers, too. */
const makeButton = (icon, text, title = null, className = "") =>
  make("button", `flr-button ${className}`.trim(), { type: "button", title, "aria-label": title },
    ...(icon ? [makeIcon(icon)] : []), make("span", "flr-text", { text }));

const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

const isTyping = (target) => target.closest?.("input, select, textarea") != null;

const setBox = (rect, [x0, y0, x1, y1]) =>
  Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 }).forEach(([name, value]) => rect.setAttribute(name, value));

/** Draw an object: its outline, and two rectangles, a dark one below, so that the box is seen on each image. */
const drawObject = ({ box, polygons }, color, className = "") => {
  const group = draw("g", `flr-box ${className}`.trim(), { style: `--flr-color: ${color}` }, draw("rect", "flr-halo"), draw("rect", "flr-frame"));
  for (const rect of group.children) setBox(rect, box);
  if (polygons.length) group.prepend(draw("path", "flr-outline", { d: polygons.map((points) => `M${points.join(" ")}Z`).join("") }));
  return group;
};

// --- Context

const createContext = (model, el) => {
  const controller = new AbortController();
  const { signal } = controller;
  const root = make("div", "flr-review", { [NO_SHORTCUTS]: "", role: "region", "aria-label": "Review of labels" });
  const status = make("div", "flr-status", { role: "status" });
  const subscribe = (event, handler) => {
    model.on(event, handler);
    signal.addEventListener("abort", () => model.off(event, handler), { once: true });
  };
  const context = {
    id: `flr-${Math.random().toString(36).slice(2, 10)}`,
    model, root, status, signal,
    announce: (text, isError = false) => {
      status.classList.toggle("flr-failed", isError);
      setText(status, text);
    },
    listen: (target, type, handler, options = {}) => target.addEventListener(type, handler, { ...options, signal }),
    on: (name, handler) => subscribe(`change:${name}`, () => handler()),
    onMessage: (handler) => subscribe("msg:custom", handler),
    onCleanup: (handler) => signal.addEventListener("abort", handler, { once: true }),
    send: (content) => model.send(content),
    set: (changes) => {
      for (const [name, value] of Object.entries(changes)) model.set(name, value);
      model.save_changes();
    },
    colorOf: (label) => PALETTE[Math.max(0, model.get("classes").indexOf(label)) % PALETTE.length],
  };
  keepKeys(context);
  context.onCleanup(() => root.remove());
  el.append(root);
  return [context, () => controller.abort()];
};

/**
 * Keep keys without Ctrl or Cmd from Jupyter's shortcuts: "x" would cut the cell. Lumino looks for the attribute on the focused
 * element and its ancestors up to the one that the selector of a shortcut matches, which may be the focused element itself.
 * @param {Context} context
 */
const keepKeys = ({ root, listen, onCleanup }) => {
  let keeper = null; // the element that received the last key
  listen(window, "keydown", (event) => {
    keeper?.removeAttribute(NO_SHORTCUTS);
    keeper = root.contains(event.target) ? event.target : null;
    const isKept = !event.ctrlKey && !event.metaKey;
    keeper?.toggleAttribute(NO_SHORTCUTS, isKept);
    root.toggleAttribute(NO_SHORTCUTS, isKept);
  }, { capture: true });
  onCleanup(() => keeper?.removeAttribute(NO_SHORTCUTS));
};

/**
 * Find the class that a typed text means: its name in any case, or the only one that begins so.
 * @returns {?string}
 */
const findClass = (classes, text) => {
  const typed = text.trim().toLowerCase();
  if (!typed) return null;
  const same = classes.find((name) => name.toLowerCase() === typed);
  const starting = classes.filter((name) => name.toLowerCase().startsWith(typed));
  return same ?? (starting.length === 1 ? starting[0] : null);
};

/** Create a field for the name of a class, with all classes to choose from. */
const makeClassField = (context, name, className) =>
  make("input", className, {
    type: "text", list: `${context.id}-classes`, autocomplete: "off", spellcheck: "false", "aria-label": name,
  });

// --- Header: progress, what is listed, undo, state of the files

const createHeader = (context, actions) => {
  const { model, listen, on } = context;
  const bar = make("progress", "flr-progress", { "aria-label": "Reviewed labels" });
  const done = make("span", "flr-done");
  const detail = make("span", "flr-detail");
  const show = make("select", "flr-select", { "aria-label": "Labels to list" });
  const classes = make("select", "flr-select", { "aria-label": "Class to list" });
  const again = makeButton(null, "Refresh", "Refresh the list: labels with a verdict leave it");
  const undo = makeButton("undo", "Undo", "Undo the last change (U)");
  const state = make("span", "flr-state");
  const help = make("div", "flr-help", { "aria-hidden": "true" },
    ...HELP.map(([key, text]) => make("span", "", {}, make("kbd", "flr-key", { text: key }), ` ${text}`)));
  const note = make("div", "flr-note", { role: "alert", hidden: "" });
  const element = make("div", "flr-header", {},
    make("div", "flr-row", {}, make("div", "flr-count", {}, make("div", "flr-sums", {}, done, detail), bar), state),
    make("div", "flr-row flr-controls", {}, make("label", "flr-field", {}, "Show", show), make("label", "flr-field", {}, "Class", classes), undo, again),
    make("div", "flr-row flr-below", {}, context.status, help), note);

  const showChoices = () => {
    const shows = SHOWS.filter(([value]) => value !== "uncertain" || model.get("has_bounds"));
    show.replaceChildren(...shows.map(([value, text]) => make("option", "", { value, text })));
    classes.replaceChildren(make("option", "", { value: "", text: "All classes" }), ...model.get("classes").map((name) => make("option", "", { value: name, text: name })));
    show.value = model.get("show");
    classes.value = model.get("class_name");
  };
  const update = () => {
    const counts = model.get("counts");
    const sums = Object.keys(VERDICTS).map((name) => [name, counts[name] ?? 0]);
    const decided = sums.reduce((total, [, count]) => total + count, 0);
    const total = decided + (counts.undecided ?? 0);
    setText(done, `${decided.toLocaleString("en")} of ${plural(total, "label")} reviewed`);
    const parts = sums.filter(([, count]) => count).map(([name, count]) => `${count.toLocaleString("en")} ${name}`);
    if (counts.uncertain) parts.push(`${counts.uncertain.toLocaleString("en")} uncertain left`);
    setText(detail, parts.join(" · "));
    bar.max = Math.max(total, 1);
    bar.value = decided;
    undo.disabled = !model.get("can_undo");
    state.dataset.state = model.get("state");
    setText(state, STATES[model.get("state")]);
    setText(note, model.get("note"));
    note.hidden = !model.get("note");
  };
  listen(show, "change", () => context.set({ show: show.value }));
  listen(classes, "change", () => context.set({ class_name: classes.value }));
  listen(again, "click", () => context.send({ kind: "list" }));
  listen(undo, "click", actions.undo);
  for (const name of ["counts", "can_undo", "state", "note"]) on(name, update);
  for (const name of ["show", "class_name", "classes", "has_bounds"]) on(name, showChoices);
  showChoices();
  update();
  return element;
};

// --- Thumbnails, fetched when a card needs one

const createThumbnails = (context, onArrival) => {
  const known = new Map(); // card id -> {key, url, region, shown, error}
  const wanted = new Map(); // card id -> key
  context.onMessage((content, buffers) => {
    if (content.kind !== "thumbnail" || !wanted.has(content.id)) return;
    const before = known.get(content.id);
    if (before?.url) URL.revokeObjectURL(before.url);
    const url = content.error ? null : URL.createObjectURL(new Blob([buffers[0]], { type: "image/jpeg" }));
    known.delete(content.id);
    known.set(content.id, { ...content, url, key: wanted.get(content.id) });
    wanted.delete(content.id);
    onArrival(content.id);
  });
  context.onCleanup(() => { for (const { url } of known.values()) if (url) URL.revokeObjectURL(url); });

  const keyOf = (card) => (card.box ? card.box.join() : "image");
  return {
    get: (id) => known.get(id),
    /** Ask for the thumbnails that are missing, and forget the oldest of those that no card shows. */
    request: (cards) => {
      const missing = cards.filter((card) => known.get(card.id)?.key !== keyOf(card) && wanted.get(card.id) !== keyOf(card));
      for (const card of missing) wanted.set(card.id, keyOf(card));
      if (missing.length) context.send({ kind: "thumbnails", ids: missing.map((card) => card.id) });
      const shown = new Set(cards.map((card) => card.id));
      for (const [id, { url }] of known) {
        if (known.size <= MAX_THUMBNAILS) break;
        if (shown.has(id)) continue;
        if (url) URL.revokeObjectURL(url);
        known.delete(id);
      }
    },
  };
};

// --- Cards

const describe = (card) =>
  card.objects
    ? `${card.image}, ${plural(countObjects(card), "object")}`
    : [card.label, `score ${card.score.toFixed(2)}`, card.image, card.verdict || "not reviewed"].join(", ");

const countObjects = (card) => card.objects.filter((item) => item.verdict !== "rejected").length;

const sourceOf = (card) => (card.verdict === "changed" && card.original_label !== card.label ? `was ${card.original_label}` : FOUND_BY[card.found_by] ?? card.found_by);

const createCard = (context) => {
  const image = make("img", "flr-image", { alt: "", draggable: "false" });
  const svg = draw("svg", "flr-overlay", { "aria-hidden": "true", preserveAspectRatio: "none" });
  const mark = make("span", "flr-mark");
  const problem = make("span", "flr-problem");
  const thumb = make("div", "flr-thumb", { "data-act": "current" }, image, svg, mark, problem);
  const swatch = make("span", "flr-swatch");
  const label = make("span", "flr-label", { title: "Double-click to rename" });
  const score = make("span", "flr-score");
  const line = make("div", "flr-line", {}, swatch, label, score);
  const source = make("div", "flr-source");
  const buttons = {
    accept: makeButton("accept", "Accept", "Accept (A or Enter)", "flr-accept"),
    reject: makeButton("reject", "Reject", "Reject (R or Delete)", "flr-reject"),
    rename: makeButton("rename", "", "Rename (E)", "flr-small"),
    redraw: makeButton("redraw", "", "Redraw the box, or add objects (B, N)", "flr-small"),
    open: makeButton("redraw", "Open", "Open to check the boxes, and to add missed objects (Enter)", "flr-open"),
  };
  for (const [act, button] of Object.entries(buttons)) button.dataset.act = act;
  const element = make("li", "flr-card", { tabindex: "-1", role: "group" }, thumb, line, source, make("div", "flr-actions", {}, ...Object.values(buttons)));
  const part = { element, buttons, label, line, card: null };

  part.show = (card, thumbnail) => {
    part.card = card;
    element.dataset.id = card.id;
    element.dataset.verdict = card.verdict ?? "";
    element.setAttribute("aria-label", describe(card));
    setText(label, card.objects ? card.image : card.label);
    label.title = card.objects ? card.image : "Double-click to rename";
    setText(score, card.objects ? "" : card.score.toFixed(2));
    setText(source, card.objects ? plural(countObjects(card), "object") : [sourceOf(card), card.image].filter(Boolean).join(" · "));
    source.title = source.textContent;
    swatch.style.background = card.objects ? "transparent" : context.colorOf(card.label);
    swatch.hidden = Boolean(card.objects);
    for (const [act, button] of Object.entries(buttons)) button.hidden = (act === "open") !== Boolean(card.objects);
    const [icon, text] = VERDICTS[card.verdict] ?? [];
    mark.replaceChildren(...(icon ? [makeIcon(icon), text] : []));
    mark.hidden = !icon;
    showThumbnail(card, thumbnail);
  };
  const showThumbnail = (card, thumbnail) => {
    setText(problem, thumbnail?.error ? `The image cannot be shown: ${thumbnail.error}` : "");
    element.classList.toggle("flr-waiting", !thumbnail);
    const url = thumbnail?.url ?? "";
    if (!url) image.removeAttribute("src");
    else if (image.src !== url) image.src = url;
    svg.replaceChildren();
    if (!url) return;
    const [x0, y0, x1, y1] = thumbnail.region;
    const [left, top, right, bottom] = thumbnail.shown;
    const percent = (value, side) => `${(100 * value) / side}%`;
    Object.assign(image.style, {
      left: percent(left - x0, x1 - x0), top: percent(top - y0, y1 - y0),
      width: percent(right - left, x1 - x0), height: percent(bottom - top, y1 - y0),
    });
    svg.setAttribute("viewBox", [x0, y0, x1 - x0, y1 - y0].join(" "));
    for (const item of card.objects ?? [card]) {
      if (card.objects && item.verdict === "rejected") continue;
      svg.append(drawObject(item, context.colorOf(item.label), item.verdict === "rejected" ? "flr-gone" : ""));
    }
  };
  return part;
};

// --- Grid

const createGrid = (context, actions) => {
  const { model, listen, on } = context;
  const list = make("ul", "flr-grid", { role: "list", "aria-label": "Labels, the least certain first" });
  const empty = make("div", "flr-empty");
  const previous = makeButton(null, "Previous", "Previous page (Page Up)");
  const next = makeButton(null, "Next", "Next page (Page Down)");
  const place = make("span", "flr-place");
  const pager = make("div", "flr-pager", { role: "group", "aria-label": "Pages" }, previous, place, next);
  const element = make("div", "flr-list", {}, list, empty, pager);
  const parts = [];
  let current = 0;
  let wish = null; // {id} or {index}: the card to focus when the cards come
  const thumbnails = createThumbnails(context, (id) => parts.find((part) => part.card?.id === id && part.show(part.card, thumbnails.get(id))));

  const cards = () => model.get("cards");

  const markCurrent = () => {
    parts.forEach(({ element: card, buttons }, index) => {
      const isCurrent = index === current;
      card.tabIndex = isCurrent ? 0 : -1;
      card.classList.toggle("flr-current", isCurrent);
      for (const button of Object.values(buttons)) button.tabIndex = isCurrent ? 0 : -1;
    });
  };
  const goTo = (index, hasFocus = true) => {
    current = clamp(index, 0, Math.max(parts.length - 1, 0));
    markCurrent();
    if (hasFocus && parts[current]) {
      parts[current].element.focus({ preventScroll: true });
      parts[current].element.scrollIntoView({ block: "nearest" });
    }
  };
  const update = () => {
    const shown = cards();
    while (parts.length > shown.length) parts.pop().element.remove();
    while (parts.length < shown.length) {
      parts.push(createCard(context));
      list.append(parts.at(-1).element);
    }
    thumbnails.request(shown);
    shown.forEach((card, index) => {
      const isSame = JSON.stringify(parts[index].card) === JSON.stringify(card);
      if (!isSame) parts[index].show(card, thumbnails.get(card.id));
    });
    const [page, pages, count] = ["page", "num_pages", "num_cards"].map((name) => model.get(name));
    empty.hidden = count > 0;
    list.hidden = !count;
    pager.hidden = pages < 2;
    setText(empty, emptyText());
    setText(place, `Page ${page + 1} of ${pages}`);
    previous.disabled = page < 1;
    next.disabled = page >= pages - 1;
    if (wish) {
      const found = "id" in wish ? shown.findIndex((card) => card.id === wish.id) : wish.index < 0 ? shown.length - 1 : wish.index;
      wish = null;
      if (found >= 0) return goTo(found);
    }
    goTo(current, false);
  };
  const emptyText = () => {
    const { show, class_name: name } = Object.fromEntries(["show", "class_name"].map((trait) => [trait, model.get(trait)]));
    const what = { uncertain: "uncertain labels", undecided: "labels without a verdict", decided: "reviewed labels", all: "labels", images: "images" }[show];
    return `There are no ${what}${name ? ` of the class ${name}` : ""}. ${show === "images" ? "" : "“Whole images” shows where objects were missed."}`.trim();
  };
  const turn = (step, index) => {
    const page = model.get("page") + step;
    if (page < 0 || page >= model.get("num_pages")) return false;
    wish = { index };
    context.set({ page });
    return true;
  };
  const advance = () => {
    if (current + 1 < parts.length) goTo(current + 1);
    else if (!turn(1, 0)) context.announce("This was the last label of the list.");
  };
  const columns = () => {
    const top = parts[0]?.element.offsetTop;
    const count = parts.findIndex((part) => part.element.offsetTop !== top);
    return count < 0 ? Math.max(parts.length, 1) : count;
  };
  /** Move by cards; over the end of a page to the next one. */
  const move = (step) => {
    const index = current + step;
    if (index >= 0 && index < parts.length) goTo(index);
    else if (Math.abs(step) === 1 || index < 0 || current >= parts.length - columns()) turn(Math.sign(step), step > 0 ? 0 : -1);
    else goTo(parts.length - 1);
  };

  /** Give a card a verdict; keys go on to the next card. */
  const decide = (kind, part, isKey) => {
    if (!part?.card || part.card.objects) return;
    context.send({ kind, id: part.card.id });
    context.announce(`${part.card.label} ${kind === "accept" ? "accepted" : "rejected"}`);
    if (isKey) advance();
  };
  const rename = (part) => {
    if (!part?.card || part.card.objects || part.line.querySelector("input")) return;
    startRename(context, part, (isDone, isKey) => {
      if (isKey && isDone) advance();
      else if (isKey) part.element.focus({ preventScroll: true });
    });
  };
  const open = (part, isAdding = false) => {
    if (part?.card) actions.open(part.card.number, part.card.objects ? null : part.card.id, isAdding || Boolean(part.card.objects));
  };
  const run = (act, part, isKey) =>
    ({ accept: () => decide("accept", part, isKey), reject: () => decide("reject", part, isKey), rename: () => rename(part), redraw: () => open(part), open: () => open(part), add: () => open(part, true), undo: actions.undo })[act]?.();

  const partOf = (target) => parts.findIndex((part) => part.element.contains(target));
  listen(list, "click", (event) => {
    const index = partOf(event.target);
    if (index < 0 || isTyping(event.target)) return;
    goTo(index, !event.target.closest("button"));
    run(event.target.closest("[data-act]")?.dataset.act, parts[index], false);
  });
  listen(list, "dblclick", (event) => {
    const part = parts[partOf(event.target)];
    if (event.target.closest(".flr-label")) run(part?.card?.objects ? "open" : "rename", part, false);
    else if (event.target.closest(".flr-thumb")) run("redraw", part, false);
  });
  listen(list, "focusin", (event) => {
    const index = partOf(event.target);
    if (index >= 0 && index !== current) goTo(index, false);
  });
  listen(list, "keydown", (event) => {
    if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const isButton = event.target.closest("button") != null;
    const part = parts[current];
    const { key } = event;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[key];
    const act = { a: "accept", enter: part?.card?.objects ? "open" : "accept", r: "reject", delete: "reject", backspace: "reject", e: "rename", f2: "rename", b: "redraw", n: "add", u: "undo" }[key.toLowerCase()];
    if (isButton && (key === "Enter" || key === " ")) return; // presses the button
    if (step) move(step);
    else if (key === "Home") goTo(0);
    else if (key === "End") goTo(parts.length - 1);
    else if (key === "PageDown") turn(1, 0);
    else if (key === "PageUp") turn(-1, 0);
    else if (act) run(act, part, true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  listen(previous, "click", () => turn(-1, 0));
  listen(next, "click", () => turn(1, 0));
  for (const name of ["cards", "num_cards", "page", "show"]) on(name, update);
  update();
  return {
    element,
    advance,
    focus: () => goTo(current),
    /** Focus a card as soon as it is listed. */
    focusCard: (id) => {
      const index = cards().findIndex((card) => card.id === id);
      if (index >= 0) goTo(index);
      else wish = { id };
    },
  };
};

/**
 * Put a field in place of the label of a card. `onEnd(isDone, isKey)` is called when it is gone.
 */
const startRename = (context, part, onEnd) => {
  const { card, label, line } = part;
  const classes = context.model.get("classes");
  const field = makeClassField(context, `New class of ${card.label}`, "flr-rename");
  field.placeholder = card.label;
  label.hidden = true;
  line.insertBefore(field, label);
  let isOver = false;

  const end = (name, isKey) => {
    if (isOver) return;
    isOver = true;
    field.remove();
    label.hidden = false;
    if (name) {
      context.send({ kind: "rename", id: card.id, label: name });
      context.announce(`${card.label} is now ${name}`);
    }
    onEnd(Boolean(name), isKey);
  };
  const commit = () => {
    const name = findClass(classes, field.value);
    if (name || !field.value.trim()) return end(name, true);
    field.setAttribute("aria-invalid", "true");
    return context.announce(`“${field.value}” is not a class. Classes: ${classes.join(", ")}`, true);
  };
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Enter") commit();
    else end(null, true);
  });
  field.addEventListener("input", (event) => {
    field.removeAttribute("aria-invalid");
    const isChosen = !event.inputType || event.inputType === "insertReplacementText"; // from the list of classes
    if (isChosen && classes.includes(field.value)) end(field.value, true);
  });
  field.addEventListener("blur", () => end(classes.includes(field.value) ? field.value : null, false));
  field.focus();
};

// --- Editor: the boxes of one image

/** Order the corners of a box and clip it to an image, in whole pixels; null if less than a pixel is left. */
const clipBox = ([ax, ay, bx, by], [width, height]) => {
  const [x0, x1] = [Math.min(ax, bx), Math.max(ax, bx)].map((x) => clamp(Math.round(x), 0, width));
  const [y0, y1] = [Math.min(ay, by), Math.max(ay, by)].map((y) => clamp(Math.round(y), 0, height));
  return x1 - x0 < MIN_BOX_PX || y1 - y0 < MIN_BOX_PX ? null : [x0, y0, x1, y1];
};

/** Move a box, no further than to the border of the image: its size stays. */
const moveBox = ([x0, y0, x1, y1], dx, dy, [width, height]) => {
  const [x, y] = [clamp(Math.round(dx), -x0, width - x1), clamp(Math.round(dy), -y0, height - y1)];
  return [x0 + x, y0 + y, x1 + x, y1 + y];
};

/** Return the box of a gesture whose pointer is at (x, y) in image pixels. */
const dragBox = ({ from, before, handle, isInside }, [x, y], size) => {
  const [dx, dy] = [x - from[0], y - from[1]];
  if (handle) {
    const [sx, sy] = handle;
    const [x0, y0, x1, y1] = before;
    return clipBox([x0 + (sx < 0 ? dx : 0), y0 + (sy < 0 ? dy : 0), x1 + (sx > 0 ? dx : 0), y1 + (sy > 0 ? dy : 0)], size);
  }
  return isInside ? moveBox(before, dx, dy, size) : clipBox([...from, x, y], size);
};

const createEditorLayout = (context) => {
  const parts = {
    title: make("span", "flr-title"),
    name: make("span", "flr-detail"),
    target: make("select", "flr-select", { "aria-label": "Object" }),
    label: make("select", "flr-select", { "aria-label": "Class" }),
    save: makeButton("accept", "Save", "Save (Enter)", "flr-primary"),
    add: makeButton("add", "Add object", "Add object: draw one that was missed (N)"),
    reject: makeButton("reject", "Reject", "Reject the object (Delete)", "flr-reject"),
    back: makeButton(null, "Back", "Back to the grid (Escape)"),
    cue: make("div", "flr-cue"),
    image: make("img", "flr-picture", { alt: "", draggable: "false" }),
    svg: draw("svg", "flr-canvas"),
    tags: make("div", "flr-tags", { "aria-hidden": "true" }),
    problem: make("div", "flr-problem"),
  };
  const field = (text, control) => make("label", "flr-field", {}, text, control);
  parts.stage = make("div", "flr-stage", {}, parts.image, parts.svg, parts.tags, parts.problem);
  parts.element = make("div", "flr-editor", { role: "group", "aria-label": "Boxes of an image", hidden: "" },
    make("div", "flr-row", {}, parts.back, parts.title, parts.name),
    make("div", "flr-row flr-controls", {}, field("Object", parts.target), field("Class", parts.label), parts.save, parts.reject, parts.add),
    parts.cue, parts.stage);
  parts.others = draw("g");
  parts.shape = draw("g", "flr-shape", { tabindex: "0", role: "application", "aria-roledescription": "box" },
    draw("rect", "flr-halo"), draw("rect", "flr-frame"),
    ...HANDLES.map(([, , cursor], index) => draw("rect", "flr-handle", { "data-handle": index, style: `cursor: ${cursor}-resize` })));
  parts.svg.append(parts.others, parts.shape);
  return parts;
};

const createEditor = (context, actions) => {
  const { model, listen } = context;
  const parts = createEditorLayout(context);
  /** What is edited: `target` is the id of an object, null for a new one; `box` is null until one is drawn. */
  const state = { number: -1, size: [1, 1], objects: [], target: null, box: null, isLoaded: false, url: null };
  const isOpen = () => !parts.element.hidden;
  const targetObject = () => state.objects.find((item) => item.id === state.target) ?? null;
  const isChanged = () => {
    const object = targetObject();
    return object ? String(object.box.map(Math.round)) !== String(state.box) || object.label !== parts.label.value : Boolean(state.box);
  };

  const drawBoxes = () => {
    const [width, height] = state.size;
    parts.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    parts.stage.style.setProperty("--flr-aspect", width / height);
    const others = state.objects.filter((item) => item.id !== state.target && item.verdict !== "rejected");
    parts.others.replaceChildren(...others.map((item) => {
      const box = drawObject(item, context.colorOf(item.label), "flr-other");
      box.dataset.id = item.id;
      return box;
    }));
    parts.tags.replaceChildren(...others.map((item) => make("span", "flr-tag", {
      text: item.label, style: `left: ${(100 * item.box[0]) / width}%; top: ${(100 * item.box[1]) / height}%; --flr-color: ${context.colorOf(item.label)}`,
    })));
    drawShape();
  };
  const drawShape = () => {
    const { box } = state;
    parts.shape.style.setProperty("--flr-color", context.colorOf(parts.label.value));
    parts.shape.classList.toggle("flr-none", !box);
    parts.save.disabled = !box;
    const words = box ? `Box from x ${box[0]}, y ${box[1]} to x ${box[2]}, y ${box[3]}` : "No box yet";
    parts.shape.setAttribute("aria-label", `${words}. Arrow keys move it, with Alt its lower right corner, with Shift by 10 pixels. Enter saves, Escape goes back.`);
    if (!box) return;
    const [frame, halo, ...handles] = [parts.shape.children[1], parts.shape.children[0], ...[...parts.shape.children].slice(2)];
    for (const rect of [frame, halo]) setBox(rect, box);
    const side = HANDLE_PX * (state.size[0] / (parts.svg.clientWidth || state.size[0]));
    handles.forEach((handle, index) => {
      const [sx, sy] = HANDLES[index];
      const [x, y] = [(box[0] + box[2] + sx * (box[2] - box[0])) / 2, (box[1] + box[3] + sy * (box[3] - box[1])) / 2];
      setBox(handle, [x - side / 2, y - side / 2, x + side / 2, y + side / 2]);
    });
  };
  const showControls = () => {
    const object = targetObject();
    setText(parts.title, object ? `Redraw ${object.label}` : "Add an object");
    setText(parts.cue, object ? "Drag inside the box to move it, a handle to resize it, and beside it (or with Shift) to draw it anew." : "Choose the class, and drag a box around the object. Keys: an arrow key places a box.");
    const options = state.objects.filter((item) => item.verdict !== "rejected" || item.id === state.target);
    parts.target.replaceChildren(...options.map((item, index) => make("option", "", { value: item.id, text: `${index + 1} · ${item.label} ${item.score.toFixed(2)}` })), make("option", "", { value: "", text: "New object" }));
    parts.target.value = state.target ?? "";
    parts.reject.hidden = !object || object.verdict === "rejected";
    parts.add.hidden = !object;
  };

  /** Edit an object, or a new one for null. */
  const choose = (id) => {
    state.target = id;
    const object = targetObject();
    state.box = object ? clipBox(object.box, state.size) : null;
    if (object) parts.label.value = object.label;
    showControls();
    drawBoxes();
    if (isOpen()) parts.shape.focus({ preventScroll: true });
  };
  const close = () => {
    if (!isOpen()) return;
    parts.element.hidden = true;
    actions.closed();
  };
  const save = () => {
    const object = targetObject();
    const { box, number } = state;
    const label = parts.label.value;
    if (!box) return;
    if (!object) {
      context.send({ kind: "add", number, label, box });
      context.announce(`${label} added. Draw the next one, or go back.`);
      choose(null);
      return;
    }
    if (!isChanged()) context.send({ kind: "accept", id: object.id });
    if (String(object.box.map(Math.round)) !== String(box)) context.send({ kind: "redraw", id: object.id, box });
    if (object.label !== label) context.send({ kind: "rename", id: object.id, label });
    context.announce(`${label} saved`);
    close();
    actions.saved();
  };
  const reject = () => {
    const object = targetObject();
    if (!object) return;
    context.send({ kind: "reject", id: object.id });
    context.announce(`${object.label} rejected`);
    close();
    actions.saved();
  };

  const receive = (content, buffers) => {
    if (content.kind !== "image" || content.number !== state.number || !isOpen()) return undefined;
    const isFirst = !state.isLoaded;
    Object.assign(state, { objects: content.objects, size: content.size, isLoaded: true });
    setText(parts.name, content.name);
    setText(parts.problem, content.error ? `The image cannot be shown: ${content.error}` : "");
    if (buffers?.length) {
      if (state.url) URL.revokeObjectURL(state.url);
      state.url = URL.createObjectURL(new Blob([buffers[0]]));
      parts.image.src = state.url;
    }
    if (!isFirst) { showControls(); return drawBoxes(); }
    choose(state.target);
    return parts.element.scrollIntoView({ block: "nearest" }); // it has its height now
  };
  const open = (number, id, isAdding) => {
    Object.assign(state, { number, target: isAdding ? null : id, objects: [], box: null, isLoaded: false });
    parts.label.replaceChildren(...model.get("classes").map((name) => make("option", "", { value: name, text: name })));
    if (model.get("class_name")) parts.label.value = model.get("class_name");
    parts.image.removeAttribute("src");
    setText(parts.name, "");
    setText(parts.problem, "");
    parts.element.hidden = false;
    showControls();
    drawBoxes();
    context.send({ kind: "image", number, pixels: true });
    parts.shape.focus({ preventScroll: true });
  };

  listenToEditorKeys(context, parts, state, { save, close, reject, choose, drawShape, undo: actions.undo });
  listenToEditorPointer(context, parts, state, { choose, drawShape, isChanged });
  listen(parts.save, "click", save);
  listen(parts.reject, "click", reject);
  listen(parts.add, "click", () => choose(null));
  listen(parts.back, "click", close);
  listen(parts.target, "change", () => choose(parts.target.value || null));
  listen(parts.label, "change", drawShape);
  context.onMessage(receive);
  context.on("counts", () => { if (isOpen() && state.isLoaded) context.send({ kind: "image", number: state.number, pixels: false }); });
  const onSize = new ResizeObserver(() => { if (isOpen()) drawShape(); });
  onSize.observe(parts.stage);
  context.onCleanup(() => {
    onSize.disconnect();
    if (state.url) URL.revokeObjectURL(state.url);
  });
  return { element: parts.element, open };
};

const listenToEditorKeys = (context, parts, state, { save, close, reject, choose, drawShape, undo }) => {
  const place = ([width, height]) => clipBox([width / 3, height / 3, (2 * width) / 3, (2 * height) / 3], [width, height]);
  const onArrow = (event) => {
    const [dx, dy] = ARROWS[event.key].map((step) => step * (event.shiftKey ? 10 : 1));
    const [x0, y0, x1, y1] = state.box ?? [];
    const [width, height] = state.size;
    if (!state.box) state.box = place(state.size);
    else if (event.altKey) state.box = [x0, y0, clamp(x1 + dx, x0 + MIN_BOX_PX, width), clamp(y1 + dy, y0 + MIN_BOX_PX, height)];
    else state.box = moveBox(state.box, dx, dy, state.size);
    drawShape();
  };
  context.listen(parts.element, "keydown", (event) => {
    if (event.ctrlKey || event.metaKey) return;
    const onControl = isTyping(event.target) || event.target.closest("button") != null;
    const key = event.key.toLowerCase();
    if (event.key === "Escape") close();
    else if (onControl) return;
    else if (ARROWS[event.key]) onArrow(event);
    else if (event.key === "Enter") save();
    else if (event.key === "Delete" || key === "r") reject();
    else if (key === "n") choose(null);
    else if (key === "u") undo();
    else if (key === "e") parts.label.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
};

const listenToEditorPointer = (context, parts, state, { choose, drawShape, isChanged }) => {
  const { listen } = context;
  let gesture = null;
  const toImage = (event) => {
    const matrix = parts.svg.getScreenCTM();
    if (!matrix) return [0, 0];
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    return [point.x, point.y];
  };
  const undo = () => {
    if (gesture) state.box = gesture.before;
    gesture = null;
    drawShape();
  };
  listen(parts.svg, "pointerdown", (event) => {
    if (event.button || gesture || !state.isLoaded) return;
    const isInside = !event.shiftKey && event.target.closest(".flr-shape") != null;
    gesture = {
      pointerId: event.pointerId, client: [event.clientX, event.clientY], from: toImage(event), before: state.box,
      handle: state.box && HANDLES[event.target.dataset.handle], isInside: isInside && Boolean(state.box),
      other: event.target.closest("[data-id]")?.dataset.id, isClick: true,
    };
    parts.svg.setPointerCapture(event.pointerId);
    event.preventDefault();
    parts.shape.focus({ preventScroll: true });
  });
  listen(parts.svg, "pointermove", (event) => {
    if (event.pointerId !== gesture?.pointerId) return;
    const [x, y] = gesture.client;
    gesture.isClick &&= Math.hypot(event.clientX - x, event.clientY - y) < CLICK_PX;
    if (gesture.isClick) return;
    state.box = dragBox(gesture, toImage(event), state.size) ?? gesture.before;
    drawShape();
  });
  listen(parts.svg, "pointerup", (event) => {
    if (event.pointerId !== gesture?.pointerId) return;
    const { isClick, other } = gesture;
    gesture = null;
    if (isClick && other && !isChanged()) choose(other);
  });
  listen(parts.svg, "pointercancel", undo);
};

// --- Module

const render = ({ model, el }) => {
  const [context, close] = createContext(model, el);
  const actions = {
    undo: () => { if (model.get("can_undo")) context.send({ kind: "undo" }); },
    open: (...arguments_) => { browse.hidden = true; editor.open(...arguments_); },
    closed: () => { browse.hidden = false; grid.focus(); },
    saved: () => grid.advance(),
  };
  const names = make("datalist", "", { id: `${context.id}-classes` });
  const header = createHeader(context, actions);
  const grid = createGrid(context, actions);
  const editor = createEditor(context, actions);
  const browse = make("div", "flr-browse", {}, grid.element);
  context.root.append(header, browse, editor.element, names);
  const listClasses = () => names.replaceChildren(...model.get("classes").map((name) => make("option", "", { value: name })));
  context.on("classes", listClasses);
  listClasses();
  context.onMessage((content) => {
    if (content.kind === "failed") context.announce(content.text, true);
    if (content.kind !== "undone") return;
    context.announce("Taken back");
    if (content.id && !browse.hidden) grid.focusCard(content.id);
  });
  return close;
};

export default { render };
