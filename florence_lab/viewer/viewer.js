/**
 * The viewer of florence_lab: an image, what was found on it, and the answer in words.
 *
 * One ES module without a build step. anywidget calls `render` once for each view of the model; a cell's output that is
 * cloned has several views. The traits of the model are listed in widget.py. Zoom, hover, hidden instances, the open tab and
 * the way of comparing belong to a view and are never sent.
 *
 * @typedef {object} Context What the parts of one view share.
 * @property {object} model The anywidget model: get, set, save_changes, on, off, send.
 * @property {string} id A prefix for ids of elements: a page may have several views of a model.
 * @property {HTMLElement} el The element that Jupyter gave to this view.
 * @property {HTMLElement} root The root of everything that the viewer adds, inside `el`.
 * @property {Parts} parts The elements of the layout.
 * @property {AbortSignal} signal Aborted when the view is removed.
 * @property {(event: MouseEvent) => [number, number]} toImage Convert a pointer position to image pixels, unclipped and
 *     not rounded. Works at each zoom.
 * @property {() => number} scale CSS pixels per image pixel on the first stage, zoom included. A handle of 10 CSS pixels
 *     has a side of `10 / scale()` in the region layer. The region layer is drawn again when it changes, see `onDraw`.
 * @property {(text: string) => void} announce Announce a text to screen readers (role=status, polite).
 * @property {(target: EventTarget, type: string, handler: Function, options?: object) => void} listen Add an event
 *     listener that is removed with the view. For elements that live as long as the view; use delegation for others.
 * @property {(name: string, handler: () => void) => void} on Call `handler` when a trait changes, until the view is removed.
 * @property {(handler: (content: object, buffers: DataView[]) => void) => void} onMessage Receive the custom messages of
 *     Python, until the view is removed.
 * @property {(content: object, buffers?: ArrayBuffer[]) => void} send Send a custom message to Python.
 * @property {(changes: object) => void} set Set traits and send them to Python.
 * @property {(handler: () => void) => void} onCleanup Call `handler` when the view is removed: timers, object URLs.
 * @property {(handler: () => void) => void} onDraw Call `handler` in each redraw, after the stage has its size and zoom.
 * @property {() => void} redraw Draw again in the next animation frame. Calls within one frame are one redraw.
 * @property {((event: PointerEvent) => boolean)[]} pointerTools Asked in order at each `pointerdown` with the primary button
 *     on the first stage. The first that returns true owns the gesture until `pointerup`: no pan and no click follow.
 * @property {(event: PointerEvent) => void} pick Keep the instance at a pointer position, as a click does. For a tool whose
 *     gesture turned out to be a click.
 *
 * @typedef {object} Parts
 * @property {HTMLElement} notice Empty; above everything. For the heartbeat.
 * @property {HTMLElement} toolbar The row above the stage; holds the slots below.
 * @property {HTMLElement} upload Empty slot in the toolbar for the upload button and its progress.
 * @property {HTMLElement} region Empty slot in the toolbar for the region tool.
 * @property {HTMLElement} download Empty slot at the end of the toolbar.
 * @property {HTMLElement} stage The box around the first stage: a target for dropped files. `position: relative`.
 * @property {HTMLElement} view The visible part of the first image, exactly as large as the image is displayed. Focusable.
 * @property {SVGGElement} regionLayer Empty group over the instances, in image pixels, moved by zoom and pan.
 * @property {HTMLElement} code The panel of the tab "Code". Empty.
 * @property {HTMLElement} history Empty strip below everything.
 *
 * @typedef {object} Instance One entry of `answer.instances`.
 * @property {string} label
 * @property {?number} score The confidence in 0..1; null if it is unknown.
 * @property {number[]} box x0, y0, x1, y1 in image pixels.
 * @property {number[][]} contours Outlines as x, y, x, y, …; empty for a box.
 * @property {number} [style] Index of the color and line style; by default the index of the label.
 * @property {boolean} [filled] Whether the inside is colored; by default for contours of more than four points.
 *
 * @typedef {{slot: number, indices: number[]}} Target Instances of the answer in a pane.
 */

const SVG = "http://www.w3.org/2000/svg";

/** As `PALETTE` in visualization/style.py. */
const PALETTE = ["#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#F0E442", "#CC79A7"];
/** As `LINE_STYLES` in visualization/style.py, for a line of 2 CSS pixels. */
const DASHES = [null, "8 3.2", "2.4 3.2", "12 3 2.4 3"];
const DARK = "#1a1a1a";
const LIGHT = "#ffffff";

const MAX_ZOOM = 16;
const ZOOM_STEP = 1.25;
const PAGE_ROWS = 10; // instances that Page Up and Page Down go over
const LINE_REACH = 3; // CSS pixels outside of a box where it is still hit
const CLICK_DISTANCE = 4; // CSS pixels that a click may move
const LABEL_HEIGHT = 16; // CSS pixels, as in viewer.css
const LABEL_PADDING = 8; // CSS pixels, left and right together
const MAX_LABEL_WIDTH = 220; // CSS pixels, as in viewer.css
const CROWDED = 0.12; // a label that covers others by more than this fraction shrinks to its number
const MATCH_IOU = 0.5;
const FLICKER_PERIOD = 700; // milliseconds; slower than the 3 flashes a second of WCAG 2.3.1

/**
 * Create an element.
 * @param {string} tag
 * @param {string} className
 * @param {object} attributes `text` sets the text; null leaves an attribute out.
 * @param {...(Node|string)} children
 */
const make = (tag, className = "", attributes = {}, ...children) =>
  fill(document.createElement(tag), className, attributes, children);

/** Create an SVG element, like `make`. */
const draw = (tag, className = "", attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), className, attributes, children);

const fill = (element, className, attributes, children) => {
  if (className) element.setAttribute("class", className);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

/** Create a push button. `title` also names it for screen readers. */
const makeButton = (text, title = null, className = "") =>
  make("button", `fl-button ${className}`.trim(), { type: "button", text, title, "aria-label": title });

/** Set a text only if it differs, which keeps selections and saves layout. */
const setText = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

const isTyping = (target) => target.closest?.("input, textarea, select, [contenteditable]") != null;

// --- Layout

const createLayout = () => {
  const parts = {
    notice: make("div", "fl-notice"),
    toolbar: make("div", "fl-toolbar"),
    upload: make("div", "fl-slot fl-upload"),
    region: make("div", "fl-slot fl-region"),
    download: make("div", "fl-slot fl-download"),
    strip: make("div", "fl-strip", { role: "tablist", "aria-label": "Tasks" }),
    main: make("div", "fl-main"),
    side: make("div", "fl-side"),
    tabs: make("div", "fl-tabs", { role: "tablist", "aria-label": "Answer" }),
    answer: make("div", "fl-tabpanel fl-tabpanel-answer"),
    raw: make("div", "fl-tabpanel fl-tabpanel-raw"),
    code: make("div", "fl-tabpanel fl-tabpanel-code"),
    history: make("div", "fl-history"),
    status: make("div", "fl-unseen", { role: "status" }),
  };
  parts.side.append(parts.tabs, parts.answer, parts.raw, parts.code);
  return parts;
};

// --- Context

/** Create the context of a view and the function that removes everything again. */
const createContext = (model, el) => {
  const controller = new AbortController();
  const { signal } = controller;
  const parts = createLayout();
  const root = make("div", "fl-viewer", { "data-lm-suppress-shortcuts": "true" });
  root.append(parts.notice, parts.toolbar, parts.strip, parts.main, parts.history, parts.status);
  const drawers = [];
  let frame = 0;

  const onCleanup = (handler) => signal.addEventListener("abort", handler, { once: true });
  const subscribe = (event, handler) => {
    model.on(event, handler);
    onCleanup(() => model.off(event, handler));
  };
  const context = {
    id: `fl-${Math.random().toString(36).slice(2, 10)}`,
    model, el, root, parts, signal, onCleanup,
    pointerTools: [],
    toImage: (event) => {
      const matrix = parts.regionLayer.getScreenCTM();
      if (!matrix) return [0, 0]; // not in the document
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      return [point.x, point.y];
    },
    scale: () => 1,
    announce: (text) => { parts.status.textContent = text; },
    listen: (target, type, handler, options = {}) => target.addEventListener(type, handler, { ...options, signal }),
    on: (name, handler) => subscribe(`change:${name}`, () => handler()),
    onMessage: (handler) => subscribe("msg:custom", (content, buffers) => handler(content, buffers)),
    send: (content, buffers = []) => model.send(content, undefined, buffers),
    set: (changes) => {
      for (const [name, value] of Object.entries(changes)) model.set(name, value);
      model.save_changes();
    },
    onDraw: (handler) => drawers.push(handler),
    redraw: () => { frame ||= requestAnimationFrame(() => { frame = 0; drawers.forEach((handler) => handler()); }); },
    pick: () => {},
  };
  onCleanup(() => { cancelAnimationFrame(frame); root.remove(); });
  return [context, () => controller.abort()];
};

/** Let the arrow keys, Home and End move the focus between the buttons of a tab list, and choose. */
const makeTabList = (context, list, choose) => {
  context.listen(list, "click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) choose([...list.children].indexOf(tab));
  });
  context.listen(list, "keydown", (event) => {
    const tabs = [...list.children].filter((tab) => !tab.hidden);
    const at = tabs.indexOf(event.target.closest("[role=tab]"));
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const tab = tabs[(next + tabs.length) % tabs.length];
    choose([...list.children].indexOf(tab));
    tab.focus();
  });
};

/** Mark the chosen tab, which is the only one that Tab reaches. */
const markTab = (list, chosen) => {
  [...list.children].forEach((tab, index) => {
    tab.setAttribute("aria-selected", String(index === chosen));
    tab.tabIndex = index === chosen ? 0 : -1;
  });
};

// --- Geometry

/** Return the area of a box. */
const boxArea = ([x0, y0, x1, y1]) => Math.max(0, x1 - x0) * Math.max(0, y1 - y0);

/** Return the intersection over union of two boxes. */
const boxIou = (a, b) => {
  const common = boxArea([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return common ? common / (boxArea(a) + boxArea(b) - common) : 0;
};

/** Whether a point lies inside an odd number of contours, so that a contour inside another one is a hole. */
const isInside = (contours, x, y) => {
  let inside = false;
  for (const points of contours) {
    for (let i = 0, j = points.length - 2; i < points.length; j = i, i += 2) {
      const [xi, yi, xj, yj] = [points[i], points[i + 1], points[j], points[j + 1]];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
    }
  }
  return inside;
};

/** Return the path of a box or of contours, in image pixels. */
const outlinePath = ({ box: [x0, y0, x1, y1], contours }) =>
  contours.length
    ? contours.map((points) => `M${points.join(" ")}Z`).join("")
    : `M${x0} ${y0}H${x1}V${y1}H${x0}Z`;

/**
 * Match instances of equal labels one to one, those with the largest IoU first.
 * @returns {[Map<number, number>, Map<number, number>]} From each index to that of its partner, in both directions.
 */
const matchInstances = (first, second) => {
  const [names, otherNames] = [first, second].map((all) => all.map((instance) => instance?.label.trim().toLowerCase()));
  const pairs = [];
  first.forEach((a, i) => second.forEach((b, j) => {
    if (!a || !b || names[i] !== otherNames[j]) return;
    const iou = boxIou(a.box, b.box);
    if (iou >= MATCH_IOU) pairs.push([iou, i, j]);
  }));
  pairs.sort((a, b) => b[0] - a[0]);
  const [forward, backward] = [new Map(), new Map()];
  for (const [, i, j] of pairs) {
    if (forward.has(i) || backward.has(j)) continue;
    forward.set(i, j);
    backward.set(j, i);
  }
  return [forward, backward];
};

/** Create the zoom that all stages share. The offset is a fraction of the image, so that it survives other sizes. */
const createZoom = (onChange) => {
  const zoom = {
    factor: 1, x: 0, y: 0,
    /** Multiply the factor; the point at (u, v), fractions of the stage, stays in place. */
    by: (ratio, u = 0.5, v = 0.5) => {
      const factor = clamp(zoom.factor * ratio, 1, MAX_ZOOM);
      const change = factor / zoom.factor;
      zoom.moveTo(factor, u - (u - zoom.x) * change, v - (v - zoom.y) * change);
    },
    pan: (du, dv) => zoom.moveTo(zoom.factor, zoom.x + du, zoom.y + dv),
    fit: () => zoom.moveTo(1, 0, 0),
    moveTo: (factor, x, y) => {
      zoom.factor = factor;
      zoom.x = clamp(x, 1 - factor, 0);
      zoom.y = clamp(y, 1 - factor, 0);
      onChange();
    },
  };
  return zoom;
};

// --- Style of instances

/** Return `DARK` or `LIGHT`, whichever has the higher contrast to a color (WCAG 2). */
const textColorOn = (color) => {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const channel = parseInt(color.slice(at, at + 2), 16) / 255;
    return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
  });
  return (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05) ** 2 > 1.05 * 0.05 ? DARK : LIGHT;
};

