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

const REGION_WRITE_MS = 100; // Python may show the region while it is drawn; ten times a second is enough for that
const REGION_SAY_MS = 400; // screen readers hear where a region has come to rest, not each step
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

const clip = (value, low, high) => Math.min(Math.max(value, low), high);

/** Order two coordinates and clip them to 0..side, in whole pixels and at least `MIN_REGION_PX` apart. */
const clipSides = (a, b, side) => {
  const first = clip(Math.round(Math.min(a, b)), 0, Math.max(side - MIN_REGION_PX, 0));
  return [first, clip(Math.round(Math.max(a, b)), first + MIN_REGION_PX, side)];
};

const clipRegion = ([x0, y0, x1, y1], { width, height }) => {
  const [left, right] = clipSides(x0, x1, width);
  const [top, bottom] = clipSides(y0, y1, height);
  return [left, top, right, bottom];
};

/** Move a region by whole pixels, no further than to the border of the image: its size stays. */
const moveRegion = ([x0, y0, x1, y1], dx, dy, { width, height }) => {
  const x = clip(Math.round(dx), -x0, width - x1);
  const y = clip(Math.round(dy), -y0, height - y1);
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
  const typed = isFirst ? clip(value, 0, side - MIN_REGION_PX) : clip(value, MIN_REGION_PX, side);
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
  const shade = draw("rect", "fl-region-box", { "vector-effect": "non-scaling-stroke" });
  const handles = HANDLES.map(([sx, sy, cursor], index) =>
    draw("rect", "fl-region-handle", { "data-handle": index, style: `cursor: ${cursor}-resize`, "vector-effect": "non-scaling-stroke" }),
  );
  // "application": screen readers pass the arrow keys on
  const group = draw("g", "fl-region-shape", { tabindex: "0", role: "application", "aria-roledescription": "region" }, shade, ...handles);
  const place = ([x0, y0, x1, y1], scale) => {
    const set = (element, x, y, width, height) =>
      Object.entries({ x, y, width, height }).forEach(([name, value]) => element.setAttribute(name, value));
    set(shade, x0, y0, x1 - x0, y1 - y0);
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
  const bar = make("div", "fl-region-bar", { role: "group", "aria-label": "Region in pixels" }, cue, add, ...fields, clear);
  context.parts.region.append(bar);
  return { bar, inputs, add, clear, cue };
};

/** Draw a region on the image with the pointer, keys or numbers. Uses `takes_region` and `region`. */
const createRegion = (context) => {
  const { model, root, parts, listen, announce } = context;
  const [shape, place] = createRegionShape();
  const { bar, inputs, add, clear, cue } = createRegionBar(context);
  let region = []; // as drawn; the trait follows it
  let gesture = null; // {pointerId, from: image pixels at the press, before: the region then, handle, isClick}
  let writeTimer = 0;
  let sayTimer = 0;

  const picture = () => model.get("picture") || {};
  const isOn = () => Boolean(model.get("takes_region") && picture().width);

  const show = () => {
    const isShown = isOn() && region.length === 4;
    bar.hidden = !isOn();
    parts.stage.classList.toggle("fl-takes-region", isOn());
    cue.hidden = isShown;
    add.hidden = isShown;
    clear.hidden = !isShown;
    inputs.forEach((input, index) => {
      input.max = index % 2 ? picture().height : picture().width;
      if (!input.dataset.isTyped) input.value = isShown ? region[index] : "";
    });
    if (!isShown) return shape.remove();
    place(region, context.scale());
    if (!shape.isConnected) parts.regionLayer.append(shape);
  };

  const write = (isFinal) => {
    const send = () => {
      clearTimeout(writeTimer);
      writeTimer = 0;
      context.set({ region });
    };
    if (isFinal) send();
    else writeTimer ||= setTimeout(send, REGION_WRITE_MS);
  };

  const change = (changed, isFinal) => {
    region = changed;
    show();
    write(isFinal);
    clearTimeout(sayTimer);
    sayTimer = setTimeout(() => announce(region.length ? describeRegion(region) : "Region cleared"), REGION_SAY_MS);
  };

  /** Take over what Python set, or another view of the same model. */
  const follow = () => {
    if (gesture || writeTimer) return; // the region here is newer
    const given = model.get("region") || [];
    region = given.length === 4 && picture().width ? clipRegion(given, picture()) : [];
    show();
  };

  const remove = () => {
    const hadFocus = root.contains(root.getRootNode().activeElement);
    change([], true);
    if (hadFocus) add.focus({ preventScroll: true });
  };

  const endGesture = () => {
    gesture.controller.abort();
    gesture = null;
  };

  const dragTo = (event) => {
    const [x, y] = context.toImage(event);
    const { from, before, handle, isInside } = gesture;
    const [dx, dy] = [x - from[0], y - from[1]];
    if (handle) return resizeRegion(before, handle, dx, dy, picture());
    return isInside ? moveRegion(before, dx, dy, picture()) : clipRegion([...from, x, y], picture());
  };

  const onMove = (event) => {
    if (event.pointerId !== gesture?.pointerId) return;
    const [x, y] = gesture.client;
    gesture.isClick &&= Math.hypot(event.clientX - x, event.clientY - y) < CLICK_PX;
    if (!gesture.isClick) change(dragTo(event), false);
  };

  const onUp = (event) => {
    if (event.pointerId !== gesture?.pointerId) return;
    onMove(event); // the release may be further than the last move
    const { isClick, isInside, handle } = gesture;
    endGesture();
    if (!isClick) {
      write(true);
      shape.focus({ preventScroll: true });
    } else if (isInside || handle) shape.focus({ preventScroll: true });
    if (isClick && !handle) context.pick(event);
  };

  /** Give the region of before the gesture back: Escape, or the browser took the pointer away. */
  const undo = () => {
    const { before } = gesture;
    endGesture();
    change(before, true);
  };

  const onPress = (event) => {
    if (!isOn()) return false;
    if (gesture) undo(); // a second finger: not one region
    const controller = new AbortController();
    gesture = {
      controller,
      pointerId: event.pointerId,
      client: [event.clientX, event.clientY],
      from: context.toImage(event),
      before: region,
      handle: HANDLES[event.target.dataset?.handle],
      isInside: event.target.classList.contains("fl-region-box"),
      isClick: true,
    };
    parts.view.setPointerCapture(event.pointerId);
    const options = { signal: controller.signal };
    parts.view.addEventListener("pointermove", onMove, options);
    parts.view.addEventListener("pointerup", onUp, options);
    parts.view.addEventListener("pointercancel", () => gesture && undo(), options);
    window.addEventListener("keydown", onEscape, { ...options, capture: true }); // wherever the focus is
    return true;
  };

  const onKey = (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow || event.target !== shape || event.ctrlKey || event.metaKey) return;
    event.preventDefault(); // no scrolling, and Alt with left is not "back"
    event.stopPropagation();
    const [dx, dy] = arrow.map((value) => value * (event.shiftKey ? 10 : 1));
    if (!event.altKey) return change(moveRegion(region, dx, dy, picture()), false);
    const [x0, y0, x1, y1] = region;
    change([x0, y0, clip(x1 + dx, x0 + MIN_REGION_PX, picture().width), clip(y1 + dy, y0 + MIN_REGION_PX, picture().height)], false);
  };

  const onEscape = (event) => {
    if (event.key !== "Escape" || !isOn()) return;
    if (gesture) undo();
    else if (region.length) remove();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const onNumber = (index) => {
    const input = inputs[index];
    delete input.dataset.isTyped;
    const { width, height } = picture();
    const value = input.valueAsNumber;
    if (Number.isNaN(value)) return show(); // not a number: what was there stays
    change(setRegionField(region.length ? region : [0, 0, width, height], index, Math.round(value), picture()), true);
  };

  const addCentred = () => {
    const { width, height } = picture();
    change(clipRegion([width / 4, height / 4, (3 * width) / 4, (3 * height) / 4], picture()), true);
    shape.focus({ preventScroll: true });
  };

  context.pointerTools.push(onPress);
  listen(shape, "keydown", onKey);
  for (const place of [parts.view, bar]) listen(place, "keydown", onEscape);
  listen(add, "click", addCentred);
  listen(clear, "click", remove);
  inputs.forEach((input, index) => {
    listen(input, "input", () => { input.dataset.isTyped = "true"; });
    listen(input, "change", () => onNumber(index));
  });
  for (const name of ["region", "takes_region"]) context.on(name, follow);
  context.on("picture", () => {
    if (gesture) endGesture();
    clearTimeout(writeTimer); // what was drawn belongs to the former image
    writeTimer = 0;
    follow();
  });
  context.onDraw(show); // handles keep their size under zoom
  context.onCleanup(() => {
    clearTimeout(writeTimer);
    clearTimeout(sayTimer);
    if (gesture) endGesture();
  });
  follow();
};

// --- Uploads (tools)

const CHUNK_BYTES = 2 * 2 ** 20; // Jupyter's server closes a connection whose message has more than 10 MiB
const ACKNOWLEDGE_MS = 10_000; // a kernel that is alive answers a chunk within tenths of a second
const MEBIBYTE = 2 ** 20;

const formatSize = (bytes) =>
  bytes < MEBIBYTE ? `${Math.max(1, Math.round(bytes / 1024))} KiB` : `${(bytes / MEBIBYTE).toFixed(bytes < 10 * MEBIBYTE ? 1 : 0)} MiB`;

let lastId = 0;
/** Return an id that no other view of the model uses, also after a reload of the page. */
const createId = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}-${(lastId += 1)}`;

/** Return why a file cannot be uploaded, or "". */
const refuseFile = (file, limit) => {
  if (file.size > limit) {
    return `${file.name} has ${formatSize(file.size)}, and up to ${formatSize(limit)} can be uploaded. Give its path or URL, or make it smaller.`;
  }
  return file.size ? "" : `${file.name} is empty.`;
};

/** Return the first file of a drop or of the clipboard, or undefined. */
const firstFile = (transfer) => [...(transfer?.files ?? [])][0];

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

/** Create the elements of the upload. */
const createUploadBar = (context) => {
  const input = make("input", "", { type: "file", accept: "image/*", hidden: "", tabindex: "-1", "aria-label": "Image file" });
  const button = make("button", "fl-button", { type: "button", text: "Upload an image" });
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
      context.send({ kind: "upload", id: upload.id, name: file.name, at, size: file.size }, [chunk]);
    });
    onProgress(Math.min(at + CHUNK_BYTES, file.size));
  }
};

/** Send files to Python in acknowledged chunks: a button, and dropping on the stage. Uses `upload_limit` and `has_tools`. */
const createUploads = (context) => {
  const { model, root, parts, listen } = context;
  const elements = createUploadBar(context);
  let upload = null; // the one in progress: {id, answer, isOver}

  const isOn = () => model.get("has_tools") && model.get("upload_limit") > 0;

  const say = (text, refusal = "") => {
    elements.text.textContent = text;
    elements.error.textContent = refusal;
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
    elements.limit.hidden = false;
  };

  const cancel = () => {
    if (!upload) return;
    context.send({ kind: "cancel", id: upload.id });
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
    elements.limit.hidden = true;
    try {
      await sendChunks(context, mine, file, (sent) => mine.isOver || showProgress(file, sent));
      if (mine.isOver) return;
      say(`${file.name} has been uploaded.`);
      end();
    } catch (problem) {
      if (mine.isOver) return;
      cancel();
      say("", problem.message);
    }
  };

  const take = (event, transfer) => {
    const file = firstFile(transfer);
    if (!file || !isOn()) return;
    event.preventDefault();
    event.stopPropagation(); // Jupyter would take it for its own
    start(file);
  };

  const onDrag = (event) => {
    if (!isOn() || !carriesFiles(event)) return;
    event.preventDefault(); // allows dropping here
    event.stopPropagation();
    parts.stage.classList.toggle("fl-drop", event.type === "dragenter" || event.type === "dragover");
  };

  const onCancel = () => {
    cancel();
    say("Upload cancelled.");
    elements.button.focus({ preventScroll: true }); // Cancel is hidden now
  };

  listen(elements.button, "click", () => elements.input.click());
  listen(elements.input, "change", () => {
    const file = elements.input.files[0];
    if (file) start(file);
    elements.input.value = ""; // the same file can be chosen again
  });
  listen(elements.cancel, "click", onCancel);
  for (const type of ["dragenter", "dragover", "dragleave"]) listen(parts.stage, type, onDrag);
  listen(parts.stage, "drop", (event) => {
    parts.stage.classList.remove("fl-drop");
    take(event, event.dataTransfer);
  });
  listen(root, "paste", (event) => take(event, event.clipboardData));
  context.onMessage((message) => {
    if (upload && message.id === upload.id && ["received", "refused"].includes(message.kind)) upload.answer(message);
  });
  for (const name of ["upload_limit", "has_tools"]) context.on(name, showLimits);
  context.onCleanup(() => {
    try { cancel(); } catch { /* the connection is gone with the view */ }
  });
  showLimits();
};

// --- Heartbeat (tools)

const PING_MS = 3_000; // with PONG_MS 7 s: a dead kernel is told within 8 s
const PONG_MS = 4_000; // an import or a large image holds a live kernel up for a second or two
const MAX_PING_MS = 48_000; // a silent kernel is asked less and less often: it logs each message for a widget that is gone
const MAX_UNANSWERED = 20; // pings that are remembered

/** Why a kernel is silent: as far as Jupyter's own connection, where it can be reached, tells. */
const SILENCE = {
  unknown: "The kernel does not answer. It is busy with another cell, or it was restarted: run this cell again.",
  busy: "The kernel is busy with another cell. It answers here when that cell has finished.",
  restarted: "The kernel was restarted: run this cell again.",
  dead: "The kernel has stopped. Restart it and run this cell again.",
  disconnected: "The connection to the kernel is lost. If it does not come back, reload the page.",
};
const REASONS = { busy: "busy", idle: "restarted", restarting: "restarted", autorestarting: "restarted", starting: "restarted", dead: "dead", terminating: "dead" };

/** Return the key of `SILENCE` that fits what Jupyter knows about the kernel of a model. */
const findReason = (model) => {
  const kernel = model.widget_manager?.kernel;
  if (kernel?.connectionStatus && kernel.connectionStatus !== "connected") return "disconnected";
  return REASONS[kernel?.status] ?? "unknown";
};

/** Say when the kernel does not answer. Uses `has_tools`. */
const createHeartbeat = (context) => {
  const { model, el, parts, listen } = context;
  const notice = make("div", "fl-silence", { role: "alert" });
  parts.notice.append(notice);
  let unanswered = []; // ids of the pings since the last answer
  let pingTimer = 0;
  let pongTimer = 0;
  let interval = PING_MS;
  let reason = ""; // key of SILENCE, or "" while the kernel answers

  const setReason = (found) => {
    if (found === reason) return;
    reason = found;
    notice.textContent = SILENCE[reason] ?? "";
    const panel = el.closest(".fl-panel") ?? context.root;
    panel.classList.toggle("fl-silent", Boolean(reason));
    const isDead = reason && reason !== "busy"; // what is pressed while the kernel is busy is done afterwards
    const run = panel.querySelector(".fl-bar button.fl-run");
    if (isDead) run?.setAttribute("aria-disabled", "true");
    else run?.removeAttribute("aria-disabled");
  };

  const ping = () => {
    const id = createId();
    unanswered = [...unanswered, id].slice(-MAX_UNANSWERED);
    try {
      context.send({ kind: "ping", id });
    } catch { /* the connection is closed: no answer will come, which is told like any silence */ }
    pongTimer ||= setTimeout(() => {
      interval = Math.min(2 * interval, MAX_PING_MS);
      pongTimer = 0;
      setReason(findReason(model));
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
    if (model.get("has_tools") && !document.hidden) ping();
  };

  context.onMessage((message) => {
    if (message.kind !== "pong" || !unanswered.includes(message.id)) return;
    unanswered = [];
    clearTimeout(pongTimer);
    pongTimer = 0;
    interval = PING_MS;
    setReason("");
  });
  listen(document, "visibilitychange", start);
  context.on("has_tools", start);
  context.onCleanup(() => {
    stop();
    setReason("");
  });
  start();
};

// --- History (tools)

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
    if (button) context.send({ kind: "open", id: Number(button.dataset.id) });
  });
  for (const name of ["history", "has_tools"]) context.on(name, show);
  show();
};

// --- Files and code (tools)

const FILE_MS = 60_000; // a PDF with many masks takes some seconds
const SAVED_MS = 10_000; // the browser has started to save by then, and the object URL can go
const COPIED_MS = 2_000;

/** Let the browser save bytes as a file. The object URL is revoked later, and when the view is removed. */
const saveFile = (context, name, mime, content) => {
  const url = URL.createObjectURL(new Blob([content], { type: mime }));
  const link = make("a", "", { href: url, download: name });
  context.root.append(link); // Firefox only follows links in the document
  link.click();
  link.remove();
  const revoke = () => URL.revokeObjectURL(url);
  const timer = setTimeout(revoke, SAVED_MS);
  context.onCleanup(() => {
    clearTimeout(timer);
    revoke();
  });
};

/** Create the menu of downloads: a button that opens a list of buttons. Uses `files`. */
const createDownloads = (context) => {
  const { model, parts, listen } = context;
  const list = make("div", "fl-menu", { role: "group", "aria-label": "Download as", hidden: "" });
  const button = make("button", "fl-button", { type: "button", "aria-expanded": "false", text: "Download" });
  const text = make("span", "fl-download-text", { role: "status" });
  const error = make("span", "fl-download-error", { role: "alert" });
  parts.download.append(make("span", "fl-menu-box", {}, button, list), text, error);
  let waiting = 0; // files that were asked for and have not come
  let timer = 0;

  const open = (isOpen) => {
    list.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
  };

  const say = (status, problem = "") => {
    text.textContent = status;
    error.textContent = problem;
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
      say("", `${label} has not come: the kernel does not answer.`);
    }, FILE_MS);
    context.send({ kind: "file", id });
  };

  const show = () => {
    const files = model.get("files") ?? [];
    parts.download.hidden = files.length === 0;
    list.replaceChildren(
      ...files.map((file) => make("button", "fl-menu-item", { type: "button", "data-id": file.id, text: file.label })),
    );
    if (!files.length) open(false);
  };

  listen(button, "click", () => {
    open(list.hidden);
    list.querySelector("button")?.focus();
  });
  listen(list, "click", (event) => {
    const item = event.target.closest("button");
    if (!item) return;
    open(false);
    button.focus();
    ask(item.dataset.id, item.textContent);
  });
  listen(parts.download, "keydown", (event) => {
    if (event.key !== "Escape" || list.hidden) return;
    event.stopPropagation();
    open(false);
    button.focus();
  });
  listen(parts.download, "focusout", (event) => {
    if (!parts.download.contains(event.relatedTarget)) open(false);
  });
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

// --- Sibling widgets (tools)

const STATUS = ".fl-status .widget-html-content, .fl-status .widget-htmlmath-content";
const CONTROLS = "select, textarea, input:not([type=hidden]):not([type=file])";

/** Return the text that stands beside a control: its own label, or that of the box that it is in. */
const findLabel = (control) => {
  const widget = control.closest(".jupyter-widgets") ?? control;
  const texts = [widget.querySelector(".widget-label"), widget.previousElementSibling, widget.parentElement?.querySelector(".widget-label")];
  const found = texts.find((element) => element && !element.contains(control) && element.textContent.trim());
  return found?.textContent.trim() || control.placeholder || control.title;
};

const hasName = (control) =>
  ["aria-label", "aria-labelledby", "title"].some((name) => control.getAttribute(name)?.trim()) ||
  [...(control.labels ?? [])].some((label) => label.textContent.trim());

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

  const dress = () => {
    for (const element of undo.keys()) if (!element.isConnected) undo.delete(element); // ipywidgets made a new one
    for (const status of panel.querySelectorAll(STATUS)) add(status, { role: "status", "aria-live": "polite" });
    for (const error of panel.querySelectorAll(".fl-status .fl-error")) add(error, { role: "alert" });
    for (const control of panel.querySelectorAll(CONTROLS)) {
      if (root.contains(control) || hasName(control)) continue;
      const label = findLabel(control);
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
  context.onCleanup(() => {
    onPlaced.disconnect();
    observer.disconnect();
    for (const [element, names] of undo) names.forEach((name) => element.removeAttribute(name));
  });
};

// --- Module

const PARTS = [createRegion, createUploads, createHeartbeat, createHistory, createFiles, dressSiblings];

const render = ({ model, el }) => {
  const [context, close] = createContext(model, el);
  PARTS.forEach((create) => create(context));
  context.redraw();
  return close;
};

export default { render };
