/**
 * The viewer of florence_lab: an image, what was found on it, and the answer in words.
 *
 * One ES module without a build step. anywidget calls `render` once for each view of the model; a cell's output that is
 * cloned has several views. The traits of the model are listed in widget.py.
 *
 * @typedef {object} Context What the parts of one view share.
 * @property {object} model The anywidget model: get, set, save_changes, on, off, send.
 * @property {HTMLElement} el The element that Jupyter gave to this view.
 * @property {HTMLElement} root The root of everything that the viewer adds, inside `el`.
 * @property {Parts} parts The elements of the layout.
 * @property {AbortSignal} signal Aborted when the view is removed.
 * @property {(event: MouseEvent) => [number, number]} toImage Convert a pointer position to image pixels, unclipped and
 *     not rounded. Works at each zoom.
 * @property {() => number} scale CSS pixels per image pixel on the first stage, zoom included. A handle of 10 CSS pixels
 *     has a side of `10 / scale()` in the region layer. The region layer is drawn again when it changes, see `onDraw`.
 * @property {(text: string) => void} announce Let screen readers say a text (role=status, polite).
 * @property {(target: EventTarget, type: string, handler: Function, options?: object) => void} listen Add an event
 *     listener that is removed with the view.
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
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Create an element.
 * @param {string} tag
 * @param {string} className
 * @param {object} attributes `text` sets the text, null leaves an attribute out, functions are not accepted: use `listen`.
 * @param {...(Node|string)} children
 */
const make = (tag, className = "", attributes = {}, ...children) => fill(document.createElement(tag), className, attributes, children);

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

// --- Layout

const createLayout = () => {
  const parts = {
    notice: make("div", "fl-notice"),
    upload: make("div", "fl-slot fl-upload"),
    region: make("div", "fl-slot fl-region"),
    download: make("div", "fl-slot fl-download"),
    stage: make("div", "fl-stage"),
    view: make("div", "fl-view", { tabindex: "0" }),
    regionLayer: draw("g", "fl-region-layer"),
    code: make("div", "fl-panel-code"),
    history: make("div", "fl-history"),
    status: make("div", "fl-hidden-text", { role: "status" }),
  };
  parts.toolbar = make("div", "fl-toolbar", {}, parts.upload, parts.region, parts.download);
  parts.svg = draw("svg", "fl-svg", {}, parts.regionLayer);
  parts.image = make("img", "fl-image", { draggable: "false" });
  parts.view.append(parts.image, parts.svg);
  parts.stage.append(parts.view);
  return parts;
};

// --- Context

/** Create the context of a view and the function that removes everything again. */
const createContext = (model, el) => {
  const controller = new AbortController();
  const { signal } = controller;
  const parts = createLayout();
  const root = make("div", "fl-viewer", { "data-lm-suppress-shortcuts": "true" });
  root.append(parts.notice, parts.toolbar, parts.stage, parts.code, parts.history, parts.status);
  const drawers = [];
  let frame = 0;

  const onCleanup = (handler) => signal.addEventListener("abort", handler, { once: true });
  const subscribe = (event, handler) => {
    model.on(event, handler);
    onCleanup(() => model.off(event, handler));
  };
  const context = {
    model, el, root, parts, signal, onCleanup,
    pointerTools: [],
    toImage: (event) => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(parts.regionLayer.getScreenCTM().inverse());
      return [point.x, point.y];
    },
    scale: () => parts.regionLayer.getScreenCTM()?.a || 1,
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
  el.append(root);
  return [context, () => controller.abort()];
};

// --- Region (tools)

/** Draw a region on the image with the pointer, keys or numbers. Uses `takes_region` and `region`. */
const createRegion = (context) => {};

// --- Uploads (tools)

/** Send files to Python in acknowledged chunks: a button, and dropping on the stage. Uses `upload_limit` and `has_tools`. */
const createUploads = (context) => {};

// --- Heartbeat (tools)

/** Say when the kernel does not answer. Uses `has_tools`. */
const createHeartbeat = (context) => {};

// --- History (tools)

/** Show former answers as thumbnails. Uses `history` and `has_tools`. */
const createHistory = (context) => {};

// --- Files and code (tools)

/** Offer downloads and the code of the answer. Uses `files`, `code` and `code_note`. */
const createFiles = (context) => {};

// --- Sibling widgets (tools)

/** Give the ipywidgets of the panel around the viewer the roles and names that ipywidgets leaves out. */
const dressSiblings = (context) => {};

// --- Module

const PARTS = [createRegion, createUploads, createHeartbeat, createHistory, createFiles, dressSiblings];

const render = ({ model, el }) => {
  const [context, close] = createContext(model, el);
  PARTS.forEach((create) => create(context));
  context.redraw();
  return close;
};

export default { render };