const TEXT_COLORS = PALETTE.map(textColorOn);

/** Return the style index of each instance: equal labels share one, instances without a label all differ. */
const styleIndices = (instances) => {
  const indices = new Map();
  return instances.map((instance, i) => {
    const key = instance.label || i;
    if (!indices.has(key)) indices.set(key, indices.size);
    return instance.style ?? indices.get(key);
  });
};

const isFilled = ({ filled, contours }) => filled ?? contours.some((points) => points.length > 8);

const isQuad = (instance) => !isFilled(instance) && instance.contours.length === 1 && instance.contours[0].length === 8;

const labelText = ({ label, score }) => [label, score === null ? "" : score.toFixed(2)].filter(Boolean).join(" ");

const sameItems = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);

const sameInstance = (a, b) =>
  a === b ||
  (a.label === b.label && a.score === b.score && a.filled === b.filled && sameItems(a.box, b.box) &&
    a.contours.length === b.contours.length && a.contours.every((points, i) => sameItems(points, b.contours[i])));

// --- Labels

/** Create the function that measures a label in CSS pixels, on a canvas, which needs no layout. */
const createMeasure = (context) => {
  const canvas = make("canvas").getContext("2d");
  const widths = new Map();
  return (text) => {
    if (!widths.size || widths.size > 2000) {
      widths.clear();
      canvas.font = `600 12px ${getComputedStyle(context.root).fontFamily}`;
    }
    if (!widths.has(text)) widths.set(text, Math.min(MAX_LABEL_WIDTH, Math.ceil(canvas.measureText(text).width) + LABEL_PADDING));
    return widths.get(text);
  };
};

/** Return the area that two labels share. */
const overlap = (a, b) => {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = LABEL_HEIGHT - Math.abs(a.y - b.y);
  return width > 0 && height > 0 ? width * height : 0;
};

/** Create a store of placed labels, by rows of the height of a label: only three rows can share pixels with a label. */
const createPlaces = () => {
  const rows = new Map();
  const rowOf = (y) => Math.floor(y / LABEL_HEIGHT);
  return {
    add: (place) => {
      const row = rowOf(place.y);
      if (rows.has(row)) rows.get(row).push(place);
      else rows.set(row, [place]);
    },
    /** Return the area of other labels that a label covers, or any larger number than `limit`. */
    covered: (place, limit) => {
      const row = rowOf(place.y);
      let sum = 0;
      for (let i = row - 1; i <= row + 1; i += 1) {
        for (const other of rows.get(i) ?? []) sum += overlap(place, other);
        if (sum > limit) break;
      }
      return sum;
    },
  };
};

/**
 * Return the place of a label of a width where it covers the least of the labels that have a place.
 * @param {number[]} box The visible part of the instance in CSS pixels of the stage.
 */
const placeLabel = ([x0, y0, x1, y1], width, placed, stageWidth, stageHeight) => {
  const places = [
    [x0, y0 - LABEL_HEIGHT], [x0, y0], [x1 - width, y0 - LABEL_HEIGHT], [x0, y1], [x1 - width, y0],
    [x0, y1 - LABEL_HEIGHT], [x1 - width, y1], [x1, y0], [x0 - width, y0],
  ];
  let best = null;
  for (const [x, y] of places) {
    const place = {
      x: clamp(x, 0, Math.max(0, stageWidth - width)),
      y: clamp(y, 0, Math.max(0, stageHeight - LABEL_HEIGHT)),
      width,
    };
    place.covered = placed.covered(place, best?.covered ?? Infinity);
    if (!best || place.covered < best.covered) best = place;
    if (!best.covered) break;
  }
  return best;
};

// --- Items: one instance on the stage, in the list and in the raw text

/** Create the elements of an instance. The caller inserts them. */
const createItem = (index, optionId) => {
  const item = {
    index,
    instance: null,
    area: 0,
    style: -1,
    isListed: true, // passes the threshold and the comparison
    isVisible: true, // and is neither hidden nor outside of a solo
    isLit: false,
    place: null,
    halo: draw("path", "fl-halo"),
    line: draw("path", "fl-line"),
    top: draw("path", "fl-top"),
    label: make("div", "fl-label"),
    number: make("span", "fl-index", { text: index + 1 }),
    name: make("span", "fl-name"),
    meter: make("span", "fl-meter", {}, make("i")),
    score: make("span", "fl-score"),
    box: make("span", "fl-box"),
    row: make("li", "fl-row", { id: optionId, role: "option", "aria-selected": "false", "data-index": index }),
    tokens: [],
  };
  item.shape = draw("g", "fl-shape", { "data-index": index }, item.halo, item.line, item.top);
  item.row.append(
    item.number, item.name, item.meter, item.score, item.box,
    make("span", "fl-acts", { "aria-hidden": "true" }, // for the pointer; the keys are Space and S
      make("span", "fl-act", { text: "Hide", "data-act": "hide", title: "Hide or show (Space)" }),
      make("span", "fl-act", { text: "Solo", "data-act": "solo", title: "Show only this one (S)" })),
  );
  return item;
};

/** Write an instance into the elements of its item. */
const fillItem = (item, instance, style) => {
  const color = PALETTE[style % PALETTE.length];
  const dash = DASHES[Math.floor(style / PALETTE.length) % DASHES.length];
  const outline = outlinePath(instance);
  Object.assign(item, { instance, style, area: boxArea(instance.box) });
  item.halo.setAttribute("d", outline);
  item.line.setAttribute("d", outline);
  const [corner] = instance.contours;
  item.top.setAttribute("d", isQuad(instance) ? `M${corner.slice(0, 4).join(" ")}` : "");
  item.shape.classList.toggle("fl-filled", isFilled(instance));
  for (const element of [item.shape, item.label, item.row]) {
    element.style.setProperty("--fl-color", color);
    element.style.setProperty("--fl-ink", TEXT_COLORS[style % PALETTE.length]);
  }
  if (dash) item.line.setAttribute("stroke-dasharray", dash);
  else item.line.removeAttribute("stroke-dasharray");
  const { label, score, box } = instance;
  const rounded = box.map(Math.round);
  setText(item.name, label || "–");
  item.name.title = label;
  setText(item.score, score === null ? "" : score.toFixed(2));
  item.meter.firstChild.style.width = `${100 * (score ?? 0)}%`;
  item.meter.classList.toggle("fl-off", score === null);
  setText(item.box, rounded.join(", "));
  item.spoken = [item.index + 1, label || "no label", score === null ? "" : `score ${score.toFixed(2)}`, `box ${rounded.join(" ")}`]
    .filter(Boolean).join(", ");
};

// --- Header of an answer

const REGION_TEXT = /^region \([\d., ]+\)$/; // no phrase, so without quotation marks

const createHeader = (slot) => {
  const badge = make("span", "fl-badge", { text: "AB"[slot] });
  const task = make("span", "fl-task", { role: "heading", "aria-level": "3" });
  const token = make("code", "fl-token");
  const text = make("span", "fl-query");
  const facts = make("span", "fl-facts");
  const progress = make("span", "fl-chip");
  const stale = make("span", "fl-stale-note", { text: "The controls have changed since this answer." });
  const element = make("header", "fl-head", { "data-slot": slot }, badge, task, token, text, facts, progress, stale);
  return {
    element,
    update: (answer, { phase, isCompared, isStale }) => {
      const { task: taskToken, task_name: name, text: query, image, model, times } = answer ?? {};
      element.classList.toggle("fl-stale", isStale);
      badge.classList.toggle("fl-off", !isCompared);
      setText(task, name || taskToken || "");
      setText(token, name === taskToken ? "" : taskToken);
      setText(text, query ? (REGION_TEXT.test(query) ? query : `“${query}”`) : "");
      setText(facts, [image, model, isStale ? "" : times].filter(Boolean).join(" · ")); // room for the note
      setText(progress, answer ? progressOf(answer, phase) : "");
      stale.classList.toggle("fl-off", !answer || !isStale);
    },
  };
};

/** Return the remark of the header on an answer that is not complete. */
const progressOf = ({ complete, truncated }, phase) => {
  if (!complete) return phase === "answering" ? "Answering …" : "Incomplete";
  return truncated ? "Truncated" : "";
};

// --- Stage: image, shapes and labels

const createStage = (context, shared, slot) => {
  const { state, zoom } = shared;
  const image = make("img", "fl-image", { draggable: "false", alt: "" });
  const shapes = draw("g", "fl-shapes");
  const asked = draw("g", "fl-asked");
  const regionLayer = draw("g", "fl-region-layer");
  const scene = draw("g", "fl-scene", {}, asked, shapes, regionLayer);
  const svg = draw("svg", "fl-svg", { preserveAspectRatio: "none", role: "presentation" }, scene);
  const labels = make("div", "fl-labels", { "aria-hidden": "true" });
  const view = make("div", "fl-view", { tabindex: "0", role: "group" }, image, svg, labels);
  const blank = make("div", "fl-blank");
  const element = make("div", "fl-stage", { "data-slot": slot }, view, blank, make("div", "fl-busy-line"));
  const stage = { slot, element, view, image, shapes, labels, regionLayer, blank, size: [0, 0] };

  /** Draw the regions that were asked about. */
  stage.showRegions = (boxes) => {
    while (asked.childElementCount > boxes.length) asked.lastChild.remove();
    boxes.forEach((box, i) => {
      const group = asked.children[i] ?? asked.appendChild(
        draw("g", "", {}, draw("path", "fl-asked-border"), draw("path", "fl-asked-line")),
      );
      for (const path of group.children) path.setAttribute("d", outlinePath({ box, contours: [] }));
    });
  };

  /** Put large shapes below smaller ones, so that an instance inside another one stays visible. Moves only what has to move. */
  stage.order = (items) => {
    let next = shapes.firstChild;
    for (const { shape } of [...items].sort((a, b) => b.area - a.area)) {
      if (shape === next) next = next.nextSibling;
      else shapes.insertBefore(shape, next);
    }
  };

  /** Move image, shapes and labels to the zoom of all stages. */
  stage.place = (items) => {
    const { width = 1, height = 1 } = state.picture;
    const { factor, x, y } = zoom;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    scene.setAttribute("transform", `translate(${x * width} ${y * height}) scale(${factor})`);
    image.style.transform = factor === 1 ? "" : `translate(${100 * x}%, ${100 * y}%) scale(${factor})`;
    view.classList.toggle("fl-zoomed", factor > 1);
    placeLabels(items, stage.size, shared);
  };

  /** Return the fractions of the stage at a pointer position. */
  stage.fractions = ({ clientX, clientY }) => {
    const { left, top, width, height } = view.getBoundingClientRect();
    return [(clientX - left) / width, (clientY - top) / height];
  };

  /** Return the index of the smallest instance at a pointer position, or that of a label there, or -1. */
  stage.hit = (event, items) => {
    const [u, v] = stage.fractions(event);
    const x = ((u - zoom.x) / zoom.factor) * state.picture.width;
    const y = ((v - zoom.y) / zoom.factor) * state.picture.height;
    const margin = (LINE_REACH * state.picture.width) / (stage.size[0] * zoom.factor);
    const found = findLabel(items, u * stage.size[0], v * stage.size[1]) ?? findInstance(items, x, y, margin);
    return found?.index ?? -1;
  };

  // the size is observed, since asking for it would force a layout in each redraw
  const observer = new ResizeObserver(([{ contentRect }]) => {
    stage.size = [contentRect.width, contentRect.height];
    context.redraw();
  });
  observer.observe(view);
  context.onCleanup(() => observer.disconnect());
  return stage;
};

/** Return the item whose label lies at a point of the stage in CSS pixels, or undefined. */
const findLabel = (items, left, top) =>
  items.findLast(({ isVisible, place }) =>
    isVisible && place && left >= place.x && left <= place.x + place.width && top >= place.y && top <= place.y + LABEL_HEIGHT);

/** Return the smallest item at a point in image pixels, or null. Boxes are hit within a margin outside of them, too. */
const findInstance = (items, x, y, margin) => {
  let best = null;
  for (const item of items) {
    if (!item.isVisible || (best && item.area >= best.area)) continue;
    const { box, contours } = item.instance;
    const isNear = x >= box[0] - margin && x <= box[2] + margin && y >= box[1] - margin && y <= box[3] + margin;
    if (isNear && (!contours.length || isInside(contours, x, y))) best = item;
  }
  return best;
};

/** Place the labels in the order of the instances, so that those on show stay where they are while an answer grows. */
const placeLabels = (items, [stageWidth, stageHeight], { state, zoom, measure }) => {
  if (!stageWidth) return; // not displayed
  const { width: imageWidth, height: imageHeight } = state.picture;
  const toX = (x) => ((x / imageWidth) * zoom.factor + zoom.x) * stageWidth;
  const toY = (y) => ((y / imageHeight) * zoom.factor + zoom.y) * stageHeight;
  const placed = createPlaces();
  for (const item of items) {
    if (!item.isVisible) continue;
    const [x0, y0, x1, y1] = item.instance.box;
    const [left, top, right, bottom] = [toX(x0), toY(y0), toX(x1), toY(y1)];
    const isInView = right >= 0 && bottom >= 0 && left <= stageWidth && top <= stageHeight;
    const text = labelText(item.instance);
    item.label.classList.toggle("fl-off", !isInView || !text);
    if (!isInView || !text) {
      item.place = null;
      continue;
    }
    const box = [Math.max(0, left), Math.max(0, top), Math.min(stageWidth, right), Math.min(stageHeight, bottom)];
    const width = measure(text);
    let place = placeLabel(box, width, placed, stageWidth, stageHeight);
    const isShort = place.covered > CROWDED * width * LABEL_HEIGHT;
    if (isShort) place = placeLabel(box, measure(String(item.index + 1)), placed, stageWidth, stageHeight);
    placed.add(place);
    item.place = { ...place, isShort, fullX: clamp(place.x, 0, Math.max(0, stageWidth - width)) };
    moveLabel(item);
  }
};

/** Put a label in its place. One that shrank to its number is whole while it is lit. */
const moveLabel = ({ label, place, instance, index, isLit }) => {
  const isShort = place.isShort && !isLit;
  setText(label, isShort ? String(index + 1) : labelText(instance));
  const transform = `translate(${(isShort ? place.x : place.fullX).toFixed(1)}px, ${place.y.toFixed(1)}px)`;
  if (label.style.transform !== transform) label.style.transform = transform;
};

// --- List: the answer in words, or its instances, which are the accessible twin of the drawing

const createList = (slot) => {
  const counts = make("span", "fl-counts");
  const showAll = makeButton("Show all", null, "fl-show-all");
  const head = make("div", "fl-list-head", {}, make("span", "fl-badge", { text: "AB"[slot] }), counts, showAll);
  const words = make("div", "fl-words");
  const area = make("ul", "fl-list", { role: "listbox", tabindex: "0", "aria-multiselectable": "true" });
  const remark = make("div", "fl-remark");
  const cut = make("div", "fl-warning", {
    text: "The answer is truncated: it reached the limit of its length. What follows is missing.",
  });
  const element = make("section", "fl-block", { "data-slot": slot }, words, head, area, remark, cut);
  return {
    element, area, showAll,
    update: (answer, count, info) => {
      element.classList.toggle("fl-compared", info.isCompared);
      setText(words, answer?.answer ?? "");
      words.classList.toggle("fl-off", !answer?.answer);
      head.classList.toggle("fl-off", !count);
      area.classList.toggle("fl-off", !count);
      area.setAttribute("aria-label", ["Instances", answer?.task_name, answer?.model].filter(Boolean).join(", "));
      setText(remark, remarkOf(answer, count > 0, info));
      cut.classList.toggle("fl-off", !answer?.truncated);
    },
    /** Show the number of instances, and how many of them are hidden. */
    count: (listed, unseen) => {
      setText(counts, plural(listed, "instance"));
      setText(showAll, unseen ? `Show all (${unseen} hidden)` : "Show all");
      showAll.disabled = !unseen;
    },
    /** Mark the row that the keys act on. */
    mark: (item) => {
      const marked = area.querySelector(".fl-current");
      if (item) area.setAttribute("aria-activedescendant", item.row.id);
      else area.removeAttribute("aria-activedescendant");
      if (marked === item?.row) return;
      marked?.classList.remove("fl-current");
      item?.row.classList.add("fl-current");
    },
  };
};

/** Return the text that is shown in place of an empty list. */
const remarkOf = (answer, hasList, { phase, hint, isMissing }) => {
  if (isMissing) return "The other model gave no answer. The message above says why.";
  if (!answer) {
    return {
      empty: hint || "There is no answer yet.",
      loading: "Loading the model …",
      answering: "Answering …",
      stopped: "Stopped before the first word.",
      error: "There is no answer. The message above says why.",
    }[phase] ?? "";
  }
  if (hasList || answer.answer || !answer.complete) return "";
  return answer.kind === "text" ? "The answer is empty." : "No instances.";
};

// --- Raw text

const createRaw = (slot) => {
  const prompt = make("div", "fl-prompt");
  const area = make("div", "fl-generated", {
    tabindex: "0", role: "group", "aria-label": "Generated text. The arrow keys go through the instances.",
  });
  const [first, second] = ["Prompt", "Generated text"].map((text) => make("div", "fl-raw-title", { text }));
  const element = make("section", "fl-block", { "data-slot": slot }, first, prompt, second, area);
  return {
    element, area,
    /** Write prompt and segments, and note the segments of each item. */
    update: (answer, items) => {
      const segments = answer?.segments ?? [];
      element.classList.toggle("fl-off", !answer);
      setText(prompt, answer?.prompt ?? "");
      for (const item of items) item.tokens = [];
      if (!segments.length) area.replaceChildren();
      while (area.childElementCount > segments.length) area.lastChild.remove();
      const known = [...area.children];
      const added = segments.slice(known.length).map((_, i) => make("span", "", { "data-segment": known.length + i }));
      const spans = [...known, ...added];
      segments.forEach(([content, kind, owners], i) => {
        setText(spans[i], content);
        const name = `fl-segment fl-${kind}${owners.length ? " fl-owned" : ""}`;
        if (spans[i].className !== name) spans[i].className = name; // `light` follows in each redraw
        for (const owner of owners) items[owner]?.tokens.push(spans[i]);
      });
      area.append(...added);
    },
    light: (tokens) => {
      for (const span of area.querySelectorAll(".fl-lit")) if (!tokens.has(span)) span.classList.remove("fl-lit");
      for (const span of tokens) span.classList.add("fl-lit");
    },
  };
};

// --- Pane: one answer with its header, stage, list and raw text

/**
 * Create the elements of an answer. The first pane lives as long as the view, the second one appears in comparisons.
 * @param {Context} context
 * @param {object} shared `state`, `zoom`, `measure` and the actions on instances; see `createDisplay`.
 * @param {number} slot 0, or 1 for the second answer of a comparison.
 */
const createPane = (context, shared, slot) => {
  const { state } = shared;
  const [header, stage, list, raw] = [createHeader(slot), createStage(context, shared, slot), createList(slot), createRaw(slot)];
  const pane = { slot, header, stage, list, raw, answer: null, items: [], current: -1 };

  /** Show an answer, or none. Elements are updated in place: an answer that grows only adds. */
  pane.update = (answer, info) => {
    if (answer?.id !== pane.answer?.id || !answer) {
      pane.current = -1;
      list.area.scrollTop = 0;
    }
    const isSame = answer === pane.answer;
    pane.answer = answer;
    header.update(answer, info);
    if (!isSame) {
      updateItems(pane, `${state.id}-${slot}`);
      stage.showRegions(answer?.regions ?? []);
      raw.update(answer, pane.items);
    }
    const count = pane.items.length;
    list.update(answer, count, info);
    const content = count ? `, ${plural(count, "instance")}, named in the list` : "";
    stage.view.setAttribute("aria-label", `${state.picture.name || "Image"}${content}. Plus and minus zoom, 0 fits.`);
  };

  /** Apply threshold, comparison, hidden ones and solo. `isListed(item)` and `isShown(item)` decide. */
  pane.filter = (isListed, isShown) => {
    for (const item of pane.items) {
      item.isListed = isListed(item);
      item.isVisible = item.isListed && isShown(item);
      if (!item.isVisible) item.place = null;
      item.row.classList.toggle("fl-off", !item.isListed);
      item.row.classList.toggle("fl-unlisted", item.isListed && !item.isVisible);
      const name = item.isVisible ? item.spoken : `${item.spoken}, hidden`;
      if (item.row.getAttribute("aria-label") !== name) item.row.setAttribute("aria-label", name);
      item.shape.classList.toggle("fl-off", !item.isVisible);
      item.label.classList.toggle("fl-off", !item.isVisible);
    }
    const listed = pane.listed();
    list.count(listed.length, listed.filter((item) => !item.isVisible).length);
    if (pane.current >= 0 && !pane.items[pane.current].isListed) pane.current = -1;
  };

  /** Light instances on the stage, in the list and in the raw text, and dim the others. */
  pane.light = (lit, kept) => {
    const isDim = pane.listed().some((item) => lit.has(item.index));
    for (const element of [stage.view, list.area, raw.area]) element.classList.toggle("fl-dim", isDim);
    const tokens = new Set();
    for (const item of pane.items) {
      setLight(item, item.isListed && lit.has(item.index), kept.has(item.index));
      if (item.isLit) item.tokens.forEach((span) => tokens.add(span));
    }
    raw.light(tokens);
    list.mark(pane.items[pane.current]);
  };

  pane.listed = () => pane.items.filter((item) => item.isListed);
  pane.hit = (event) => stage.hit(event, pane.items);
  /** Keep the instance at a pointer position. */
  pane.pick = (event) => {
    const index = pane.hit(event);
    if (index < 0) return;
    pane.current = index;
    shared.keep(slot, index);
  };
  listenToPointer(context, shared, pane);
  listenToTexts(context, shared, pane);
  return pane;
};

/** Give a pane the items of its answer. Items of instances that stay the same keep their elements untouched. */
const updateItems = (pane, idPrefix) => {
  const { stage, list } = pane;
  const instances = pane.answer?.instances ?? [];
  const styles = styleIndices(instances);
  const added = [];
  instances.forEach((instance, i) => {
    const known = pane.items[i];
    if (known && known.style === styles[i] && sameInstance(known.instance, instance)) return;
    const item = known ?? createItem(i, `${idPrefix}-${i}`);
    fillItem(item, instance, styles[i]);
    if (!known) added.push(item);
  });
  pane.items.push(...added);
  const gone = pane.items.splice(instances.length);
  if (!instances.length) for (const parent of [stage.shapes, stage.labels, list.area]) parent.replaceChildren();
  else for (const { shape, label, row } of gone) [shape, label, row].forEach((element) => element.remove());
  list.area.append(...added.map((item) => item.row));
  stage.labels.append(...added.map((item) => item.label));
  if (added.length) stage.order(pane.items);
  if (pane.current >= pane.items.length) pane.current = -1;
};

/** Light an item or not, and mark it as kept or not. Touches the elements only if that changes. */
const setLight = (item, isLit, isKept) => {
  if (item.isLit !== isLit) {
    item.isLit = isLit;
    for (const element of [item.shape, item.label, item.row]) element.classList.toggle("fl-lit", isLit);
    if (item.place) moveLabel(item);
  }
  if (item.isKept === isKept) return;
  item.isKept = isKept;
  item.row.setAttribute("aria-selected", String(isKept));
  item.shape.classList.toggle("fl-kept", isKept);
};

// --- Hover, click and keys in the list and in the raw text

const listenToTexts = (context, shared, pane) => {
  const { slot, list, raw } = pane;
  const rowOf = (event) => Number(event.target.closest(".fl-row")?.dataset.index ?? -1);
  const ownersOf = (event) => {
    const span = event.target.closest(".fl-owned");
    return span ? pane.answer.segments[span.dataset.segment][2] : [];
  };
  const hover = (indices) => shared.hover(indices.length ? { slot, indices } : null);

  context.listen(list.area, "pointerover", (event) => hover([rowOf(event)].filter((index) => index >= 0)));
  context.listen(list.area, "click", (event) => {
    const index = rowOf(event);
    if (index < 0) return;
    pane.current = index;
    shared[event.target.dataset.act ?? "keep"](slot, index);
  });
  context.listen(list.showAll, "click", () => shared.showAll(slot));
  context.listen(raw.area, "pointerover", (event) => hover(ownersOf(event)));
  context.listen(raw.area, "click", (event) => {
    const [owner] = ownersOf(event);
    if (owner !== undefined && getSelection().isCollapsed) shared.keep(slot, owner); // a selected text may be copied
  });

  /** Make an instance the current one: it is lit, and the keys act on it. */
  const goTo = (index) => {
    pane.current = index;
    hover([index]);
    for (const element of [pane.items[index].row, pane.items[index].tokens[0]]) element?.scrollIntoView({ block: "nearest" });
  };
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const listed = pane.listed().map((item) => item.index);
    const at = listed.indexOf(pane.current);
    const next = {
      ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1,
      PageDown: at + PAGE_ROWS, PageUp: at - PAGE_ROWS, Home: 0, End: listed.length - 1,
    }[event.key];
    const action = { Enter: "keep", " ": "hide", s: "solo", S: "solo" }[event.key];
    if (next === undefined && !action) return;
    event.preventDefault();
    event.stopPropagation();
    if (next !== undefined && listed.length) goTo(listed[clamp(next, 0, listed.length - 1)]);
    else if (action && at >= 0) shared[action](slot, pane.current);
  };
  const onFocus = (event) => {
    const [first] = pane.listed();
    if (first && event.target.matches(":focus-visible")) goTo(pane.current < 0 ? first.index : pane.current);
  };
  for (const { area } of [list, raw]) {
    context.listen(area, "pointerleave", () => shared.hover(null));
    context.listen(area, "focus", onFocus);
    context.listen(area, "blur", () => shared.hover(null));
    context.listen(area, "keydown", onKey);
  }
};

// --- Pointer: hover, click, pan, pinch and wheel on a stage

const listenToPointer = (context, shared, pane) => {
  const { view } = pane.stage;
  const { zoom } = shared;
  const fingers = new Map();
  let press = null;
  let isTaken = false;

  const spread = () => {
    const [a, b] = [...fingers.values()];
    return {
      distance: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1,
      middle: pane.stage.fractions({ clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 }),
    };
  };
  const pinch = (before, after) => {
    zoom.by(after.distance / before.distance, ...before.middle);
    zoom.pan(after.middle[0] - before.middle[0], after.middle[1] - before.middle[1]);
  };
  const drag = (event) => {
    if (zoom.factor === 1) return;
    const { width, height } = view.getBoundingClientRect();
    zoom.pan((event.clientX - press.x) / width, (event.clientY - press.y) / height);
    [press.x, press.y] = [event.clientX, event.clientY];
  };

  context.listen(view, "pointerdown", (event) => {
    if (pane.slot === 0 && event.button === 0 && fingers.size === 0) isTaken = context.pointerTools.some((tool) => tool(event));
    if (isTaken || event.button > 1) return;
    if (event.button === 1) event.preventDefault(); // no automatic scrolling
    fingers.set(event.pointerId, event);
    press = { x: event.clientX, y: event.clientY, button: event.button, hasMoved: fingers.size > 1 };
  });
  context.listen(view, "pointermove", (event) => {
    if (isTaken) return;
    if (fingers.size === 2 && fingers.has(event.pointerId)) {
      const before = spread();
      fingers.set(event.pointerId, event);
      pinch(before, spread());
      return;
    }
    if (!press || !fingers.has(event.pointerId)) {
      const index = pane.hit(event);
      shared.hover(index < 0 ? null : { slot: pane.slot, indices: [index] });
      return;
    }
    const hasLeft = Math.hypot(event.clientX - press.x, event.clientY - press.y) > CLICK_DISTANCE;
    if (hasLeft && !press.hasMoved) {
      press.hasMoved = true;
      if (zoom.factor > 1) view.setPointerCapture?.(event.pointerId);
    }
    if (press.hasMoved) drag(event);
  });
  const release = (event) => {
    const isClick = press && !press.hasMoved && press.button === 0 && !isTaken && event.type === "pointerup";
    fingers.delete(event.pointerId);
    if (!fingers.size) press = null;
    isTaken = false;
    if (isClick) pane.pick(event);
  };
  context.listen(view, "pointerup", release);
  context.listen(view, "pointercancel", release);
  context.listen(view, "pointerleave", (event) => {
    if (!view.hasPointerCapture?.(event.pointerId)) {
      fingers.delete(event.pointerId);
      press = null;
    }
    shared.hover(null);
  });
  context.listen(view, "wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    zoom.by(clamp(Math.exp(-event.deltaY / 200), 0.5, 2), ...pane.stage.fractions(event));
  }, { passive: false });
  context.listen(view, "keydown", (event) => {
    const step = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (!step || zoom.factor === 1 || event.target !== view || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    zoom.pan(...step);
  });
};

// --- Controls of the toolbar

/** Create the slider of the threshold. The view follows while it moves; the trait is set when it is released. */
const createThreshold = (context, shared) => {
  const { state } = shared;
  const slider = make("input", "", { type: "range", min: "0", max: "1", step: "0.01" });
  const value = make("output", "fl-value");
  const hidden = make("span", "fl-hidden-count");
  const element = make("div", "fl-group fl-threshold fl-off", {}, make("label", "", {}, "Score ≥ ", slider), value, hidden);
  const read = () => {
    state.threshold = context.model.get("threshold") ?? 0;
    slider.value = state.threshold;
    context.redraw();
  };
  context.listen(slider, "input", () => {
    state.threshold = Number(slider.value);
    context.redraw();
  });
  context.listen(slider, "change", () => context.set({ threshold: state.threshold }));
  context.on("threshold", read);
  read();
  return {
    element,
    update: (instances) => {
      const scores = instances.filter(({ score }) => score !== null);
      const low = scores.filter(({ score }) => score < state.threshold).length;
      element.classList.toggle("fl-off", !scores.length);
      setText(value, state.threshold.toFixed(2));
      setText(hidden, low ? `${low} of ${instances.length} hidden` : "");
    },
  };
};

const createZoomButtons = (context, { zoom }) => {
  const out = makeButton("−", "Zoom out (−)");
  const into = makeButton("+", "Zoom in (+)");
  const fit = makeButton("Fit", "Fit the image (0)");
  const percent = make("span", "fl-value fl-zoom-value");
  context.listen(out, "click", () => zoom.by(1 / ZOOM_STEP));
  context.listen(into, "click", () => zoom.by(ZOOM_STEP));
  context.listen(fit, "click", zoom.fit);
  return {
    element: make("div", "fl-group fl-zoom", { role: "group", "aria-label": "Zoom" }, out, percent, into, fit),
    update: (hasImage) => {
      setText(percent, `${Math.round(100 * zoom.factor)}%`);
      for (const button of [out, into, fit]) button.disabled = !hasImage;
    },
  };
};

const MODES = { side: "Side by side", flicker: "Flicker", a: "A only", b: "B only", both: "Both" };

/** Create the buttons that say how two answers are compared. */
const createModes = (context, shared) => {
  const { state } = shared;
  const buttons = Object.entries(MODES).map(([mode, text]) => {
    const button = makeButton(text, mode === "flicker" ? "Flicker: show A and B in turn (B)" : null);
    button.dataset.mode = mode;
    return button;
  });
  const element = make("div", "fl-group fl-modes fl-off", { role: "group", "aria-label": "Comparison" }, ...buttons);
  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; };
  const turn = () => {
    state.shownSlot = 1 - state.shownSlot;
    context.redraw();
  };
  const choose = (mode) => {
    stop();
    state.mode = mode;
    state.shownSlot = mode === "b" ? 1 : 0;
    context.redraw();
  };
  context.listen(element, "click", (event) => {
    const mode = event.target.dataset.mode;
    if (!mode) return;
    choose(mode);
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (mode === "flicker" && !isCalm) timer = setInterval(turn, FLICKER_PERIOD);
  });
  context.onCleanup(stop);
  return {
    element,
    /** Key B: show the other answer, and stop what moves by itself. */
    turn: () => {
      if (state.mode !== "flicker") choose("flicker");
      stop();
      turn();
    },
    update: (isCompared, counts) => {
      element.classList.toggle("fl-off", !isCompared);
      if (!isCompared && (timer || state.mode !== "side")) choose("side");
      for (const button of buttons) {
        const { mode } = button.dataset;
        setText(button, mode in counts ? `${MODES[mode]} ${counts[mode]}` : MODES[mode]);
        button.setAttribute("aria-pressed", String(mode === state.mode));
      }
    },
  };
};

/** Create the strip of the arrangement "tasks": a tab for each answer. */
const createStrip = (context, shared) => {
  const { strip } = context.parts;
  makeTabList(context, strip, (index) => shared.activate(index));
  return {
    update: (answers, active, isShown) => {
      strip.classList.toggle("fl-off", !isShown);
      const count = isShown ? answers.length : 0;
      while (strip.childElementCount > count) strip.lastChild.remove();
      for (let i = 0; i < count; i += 1) {
        const tab = strip.children[i] ?? strip.appendChild(
          make("button", "fl-strip-tab", { type: "button", role: "tab" }, make("b"), make("span")),
        );
        setText(tab.children[0], answers[i].task_name || answers[i].task);
        tab.title = tab.children[0].textContent; // the strip may cut it
        setText(tab.children[1], summaryOf(answers[i]));
      }
      markTab(strip, active);
    },
  };
};

const summaryOf = ({ instances, answer, complete, kind }) => {
  if (kind === "instances" && (instances.length || complete)) return plural(instances.length, "instance");
  if (answer) return answer.slice(0, 80);
  return complete ? "–" : "…";
};

/** Create the tabs of the side. */
const createTabs = (context) => {
  const { tabs, answer, raw, code } = context.parts;
  const panels = [answer, raw, code];
  const id = (index, kind) => `${context.id}-${kind}-${index}`;
  ["Answer", "Raw text", "Code"].forEach((text, i) => {
    tabs.append(make("button", "fl-tab", { type: "button", role: "tab", id: id(i, "tab"), "aria-controls": id(i, "panel"), text }));
    fill(panels[i], "", { role: "tabpanel", id: id(i, "panel"), "aria-labelledby": id(i, "tab") }, []);
  });
  let opened = 0;
  const open = (chosen) => {
    opened = chosen;
    markTab(tabs, chosen);
    panels.forEach((panel, i) => panel.classList.toggle("fl-off", i !== chosen));
  };
  const showCode = () => {
    tabs.lastChild.hidden = !context.model.get("code");
    if (tabs.lastChild.hidden && opened === 2) open(0);
  };
  makeTabList(context, tabs, open);
  context.on("code", showCode);
  open(0);
  showCode();
};

// --- Image

/** Create the function that shows the pixels of the model in images, as an object URL that is revoked. */
const createPicture = (context) => {
  let pixels = null;
  let url = "";
  const release = () => { if (url) URL.revokeObjectURL(url); url = ""; };
  context.onCleanup(release);
  return (images, name) => {
    const current = context.model.get("pixels");
    const size = current?.byteLength ?? 0;
    if (current !== pixels) {
      release();
      pixels = current;
      if (size) url = URL.createObjectURL(new Blob([current]));
    }
    for (const image of images) {
      image.alt = name;
      if ((image.dataset.url ?? "") === url) continue;
      image.dataset.url = url;
      if (url) image.src = url;
      else image.removeAttribute("src");
    }
  };
};

// --- Actions on instances

/** Add the actions to `shared`, and `keptOf(slot)`, the instances that were clicked. */
const createActions = (context, shared) => {
  const { model } = context;
  const { state, panes } = shared;
  const nameOf = (slot, index) => `${index + 1} ${panes[slot].answer.instances[index].label}`.trim();
  const sameTarget = (a, b) => a === b || (a && b && a.slot === b.slot && sameItems(a.indices, b.indices));

  shared.isComparing = () => model.get("arrangement") === "compare";
  shared.keptOf = (slot) => {
    const isChosen = !shared.isComparing() || (model.get("active") ?? 0) === slot;
    return new Set(isChosen ? model.get("selected") ?? [] : []);
  };
  /** Light what is kept and what the pointer is at, with the partners of the latter in a comparison. */
  shared.light = () => {
    const { hovered } = state;
    for (const pane of panes) {
      const kept = shared.keptOf(pane.slot);
      const isOwn = hovered?.slot === pane.slot;
      const pointed = (hovered?.indices ?? []).map((index) => (isOwn ? index : shared.partnerOf(hovered.slot, index)));
      pane.light(new Set([...kept, ...pointed]), kept);
    }
  };
  shared.hover = (target) => {
    if (sameTarget(state.hovered, target)) return;
    state.hovered = target;
    shared.light();
  };
  shared.keep = (slot, index) => {
    const kept = shared.keptOf(slot);
    if (!kept.delete(index)) kept.add(index);
    context.set({ ...(shared.isComparing() ? { active: slot } : {}), selected: [...kept].sort((a, b) => a - b) });
    context.announce(`${nameOf(slot, index)} ${kept.has(index) ? "kept" : "no longer kept"}`);
    context.redraw();
  };
  shared.hide = (slot, index) => {
    const { id } = panes[slot].answer;
    if (!state.hidden.has(id)) state.hidden.set(id, new Set());
    const hidden = state.hidden.get(id);
    if (!hidden.delete(index)) hidden.add(index);
    context.announce(`${nameOf(slot, index)} ${hidden.has(index) ? "hidden" : "shown"}`);
    context.redraw();
  };
  shared.solo = (slot, index) => {
    const isSolo = state.solo?.slot === slot && state.solo.index === index;
    state.solo = isSolo ? null : { slot, index, id: panes[slot].answer.id };
    context.announce(isSolo ? "All shown" : `Only ${nameOf(slot, index)} shown`);
    context.redraw();
  };
  shared.showAll = (slot) => {
    state.hidden.delete(panes[slot].answer?.id);
    state.solo = null;
    panes[slot].list.area.focus({ preventScroll: true }); // the button is disabled now
    context.announce("All shown");
    context.redraw();
  };
  shared.activate = (index) => {
    if (index === model.get("active")) return;
    context.set({ active: index, selected: [] });
    context.redraw();
  };
  /** Escape: nothing is kept, lit or alone. Hidden instances stay hidden. */
  shared.clear = () => {
    Object.assign(state, { solo: null, hovered: null });
    for (const pane of panes) pane.current = -1;
    if (model.get("selected")?.length) context.set({ selected: [] });
    context.redraw();
  };
};

/** Whether an instance is at least as sure as the threshold asks, or has no score. */
const isSure = ({ score }, threshold) => score === null || score >= threshold;

/** Match the sure instances of two answers. Returns the partners of both, and how many instances each mode shows. */
const compareAnswers = (answers, threshold) => {
  const [a, b] = answers.map((answer) =>
    (answer?.instances ?? []).map((instance) => (isSure(instance, threshold) ? instance : null)));
  const matches = matchInstances(a, b);
  const both = matches[0].size;
  return { matches, counts: { a: a.filter(Boolean).length - both, b: b.filter(Boolean).length - both, both } };
};

/** Create `compareAnswers` that keeps its last value: zoom and pan redraw with the same answers. */
const createMatcher = () => {
  let last = [];
  let found = null;
  return (answers, threshold) => {
    const given = [...answers, threshold];
    if (!found || !sameItems(given, last)) found = compareAnswers(answers, threshold);
    last = given;
    return found;
  };
};

// --- Display: everything that shows answers

const DRAWN_TRAITS = ["picture", "pixels", "answers", "arrangement", "is_stale", "phase", "hint", "active", "selected"];

const createState = (context) => ({
  id: context.id,
  picture: {},
  threshold: 0,
  hovered: null, // Target
  solo: null, // {slot, index, id of the answer}
  hidden: new Map(), // id of an answer -> indices of its hidden instances
  mode: "side", // a key of MODES
  shownSlot: 0, // the answer on show when there is room for one
  matches: [new Map(), new Map()], // of each answer: index -> that of its partner
});

/** Create the controls of the answers. */
const createControls = (context, shared) => ({
  threshold: createThreshold(context, shared),
  zoomButtons: createZoomButtons(context, shared),
  modes: createModes(context, shared),
  strip: createStrip(context, shared),
  matchAnswers: createMatcher(),
  showPicture: createPicture(context),
});

/** Put the controls and the first pane into the layout. */
const placeParts = ({ parts }, [{ header, stage, list, raw }], { threshold, zoomButtons, modes }) => {
  Object.assign(parts, { stage: stage.element, view: stage.view, regionLayer: stage.regionLayer });
  parts.toolbar.append(parts.upload, parts.region, threshold.element, modes.element, zoomButtons.element, parts.download);
  parts.main.append(header.element, stage.element, parts.side);
  parts.answer.append(list.element);
  parts.raw.append(raw.element);
};

/** Return the answers of the panes: one, or two in a comparison of which one may still be missing. */
const readAnswers = (model, isComparing) => {
  const answers = model.get("answers") ?? [];
  if (isComparing) return [answers[0] ?? null, answers[1] ?? null];
  return [answers[model.get("active") ?? 0] ?? answers[0] ?? null];
};

/** Take over the picture. Zoom, hidden instances and a solo belong to the former one. */
const readPicture = ({ model, root }, { state, zoom }) => {
  const picture = model.get("picture") ?? {};
  if (picture.id !== state.picture.id) {
    zoom.fit();
    state.hidden.clear();
    Object.assign(state, { solo: null, hovered: null });
  }
  state.picture = picture;
  root.style.setProperty("--fl-aspect", picture.width ? picture.width / picture.height : 4 / 3);
};

/** Add and remove what the second answer needs. Its elements are made once, by the first comparison. */
const arrangePanes = (context, shared, isCompared) => {
  const { parts } = context;
  const { panes } = shared;
  if (isCompared && !panes[1]) panes.push(createPane(context, shared, 1));
  if (!panes[1]) return;
  const { header, stage, list, raw, update } = panes[1];
  if (isCompared && !stage.element.parentNode) {
    panes[0].stage.element.after(header.element, stage.element);
    parts.answer.append(list.element);
    parts.raw.append(raw.element);
  } else if (!isCompared && stage.element.parentNode) {
    for (const { element } of [header, stage, list, raw]) element.remove();
    update(null, { phase: "done", isStale: false, isCompared: false });
  }
};

const updatePanes = (model, { panes, isComparing }, answers, isCompared) => {
  const info = {
    isCompared,
    phase: model.get("phase") ?? "empty",
    hint: model.get("hint") ?? "",
    isStale: Boolean(model.get("is_stale")),
    isMissing: isComparing() && !isCompared && answers.some(Boolean),
  };
  answers.slice(0, isCompared ? 2 : 1).forEach((answer, slot) => panes[slot].update(answer, info));
};

/** Forget the state of answers that are gone: a new answer must not inherit it. */
const forgetGone = (model, { state, panes }) => {
  const answers = model.get("answers") ?? [];
  for (const id of state.hidden.keys()) if (!answers.some((answer) => answer.id === id)) state.hidden.delete(id);
  if (state.solo && panes[state.solo.slot].answer?.id !== state.solo.id) state.solo = null;
  const { hovered } = state;
  if (hovered?.indices.some((index) => !panes[hovered.slot].items[index])) state.hovered = null;
};

/** Apply threshold, comparison, hidden instances and solo to all panes. */
const filterPanes = ({ state, panes, partnerOf }) => {
  const { solo, mode } = state;
  for (const pane of panes) {
    const { slot } = pane;
    const hasPartner = (index) => partnerOf(slot, index) !== undefined;
    const isInMode = (index) => mode === "side" || mode === "flicker" || hasPartner(index) === (mode === "both");
    const isAlone = (index) => (solo.slot === slot ? solo.index : partnerOf(solo.slot, solo.index)) === index;
    const hidden = state.hidden.get(pane.answer?.id);
    pane.filter(
      ({ index, instance }) => isSure(instance, state.threshold) && isInMode(index),
      ({ index }) => !hidden?.has(index) && (!solo || isAlone(index)),
    );
  }
};

/** Move the focus from the stage or list that is not shown to that of the other answer. */
const keepFocus = (root, panes, focused) => {
  const areasOf = ({ stage, list, raw }) => [stage.view, list.area, list.showAll, raw.area];
  const from = panes.find((pane) => areasOf(pane).includes(focused));
  if (!from || !panes[1] || ["all", String(from.slot)].includes(root.dataset.shown)) return;
  areasOf(panes[1 - from.slot])[areasOf(from).indexOf(focused)].focus({ preventScroll: true });
};

/** Set the state as data attributes, which the style sheet uses. */
const setLayout = ({ model, root }, { state, panes }, isCompared, count) => {
  const focused = root.getRootNode().activeElement;
  const shown = !isCompared || state.mode === "side" ? "all" : String(state.shownSlot);
  Object.assign(root.dataset, {
    shown,
    layout: isCompared && shown === "all" ? "two" : "one",
    phase: model.get("phase") ?? "empty",
    picture: state.picture.width ? "yes" : "no",
    answers: count,
  });
  keepFocus(root, panes, focused);
};

/** Draw the traits and the state of the view. */
const drawDisplay = (context, shared, controls) => {
  const { model } = context;
  const { state, panes } = shared;
  readPicture(context, shared);
  const answers = readAnswers(model, shared.isComparing());
  const count = answers.filter(Boolean).length;
  // where one of two models fails, its half is missing
  const isCompared = shared.isComparing() && (count === 2 || ["loading", "answering"].includes(model.get("phase")));
  arrangePanes(context, shared, isCompared);
  updatePanes(model, shared, answers, isCompared);
  forgetGone(model, shared);

  const { matches, counts } = controls.matchAnswers(isCompared ? answers : [null, null], state.threshold);
  state.matches = matches;
  controls.modes.update(isCompared, counts);
  controls.threshold.update(answers.flatMap((answer) => answer?.instances ?? []));
  controls.zoomButtons.update(Boolean(state.picture.width));
  controls.strip.update(model.get("answers") ?? [], model.get("active") ?? 0, model.get("arrangement") === "tasks");
  setLayout(context, shared, isCompared, count);

  setText(panes[0].stage.blank, state.picture.width ? "" : model.get("hint") || "No image.");
  controls.showPicture(panes.map(({ stage }) => stage.image), state.picture.name ?? "");
  filterPanes(shared);
  for (const { stage, items } of panes) stage.place(items);
  shared.light();
};

/** Listen to the keys that act anywhere in the viewer: zoom, Escape, and B in a comparison. */
const listenToKeys = (context, { zoom, clear }, modes) => {
  const keys = {
    "+": () => zoom.by(ZOOM_STEP), "=": () => zoom.by(ZOOM_STEP), "-": () => zoom.by(1 / ZOOM_STEP), 0: zoom.fit,
    Escape: clear,
  };
  context.listen(context.root, "keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    const isTurn = event.key.toLowerCase() === "b" && !modes.element.classList.contains("fl-off");
    const action = isTurn ? modes.turn : keys[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  });
};

/** Show the image with its answers. The first pane exists from the beginning: the tools are placed into it. */
const createDisplay = (context) => {
  const state = createState(context);
  const zoom = createZoom(context.redraw);
  const panes = [];
  const shared = { state, zoom, panes, measure: createMeasure(context), partnerOf: (slot, index) => state.matches[slot].get(index) };
  createActions(context, shared);
  panes.push(createPane(context, shared, 0));
  const [first] = panes;
  const controls = createControls(context, shared);
  createTabs(context);
  placeParts(context, panes, controls);
  context.pick = first.pick;
  context.scale = () => (first.stage.size[0] / state.picture.width) * zoom.factor || 1;
  context.onDraw(() => drawDisplay(context, shared, controls));
  for (const name of DRAWN_TRAITS) context.on(name, context.redraw);
  listenToKeys(context, shared, controls.modes);
};

// --- Region

const REGION_WRITE_MS = 100; // the trait follows the drawing ten times a second
const REGION_SAY_MS = 400; // a region is announced to screen readers once it has not changed for this time
const HANDLE_PX = 10; // side of a handle in CSS pixels
const CLICK_PX = 3; // a gesture that moves less is a click
const MIN_REGION_PX = 1; // image pixels
const REGION_FIELDS = ["x0", "y0", "x1", "y1"];
const REGION_KEYS = "Arrow keys move it by 1 pixel, with Shift by 10. With Alt they move its lower right corner. Escape clears it.";
/** The handles: which sides of the region they move (-1 the first one, 1 the last one, 0 none), and the cursor. */
const HANDLES = [
  [-1, -1, "nwse"], [0, -1, "ns"], [1, -1, "nesw"], [1, 0, "ew"], [1, 1, "nwse"], [0, 1, "ns"], [-1, 1, "nesw"], [-1, 0, "ew"],
];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Order two coordinates and clip them to 0..side, in whole pixels and at least `MIN_REGION_PX` apart. */
const clipSides = (a, b, side) => {
  const first = clamp(Math.round(Math.min(a, b)), 0, Math.max(side - MIN_REGION_PX, 0));
  return [first, clamp(Math.round(Math.max(a, b)), first + MIN_REGION_PX, side)];
};

const clipRegion = ([x0, y0, x1, y1], { width, height }) => {
  const [left, right] = clipSides(x0, x1, width);
  const [top, bottom] = clipSides(y0, y1, height);
  return [left, top, right, bottom];
};

/** Move a region by whole pixels, no further than to the border of the image: its size stays. */
const moveRegion = ([x0, y0, x1, y1], dx, dy, { width, height }) => {
  const x = clamp(Math.round(dx), -x0, width - x1);
  const y = clamp(Math.round(dy), -y0, height - y1);
  return [x0 + x, y0 + y, x1 + x, y1 + y];
};

/** Move the sides that a handle holds. A side may be dragged over the opposite one. */
const resizeRegion = ([x0, y0, x1, y1], [sx, sy], dx, dy, picture) =>
  clipRegion([x0 + (sx < 0 ? dx : 0), y0 + (sy < 0 ? dy : 0), x1 + (sx > 0 ? dx : 0), y1 + (sy > 0 ? dy : 0)], picture);

/** Set one number of a region as it was typed. The opposite side gives way, so that the region keeps its size. */
const setRegionField = (region, index, value, picture) => {
  const side = index % 2 ? picture.height : picture.width;
  const [first, last] = [region[index % 2], region[(index % 2) + 2]];
  const isFirst = index < 2;
  const typed = isFirst ? clamp(value, 0, side - MIN_REGION_PX) : clamp(value, MIN_REGION_PX, side);
  const other = isFirst ? (typed < last ? last : typed + last - first) : typed > first ? first : typed - (last - first);
  const [low, high] = clipSides(typed, other, side);
  const changed = [...region];
  changed[index % 2] = low;
  changed[(index % 2) + 2] = high;
  return changed;
};

const describeRegion = ([x0, y0, x1, y1]) => `Region from x ${x0}, y ${y0} to x ${x1}, y ${y1}`;

/** Create the rectangle with its handles. Returns the group and the function that puts it around a region. */
const createRegionShape = () => {
  const [halo, box] = ["halo", "box"].map((name) => draw("rect", `fl-region-${name}`, { "vector-effect": "non-scaling-stroke" }));
  const handles = HANDLES.map(([sx, sy, cursor], index) =>
    draw("rect", "fl-region-handle", { "data-handle": index, style: `cursor: ${cursor}-resize`, "vector-effect": "non-scaling-stroke" }),
  );
  // "application": screen readers pass the arrow keys on
  const group = draw("g", "fl-region-shape", { tabindex: "0", role: "application", "aria-roledescription": "region" }, halo, box, ...handles);
  const place = ([x0, y0, x1, y1], scale) => {
    const set = (element, x, y, width, height) =>
      Object.entries({ x, y, width, height }).forEach(([name, value]) => element.setAttribute(name, value));
    for (const border of [halo, box]) set(border, x0, y0, x1 - x0, y1 - y0);
    const side = HANDLE_PX / scale;
    handles.forEach((handle, index) => {
      const [sx, sy] = HANDLES[index];
      set(handle, (x0 + x1 + sx * (x1 - x0) - side) / 2, (y0 + y1 + sy * (y1 - y0) - side) / 2, side, side);
    });
    group.setAttribute("aria-label", `${describeRegion([x0, y0, x1, y1])}. ${REGION_KEYS}`);
  };
  return [group, place];
};

/** Create the toolbar of the region: a cue, four numbers and two buttons. */
const createRegionBar = (context) => {
  const inputs = REGION_FIELDS.map((name) =>
    make("input", "fl-number", { type: "number", step: "1", min: "0", inputmode: "numeric", "aria-label": `Region ${name} in pixels` }),
  );
  const fields = REGION_FIELDS.map((name, index) => make("label", "fl-field", {}, make("span", "", { text: name }), inputs[index]));
  const add = make("button", "fl-button", { type: "button", text: "Add region", title: "Place a region in the middle of the image" });
  const clear = make("button", "fl-button", { type: "button", text: "Clear", title: "Remove the region (Escape)" });
  const cue = make("span", "fl-cue", { text: "Drag a region on the image" });
  const bar = make("div", "fl-region-bar", { role: "group", "aria-label": "Region in pixels" }, add, clear, ...fields, cue);
  context.parts.region.append(bar);
  return { bar, inputs, add, clear, cue };
};

/** Whether a region can be drawn now. */
const takesRegion = (model) => Boolean(model.get("takes_region") && model.get("picture")?.width);

/**
 * Create the region as it is drawn: `[]` or four numbers. The trait follows it, at most ten times a second.
 * @param {Context} context
 * @param {() => void} onChange Called when the region is another one.
 */
const createRegionValue = (context, onChange) => {
  const { model, announce } = context;
  let region = [];
  let writeTimer = 0;
  let sayTimer = 0;

  const drop = () => {
    clearTimeout(writeTimer);
    writeTimer = 0;
  };
  const write = () => {
    drop();
    context.set({ region });
  };
  context.onCleanup(() => {
    drop();
    clearTimeout(sayTimer);
  });
  return {
    get: () => region,
    isWaiting: () => writeTimer !== 0,
    /** Set the trait now. */
    write,
    /** Forget what was not written yet. */
    drop,
    change: (changed, isFinal) => {
      region = changed;
      onChange();
      if (isFinal) write();
      else writeTimer ||= setTimeout(write, REGION_WRITE_MS);
      clearTimeout(sayTimer);
      sayTimer = setTimeout(() => announce(region.length ? describeRegion(region) : "Region cleared"), REGION_SAY_MS);
    },
    /** Take over the trait, which Python or another view of the model has set. */
    read: () => {
      const given = model.get("region") ?? [];
      const picture = model.get("picture") ?? {};
      region = given.length === 4 && picture.width ? clipRegion(given, picture) : [];
      onChange();
    },
  };
};

/** Return the region of a gesture whose pointer is at (x, y) in image pixels. */
const dragRegion = ({ from, before, handle, isInside }, [x, y], picture) => {
  const [dx, dy] = [x - from[0], y - from[1]];
  if (handle) return resizeRegion(before, handle, dx, dy, picture);
  return isInside ? moveRegion(before, dx, dy, picture) : clipRegion([...from, x, y], picture);
};

/**
 * Return a function that says whether Space is held down for panning, as a drag alone draws. Space still presses a button that
 * has the focus.
 */
const watchSpace = ({ model, root, parts, listen }, shape) => {
  let isDown = false;
  listen(window, "keydown", (event) => {
    const focused = root.getRootNode().activeElement;
    const isFree = [document.body, parts.view, shape, null].includes(focused);
    if (event.key !== " " || !isFree || !takesRegion(model)) return;
    if (!parts.view.matches(":hover") && !root.contains(focused)) return;
    event.preventDefault(); // no scrolling
    isDown = true;
  });
  listen(window, "keyup", (event) => { if (event.key === " ") isDown = false; });
  listen(window, "blur", () => { isDown = false; });
  return () => isDown;
};

/** Draw, move and resize the region with the pointer. Returns whether a gesture is in progress, and how to end it. */
const createRegionGesture = (context, value, shape) => {
  const { model, parts } = context;
  const isSpaceDown = watchSpace(context, shape);
  let gesture = null; // {pointerId, from: image pixels at the press, before: the region then, handle, isInside, isClick}

  const end = () => {
    gesture?.controller.abort();
    gesture = null;
  };

  /** Restore the region from before the gesture: Escape was pressed, or the browser took the pointer away. */
  const undo = () => {
    if (!gesture) return;
    const { before } = gesture;
    end();
    value.change(before, true);
  };

  const onMove = (event) => {
    if (event.pointerId !== gesture?.pointerId) return;
    const [x, y] = gesture.client;
    gesture.isClick &&= Math.hypot(event.clientX - x, event.clientY - y) < CLICK_PX;
    if (!gesture.isClick) value.change(dragRegion(gesture, context.toImage(event), model.get("picture")), false);
  };

  const onUp = (event) => {
    if (event.pointerId !== gesture?.pointerId) return;
    onMove(event); // the release may be further than the last move
    const { isClick, isInside, handle } = gesture;
    end();
    if (!isClick) value.write();
    if (!isClick || isInside || handle) shape.focus({ preventScroll: true });
    if (isClick && !handle) context.pick(event);
  };

  const onKey = (event) => {
    if (event.key !== "Escape") return;
    undo();
    event.preventDefault();
    event.stopPropagation();
  };

  /** The pointer tool of the viewer, see `Context.pointerTools`. */
  const onPress = (event) => {
    if (!takesRegion(model)) return false;
    if (gesture) { // a second finger: not one region
      undo();
      return true;
    }
    if (isSpaceDown()) return false; // pans
    const controller = new AbortController();
    gesture = {
      controller,
      pointerId: event.pointerId,
      client: [event.clientX, event.clientY],
      from: context.toImage(event),
      before: value.get(),
      handle: HANDLES[event.target.dataset?.handle],
      isInside: event.target.classList.contains("fl-region-box"),
      isClick: true,
    };
    parts.view.setPointerCapture(event.pointerId);
    const options = { signal: controller.signal };
    parts.view.addEventListener("pointermove", onMove, options);
    parts.view.addEventListener("pointerup", onUp, options);
    parts.view.addEventListener("pointercancel", undo, options);
    window.addEventListener("keydown", onKey, { ...options, capture: true }); // wherever the focus is
    return true;
  };

  context.pointerTools.push(onPress);
  context.onCleanup(end);
  return { isActive: () => gesture !== null, end };
};

/** Change the region by the numbers, the buttons and the keys. */
const listenToRegionControls = (context, value, shape, { bar, inputs, add, clear }, show) => {
  const { model, root, parts, listen } = context;
  const picture = () => model.get("picture");

  const remove = () => {
    const hadFocus = root.contains(root.getRootNode().activeElement);
    value.change([], true);
    if (hadFocus) add.focus({ preventScroll: true });
  };

  const onArrow = (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow || event.target !== shape || event.ctrlKey || event.metaKey) return;
    event.preventDefault(); // no scrolling, and Alt with left is not "back"
    event.stopPropagation();
    const [dx, dy] = arrow.map((step) => step * (event.shiftKey ? 10 : 1));
    if (!event.altKey) return value.change(moveRegion(value.get(), dx, dy, picture()), false);
    const [x0, y0, x1, y1] = value.get();
    const { width, height } = picture();
    value.change([x0, y0, clamp(x1 + dx, x0 + MIN_REGION_PX, width), clamp(y1 + dy, y0 + MIN_REGION_PX, height)], false);
  };

  const onEscape = (event) => {
    if (event.key !== "Escape" || !takesRegion(model) || !value.get().length) return;
    remove();
    event.preventDefault();
    event.stopPropagation();
  };

  const onNumber = (index) => {
    const input = inputs[index];
    delete input.dataset.isTyped;
    const { width, height } = picture();
    const number = input.valueAsNumber;
    if (Number.isNaN(number)) return show(); // not a number: what was there stays
    const region = value.get().length ? value.get() : [0, 0, width, height];
    value.change(setRegionField(region, index, Math.round(number), picture()), true);
  };

  const addCentred = () => {
    const { width, height } = picture();
    value.change(clipRegion([width / 4, height / 4, (3 * width) / 4, (3 * height) / 4], picture()), true);
    shape.focus({ preventScroll: true });
  };

  listen(shape, "keydown", onArrow);
  listen(shape, "blur", () => value.isWaiting() && value.write()); // before Run is pressed
  for (const area of [parts.view, bar]) listen(area, "keydown", onEscape);
  listen(add, "click", addCentred);
  listen(clear, "click", remove);
  inputs.forEach((input, index) => {
    listen(input, "input", () => { input.dataset.isTyped = "true"; });
    listen(input, "change", () => onNumber(index));
  });
};

/** Draw a region on the image with the pointer, keys or numbers. Uses `takes_region` and `region`. */
const createRegion = (context) => {
  const { model, parts } = context;
  const [shape, place] = createRegionShape();
  const controls = createRegionBar(context);
  const { bar, inputs, add, clear, cue } = controls;

  const show = () => {
    const isOn = takesRegion(model);
    const region = value.get();
    const isShown = isOn && region.length === 4;
    bar.hidden = !isOn;
    parts.stage.classList.toggle("fl-takes-region", isOn);
    cue.style.visibility = isShown ? "hidden" : ""; // it keeps its space: the image must not move under the pointer
    add.hidden = isShown;
    clear.hidden = !isShown;
    const { width, height } = model.get("picture") ?? {};
    inputs.forEach((input, index) => {
      input.max = index % 2 ? height : width;
      if (!input.dataset.isTyped) input.value = isShown ? region[index] : "";
    });
    if (!isShown) return shape.remove();
    place(region, context.scale());
    if (!shape.isConnected) parts.regionLayer.append(shape);
  };

  const value = createRegionValue(context, show);
  const gesture = createRegionGesture(context, value, shape);
  listenToRegionControls(context, value, shape, controls, show);

  /** Take over the trait, unless the region that is drawn here is newer. */
  const follow = () => { if (!gesture.isActive() && !value.isWaiting()) value.read(); };
  for (const name of ["region", "takes_region"]) context.on(name, follow);
  context.on("picture", () => { // what was drawn belongs to the former image
    gesture.end();
    value.drop();
    follow();
  });
  context.onDraw(show); // handles keep their size under zoom
  follow();
};

// --- Uploads

const CHUNK_BYTES = 2 * 2 ** 20; // Jupyter's server closes a connection whose message has more than 10 MiB
const ACKNOWLEDGE_MS = 10_000; // a kernel that is alive answers a chunk within tenths of a second
const MEBIBYTE = 2 ** 20;

const formatSize = (bytes) =>
  bytes < MEBIBYTE ? `${Math.max(1, Math.round(bytes / 1024))} KiB` : `${(bytes / MEBIBYTE).toFixed(bytes < 10 * MEBIBYTE ? 1 : 0)} MiB`;

let lastId = 0;
/** Return an id that no other view of the model uses, also after a reload of the page. */
const createId = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}-${(lastId += 1)}`;

/** Send a message. A connection that is closed is handled like a kernel that does not answer. */
const trySend = (context, content, buffers = []) => {
  try {
    context.send(content, buffers);
  } catch {
    // ipywidgets throws after the kernel was restarted; the time limits and the heartbeat report it
  }
};

/** Return why a file cannot be uploaded, or "". */
const refuseFile = (file, limit) => {
  if (file.size > limit) {
    return `${file.name} has ${formatSize(file.size)}, and up to ${formatSize(limit)} can be uploaded. Choose a smaller file, or open it by its path if the menu of images offers that.`;
  }
  return file.size ? "" : `${file.name} is empty.`;
};

/** Return the first file of a drop or of the clipboard, or undefined. */
const firstFile = (transfer) => [...(transfer?.files ?? [])][0];

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

/** Create the elements of the upload. */
const createUploadBar = (context) => {
  const input = make("input", "", { type: "file", accept: "image/*", hidden: "", tabindex: "-1", "aria-label": "Image file" });
  const button = makeButton("Upload an image");
  const limit = make("span", "fl-upload-limit");
  const bar = make("progress", "fl-progress", { "aria-label": "Upload" });
  const cancel = make("button", "fl-button", { type: "button", text: "Cancel", "aria-label": "Cancel the upload" });
  const count = make("span", "fl-upload-count");
  const progress = make("span", "fl-upload-progress", { hidden: "" }, bar, count, cancel);
  const text = make("span", "fl-upload-text", { role: "status" });
  const error = make("span", "fl-upload-error", { role: "alert" });
  context.parts.upload.append(button, input, limit, progress, text, error);
  return { input, button, limit, bar, cancel, count, progress, text, error };
};

/**
 * Send a file in chunks, each after the answer to the one before.
 * @param {Context} context
 * @param {{id: string, answer: Function}} upload `answer` is called with Python's messages for the id.
 * @param {File} file
 * @param {(sent: number) => void} onProgress Called with the number of bytes that have arrived.
 * @returns {Promise<void>} Rejects with the words for the user.
 */
const sendChunks = async (context, upload, file, onProgress) => {
  for (let at = 0; at < file.size && !upload.isOver; at += CHUNK_BYTES) {
    const chunk = await file.slice(at, at + CHUNK_BYTES).arrayBuffer().catch(() => {
      throw new Error(`${file.name} cannot be read.`);
    });
    if (upload.isOver) return;
    await new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`The kernel does not answer. The upload of ${file.name} has stopped at ${formatSize(at)}.`)),
        ACKNOWLEDGE_MS,
      );
      upload.answer = (message) => {
        if (message.kind === "received" && message.at !== at) return; // of a chunk before
        clearTimeout(timer);
        if (message.kind === "refused") reject(new Error(message.text));
        else resolve();
      };
      trySend(context, { kind: "upload", id: upload.id, name: file.name, at, size: file.size }, [chunk]);
    });
    onProgress(Math.min(at + CHUNK_BYTES, file.size));
  }
};

/** Call `start` with a file that is chosen, dropped on the stage or pasted, as long as `isOn()`. */
const listenToFiles = (context, { button, input }, isOn, start) => {
  const { root, parts, listen } = context;

  const take = (event, transfer) => {
    const file = firstFile(transfer);
    if (!file || !isOn()) return;
    event.preventDefault();
    event.stopPropagation(); // Jupyter handles dropped and pasted files as well
    start(file);
  };

  const onDrag = (event) => {
    if (!isOn() || !carriesFiles(event)) return;
    event.preventDefault(); // allows dropping here
    event.stopPropagation();
    parts.stage.classList.toggle("fl-drop", event.type === "dragenter" || event.type === "dragover");
  };

  listen(button, "click", () => input.click());
  listen(input, "change", () => {
    const file = input.files[0];
    if (file) start(file);
    input.value = ""; // the same file can be chosen again
  });
  for (const type of ["dragenter", "dragover", "dragleave"]) listen(parts.stage, type, onDrag);
  listen(parts.stage, "drop", (event) => {
    parts.stage.classList.remove("fl-drop");
    take(event, event.dataTransfer);
  });
  listen(root, "paste", (event) => take(event, event.clipboardData));
};

/** Send files to Python in acknowledged chunks. Uses `upload_limit` and `has_tools`. */
const createUploads = (context) => {
  const { model, parts, listen } = context;
  const elements = createUploadBar(context);
  let upload = null; // the one in progress: {id, answer, isOver}

  const isOn = () => model.get("has_tools") && model.get("upload_limit") > 0;

  /** Show the outcome of an upload in place of the limit. */
  const say = (text, refusal = "") => {
    elements.text.textContent = text;
    elements.error.textContent = refusal;
    elements.limit.hidden = Boolean(text || refusal || upload);
  };

  const showLimits = () => {
    parts.upload.hidden = !isOn();
    elements.limit.textContent = `up to ${formatSize(model.get("upload_limit"))}; or drop or paste one`;
  };

  const showProgress = (file, sent) => {
    elements.bar.max = file.size;
    elements.bar.value = sent;
    elements.count.textContent = `${formatSize(sent)} of ${formatSize(file.size)}`;
  };

  /** Leave the upload in progress, if any. */
  const end = () => {
    if (upload) upload.isOver = true;
    upload?.answer({ kind: "left" });
    upload = null;
    elements.progress.hidden = true;
  };

  const cancel = () => {
    if (!upload) return;
    trySend(context, { kind: "cancel", id: upload.id });
    end();
  };

  const start = async (file) => {
    cancel();
    const refusal = refuseFile(file, model.get("upload_limit"));
    say("", refusal);
    if (refusal) return;
    const mine = { id: createId(), answer: () => {}, isOver: false };
    upload = mine;
    showProgress(file, 0);
    elements.progress.hidden = false;
    say("");
    try {
      await sendChunks(context, mine, file, (sent) => mine.isOver || showProgress(file, sent));
      if (mine.isOver) return;
      end();
      say(`${file.name} has been uploaded.`);
    } catch (problem) {
      if (mine.isOver) return;
      cancel();
      say("", problem.message);
    }
  };

  const onCancel = () => {
    cancel();
    say("Upload cancelled.");
    elements.button.focus({ preventScroll: true }); // Cancel is hidden now
  };

  listenToFiles(context, elements, isOn, start);
  listen(elements.cancel, "click", onCancel);
  context.onMessage((message) => {
    if (upload && message.id === upload.id && ["received", "refused"].includes(message.kind)) upload.answer(message);
  });
  for (const name of ["upload_limit", "has_tools"]) context.on(name, showLimits);
  context.onCleanup(cancel);
  showLimits();
};

// --- Heartbeat

const PING_MS = 3_000; // with PONG_MS 7 s: a dead kernel is reported within 8 s
const PONG_MS = 4_000; // an import or a large image can block a kernel for a second or two
const MAX_PING_MS = 48_000; // a silent kernel is asked less often: a new one logs each message for a widget that it does not know
const MAX_UNANSWERED = 20; // pings that are remembered

/** Return a sentence about a silent kernel. The advice for a notebook differs from that for Voilà's page. */
const describeSilence = (reason) => {
  const [busy, again, dead] = document.body.dataset.voila
    ? ["It is busy", "reload the page", "reload the page"]
    : ["It is busy with another cell", "run this cell again", "restart it and run this cell again"];
  const texts = {
    unknown: `The kernel does not answer. ${busy}, or it was restarted: ${again}.`,
    busy: `The kernel does not answer. ${busy}, and answers here afterwards.`,
    restarted: `The kernel was restarted: ${again}.`,
    dead: `The kernel has stopped: ${dead}.`,
    disconnected: "The connection to the kernel is lost. If it does not come back, reload the page.",
  };
  return texts[reason] ?? "";
};

/** What Jupyter calls the status of a kernel that does not answer -> the reason. */
const REASONS = { busy: "busy", restarting: "restarted", autorestarting: "restarted", starting: "restarted", dead: "dead", terminating: "dead" };

const RUN = ".fl-bar button.fl-run";
const DISCONNECTED = "jupyter-widgets-disconnected"; // a class that ipywidgets gives to views whose kernel was restarted

/** Return the reason that fits what Jupyter's own connection, where it can be reached, knows about the kernel. */
const findReason = (model) => {
  const kernel = model.widget_manager?.kernel;
  if (kernel?.connectionStatus && kernel.connectionStatus !== "connected") return "disconnected";
  return REASONS[kernel?.status] ?? "unknown";
};

/** Show why the kernel is silent, "" for one that answers: a notice, and a panel that is dimmed and cannot run. */
const showSilence = ({ el, root }, notice, reason) => {
  notice.textContent = describeSilence(reason);
  const panel = el.closest(".fl-panel") ?? root;
  panel.classList.toggle("fl-silent", Boolean(reason));
  const isDead = reason && reason !== "busy"; // what is pressed while the kernel is busy is done afterwards
  const run = panel.querySelector(RUN);
  if (isDead) run?.setAttribute("aria-disabled", "true");
  else run?.removeAttribute("aria-disabled");
};

/** Let clicks on a disabled Run do nothing. ipywidgets would send them once the connection comes back. */
const refuseDisabledRun = ({ el, listen }) =>
  listen(window, "click", (event) => {
    const run = event.target.closest?.(`${RUN}[aria-disabled="true"]`);
    if (!run || !el.closest(".fl-panel")?.contains(run)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, { capture: true });

/** Call `onRestart` when Jupyter's own connection, where it can be reached, restarts the kernel. */
const watchRestarts = ({ model, onCleanup }, onRestart) => {
  const signal = model.widget_manager?.kernel?.statusChanged; // a signal of Lumino
  if (!signal) return;
  const onStatus = (_, status) => { if (["restarting", "autorestarting"].includes(status)) onRestart(); };
  signal.connect(onStatus);
  onCleanup(() => signal.disconnect(onStatus));
};

/** Show a notice while the kernel does not answer. Uses `has_tools`. */
const createHeartbeat = (context) => {
  const { model, el, parts, listen } = context;
  const notice = make("div", "fl-silence", { role: "alert" });
  parts.notice.append(notice);
  let unanswered = []; // ids of the pings since the last answer
  let pingTimer = 0;
  let pongTimer = 0;
  let interval = PING_MS;
  let reason = ""; // "" while the kernel answers
  let isRestarted = false; // since the last answer

  const setReason = (found) => {
    if (found === reason) return;
    reason = found;
    showSilence(context, notice, reason);
  };

  const ping = () => {
    const id = createId();
    unanswered = [...unanswered, id].slice(-MAX_UNANSWERED);
    trySend(context, { kind: "ping", id });
    pongTimer ||= setTimeout(() => {
      interval = Math.min(2 * interval, MAX_PING_MS);
      pongTimer = 0;
      setReason(isRestarted ? "restarted" : findReason(model));
    }, PONG_MS);
    pingTimer = setTimeout(ping, interval);
  };

  const stop = () => {
    clearTimeout(pingTimer);
    clearTimeout(pongTimer);
    pingTimer = pongTimer = 0;
    unanswered = [];
  };

  /** Ping while the page is visible: a hidden one has its timers slowed down. */
  const start = () => {
    stop();
    interval = PING_MS;
    if (!model.get("has_tools")) return;
    if (el.classList.contains(DISCONNECTED)) setReason("restarted"); // the new kernel does not know this model
    else if (!document.hidden) ping();
  };

  context.onMessage((message) => {
    if (message.kind !== "pong" || !unanswered.includes(message.id)) return;
    unanswered = [];
    clearTimeout(pongTimer);
    pongTimer = 0;
    interval = PING_MS;
    isRestarted = false;
    setReason("");
  });
  watchRestarts(context, () => {
    isRestarted = true;
    if (model.get("has_tools")) setReason("restarted");
  });
  refuseDisabledRun(context);
  listen(document, "visibilitychange", start);
  context.on("has_tools", start);
  let wasDisconnected = el.classList.contains(DISCONNECTED);
  const observer = new MutationObserver(() => {
    const isDisconnected = el.classList.contains(DISCONNECTED);
    if (isDisconnected === wasDisconnected) return;
    wasDisconnected = isDisconnected;
    start();
  });
  observer.observe(el, { attributes: true, attributeFilter: ["class"] });
  context.onCleanup(() => {
    observer.disconnect();
    stop();
    setReason("");
  });
  start();
};

// --- History

/** Create an entry of the history, and the function that shows a record in it. */
const createHistoryEntry = () => {
  const image = make("img", "fl-history-image", { alt: "" });
  const title = make("span", "fl-history-title");
  const time = make("time", "fl-history-time");
  const button = make("button", "fl-history-button", { type: "button" }, image, title, time);
  const update = (record) => {
    const name = [record.title, record.time].filter(Boolean).join(", ");
    if (button.title === name && image.getAttribute("src") === record.thumbnail) return;
    if (String(record.thumbnail).startsWith("data:image/")) image.src = record.thumbnail;
    title.textContent = record.title;
    time.textContent = record.time;
    button.title = name;
    button.setAttribute("aria-label", name);
  };
  return { item: make("li", "fl-history-entry", {}, button), button, update };
};

/** Show former answers as thumbnails. Uses `history` and `has_tools`. */
const createHistory = (context) => {
  const { model, parts, listen } = context;
  const list = make("ol", "fl-history-list", { role: "list" });
  parts.history.append(make("h3", "fl-history-heading", { text: "History" }), list);
  const entries = new Map(); // id -> entry: entries that stay keep their elements, and the focus

  const show = () => {
    const records = model.get("has_tools") ? model.get("history") : [];
    const ids = new Set(records.map((record) => record.id));
    for (const [id, entry] of entries) {
      if (ids.has(id)) continue;
      entry.item.remove();
      entries.delete(id);
    }
    records.forEach((record, index) => {
      if (!entries.has(record.id)) {
        const entry = createHistoryEntry();
        entry.button.dataset.id = record.id;
        entries.set(record.id, entry);
      }
      const { item, update } = entries.get(record.id);
      update(record);
      if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
    });
    parts.history.hidden = records.length === 0;
  };

  listen(list, "click", (event) => {
    const button = event.target.closest("button");
    if (button) trySend(context, { kind: "open", id: Number(button.dataset.id) });
  });
  for (const name of ["history", "has_tools"]) context.on(name, show);
  show();
};

// --- Files and code

const FILE_MS = 60_000; // a PDF with many masks takes some seconds
const SAVED_MS = 10_000; // the browser has started to save by then, and the object URL can go
const COPIED_MS = 2_000;

/** Let the browser save bytes as a file. The object URL is revoked once the browser has started to save. */
const saveFile = (context, name, mime, content) => {
  const url = URL.createObjectURL(new Blob([content], { type: mime }));
  const link = make("a", "", { href: url, download: name });
  context.root.append(link); // Firefox only follows links in the document
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), SAVED_MS);
};

/**
 * Create the menu of downloads: a button that opens a list of buttons.
 * @param {Context} context
 * @param {(id: string, label: string) => void} choose Called with the file of an entry that is pressed.
 * @returns {[HTMLElement, (files: object[]) => void]} The button, and the function that fills the list.
 */
const createDownloadMenu = ({ parts, listen }, choose) => {
  const list = make("div", "fl-menu", { role: "group", "aria-label": "Download as", hidden: "" });
  const button = make("button", "fl-button", { type: "button", "aria-expanded": "false", text: "Download" });
  const box = make("span", "fl-menu-box", {}, button, list);
  parts.download.append(box);

  const open = (isOpen) => {
    list.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
  };
  const close = () => {
    open(false);
    button.focus();
  };
  const show = (files) => {
    list.replaceChildren(
      ...files.map((file) => make("button", "fl-menu-item", { type: "button", "data-id": file.id, text: file.label })),
    );
    if (!files.length) open(false);
  };

  listen(button, "click", () => {
    if (!list.hidden) return close();
    open(true);
    list.querySelector("button")?.focus();
  });
  // Safari does not focus a button that is pressed: the menu would lose the focus, and close before the click
  listen(box, "mousedown", (event) => event.preventDefault());
  listen(list, "click", (event) => {
    const item = event.target.closest("button");
    if (!item) return;
    close();
    choose(item.dataset.id, item.textContent);
  });
  listen(box, "keydown", (event) => {
    if (event.key !== "Escape" || list.hidden) return;
    event.stopPropagation();
    close();
  });
  listen(box, "focusout", (event) => {
    if (!box.contains(event.relatedTarget)) open(false);
  });
  return [button, show];
};

/** Offer the files of the answer for download. Uses `files`. */
const createDownloads = (context) => {
  const { model, parts } = context;
  const error = make("span", "fl-download-error", { role: "alert" });
  parts.download.append(error);
  let waiting = 0; // files that were asked for and have not come
  let timer = 0;

  /** Announce a status, as the browser shows its downloads itself, and show a problem. */
  const say = (status, problem = "") => {
    if (status) context.announce(status);
    error.textContent = problem;
    button.textContent = waiting ? "Preparing …" : "Download";
  };

  const settle = (status, problem = "") => {
    waiting = Math.max(waiting - 1, 0);
    if (!waiting) clearTimeout(timer);
    say(status, problem);
  };

  const ask = (id, label) => {
    waiting += 1;
    say(`Preparing ${label} …`);
    clearTimeout(timer);
    timer = setTimeout(() => {
      waiting = 0;
      say("", `${label} was not received: the kernel does not answer.`);
    }, FILE_MS);
    trySend(context, { kind: "file", id });
  };

  const [button, fillMenu] = createDownloadMenu(context, ask);
  const show = () => {
    const files = model.get("files") ?? [];
    parts.download.hidden = files.length === 0;
    fillMenu(files);
  };

  context.onMessage((message, buffers) => {
    if (!waiting || !["file", "failed"].includes(message.kind)) return; // another view of the model asked
    if (message.kind === "failed") return settle("", message.text);
    saveFile(context, message.name, message.mime, buffers[0]);
    settle(`${message.name} saved.`);
  });
  context.on("files", show);
  context.onCleanup(() => clearTimeout(timer));
  show();
};

/** Copy a text, also where the page is not served over HTTPS or from localhost, as the clipboard API asks. */
const copyText = async (text, source) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const selection = getSelection();
    selection.selectAllChildren(source);
    const isCopied = document.execCommand("copy");
    if (isCopied) selection.removeAllRanges();
    return isCopied;
  }
};

/** Create the panel with the code. Uses `code` and `code_note`. */
const createCode = (context) => {
  const { model, parts, listen } = context;
  const code = make("code");
  const block = make("pre", "fl-code", { tabindex: "0", "aria-label": "Python code of this answer" }, code);
  const note = make("p", "fl-code-note");
  const copy = make("button", "fl-button", { type: "button", text: "Copy" , "aria-label": "Copy the code" });
  const text = make("span", "fl-copy-text", { role: "status" });
  parts.code.append(make("div", "fl-code-bar", {}, copy, text), block, note);
  let timer = 0;

  const show = () => {
    code.textContent = model.get("code");
    note.textContent = model.get("code_note");
    note.hidden = !note.textContent;
    copy.disabled = !code.textContent;
  };

  listen(copy, "click", async () => {
    const isCopied = await copyText(code.textContent, code);
    text.textContent = isCopied ? "Copied." : "The browser does not allow copying. The code is selected: press Ctrl+C.";
    clearTimeout(timer);
    timer = setTimeout(() => { text.textContent = ""; }, isCopied ? COPIED_MS : 5 * COPIED_MS);
  });
  for (const name of ["code", "code_note"]) context.on(name, show);
  context.onCleanup(() => clearTimeout(timer));
  show();
};

/** Offer downloads and the code of the answer. Uses `files`, `code` and `code_note`. */
const createFiles = (context) => {
  createDownloads(context);
  createCode(context);
};

// --- Sibling widgets

const STATUS = ".fl-status .widget-html-content, .fl-status .widget-htmlmath-content";
const NO_SHORTCUTS = "data-lm-suppress-shortcuts"; // shortcuts of Jupyter whose selector matches the element
const CONTROLS = "select, textarea, input:not([type=hidden]):not([type=file])";

/** Return the text that stands beside a control: its own label, the text before it, or that of a box that holds it alone. */
const findControlLabel = (control) => {
  const widget = control.closest(".jupyter-widgets") ?? control;
  const box = widget.parentElement;
  const isAlone = box?.querySelectorAll(CONTROLS).length === 1;
  const texts = [widget.querySelector(".widget-label"), widget.previousElementSibling, isAlone ? box.querySelector(".widget-label") : null];
  const found = texts.find((element) => element?.textContent.trim() && !element.querySelector(CONTROLS) && !element.contains(control));
  return found?.textContent.trim() || control.placeholder || "";
};

const hasName = (control) =>
  ["aria-label", "aria-labelledby", "title"].some((name) => control.getAttribute(name)?.trim()) ||
  [...(control.labels ?? [])].some((label) => label.textContent.trim());

/**
 * Keep keys without Ctrl or Cmd from Jupyter's shortcuts: "r" typed in a menu would make the cell a raw cell and remove the
 * panel. Lumino looks for the attribute when the key reaches the document, on the focused element and its ancestors up to the
 * one that the selector of a shortcut matches. Keys with Ctrl or Cmd stay shortcuts of the notebook, such as saving.
 * @param {Context} context
 * @param {() => HTMLElement} getArea Returns the element whose keys are kept.
 */
const keepKeys = (context, getArea) => {
  let keeper = null; // the element that received the last key
  const onKey = (event) => {
    keeper?.removeAttribute(NO_SHORTCUTS);
    keeper = getArea().contains(event.target) ? event.target : null;
    const isKept = !event.ctrlKey && !event.metaKey;
    keeper?.toggleAttribute(NO_SHORTCUTS, isKept);
    context.root.toggleAttribute(NO_SHORTCUTS, isKept);
  };
  context.listen(window, "keydown", onKey, { capture: true });
  context.onCleanup(() => keeper?.removeAttribute(NO_SHORTCUTS));
};

/** Give the ipywidgets of the panel around the viewer the roles and names that ipywidgets leaves out. */
const dressSiblings = (context) => {
  const { el, root } = context;
  const undo = new Map(); // element -> names of the attributes that were added
  let panel = null;
  let lastFocused = null;

  const add = (element, attributes) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (element.hasAttribute(name)) continue;
      element.setAttribute(name, value);
      undo.set(element, [...(undo.get(element) ?? []), name]);
    }
  };

  /** The bar is sticky: what gets the focus is scrolled to a place below it, see `scroll-margin-top` in viewer.css. */
  const onBarSize = new ResizeObserver(([{ target }]) => root.style.setProperty("--fl-bar-height", `${target.offsetHeight}px`));

  const dress = () => {
    const bar = panel.querySelector(".fl-bar");
    if (bar) onBarSize.observe(bar); // once, however often it is called
    for (const element of undo.keys()) if (!element.isConnected) undo.delete(element); // ipywidgets made a new one
    for (const status of panel.querySelectorAll(STATUS)) add(status, { role: "status", "aria-live": "polite" });
    for (const error of panel.querySelectorAll(".fl-status .fl-error")) add(error, { role: "alert" });
    for (const icon of panel.querySelectorAll("button.jupyter-button > i")) add(icon, { "aria-hidden": "true" });
    for (const control of panel.querySelectorAll(CONTROLS)) {
      if (root.contains(control) || hasName(control)) continue;
      const label = findControlLabel(control);
      if (label) add(control, { "aria-label": label });
    }
  };

  /** The run button gets its focus back when it is enabled again: a disabled element has none. */
  const keepFocus = () => {
    const isLost = lastFocused?.isConnected && !lastFocused.disabled && document.activeElement === document.body;
    if (isLost && lastFocused.matches(".fl-run")) lastFocused.focus({ preventScroll: true });
  };

  const observer = new MutationObserver((mutations) => {
    if (mutations.every(({ target }) => root.contains(target))) return; // drawn by the viewer itself
    dress();
    keepFocus();
  });

  /** The view is not in the document yet when it is rendered, and its siblings may come later. */
  const onPlaced = new ResizeObserver(() => {
    panel = el.closest(".fl-panel");
    if (!el.isConnected) return;
    onPlaced.disconnect();
    if (!panel) return;
    context.listen(panel, "focusin", (event) => { lastFocused = event.target; });
    observer.observe(panel, { childList: true, subtree: true, attributes: true, attributeFilter: ["disabled"] });
    dress();
  });

  onPlaced.observe(root);
  keepKeys(context, () => panel ?? root);
  context.onCleanup(() => {
    for (const one of [onPlaced, onBarSize, observer]) one.disconnect();
    for (const [element, names] of undo) names.forEach((name) => element.removeAttribute(name));
  });
};

// --- Module

const PARTS = [createDisplay, createRegion, createUploads, createHeartbeat, createHistory, createFiles, dressSiblings];

const render = ({ model, el }) => {
  const [context, close] = createContext(model, el);
  PARTS.forEach((create) => create(context));
  el.append(context.root);
  context.redraw();
  return close;
};

export default { render };
