"""Checks of what a page shows: the contrast of its text, and the names of its controls."""

from __future__ import annotations

from typing import Any

CONTROLS = frozenset(
    "button checkbox combobox link listbox menuitem option radio searchbox slider spinbutton switch tab textbox img image".split()
)
"""Roles that mean nothing to a user of a screen reader without a name."""

_CONTRASTS = r"""(root) => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  const parse = (color) => {                       // any CSS colour -> [r, g, b, alpha 0..1]
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((value, i) => value * a + under[i] * (1 - a));
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const dark = document.body.dataset.jpThemeLight === 'false'
    || (!('jpThemeLight' in document.body.dataset) && matchMedia('(prefers-color-scheme: dark)').matches);
  const chain = (element) => (element ? [...chain(element.parentElement), element] : []);
  // The background under an element, and the colour of its text on it; opacity of ancestors fades both alike.
  const colors = (element, color) => {
    let back = dark ? [0, 0, 0] : [255, 255, 255], fade = 1, behind = back;
    for (const each of chain(element)) {
      const style = getComputedStyle(each);
      if (Number(style.opacity) < 1) { behind = back; fade = Number(style.opacity); }
      back = over(parse(style.backgroundColor), back);
    }
    const text = over(parse(color), back);
    const mix = (rgb) => rgb.map((value, i) => value * fade + behind[i] * (1 - fade));
    return [mix(text), mix(back)];
  };
  const isShown = (element) => {
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) return false;
    if (element.closest('.fl-dim .fl-label:not(.fl-lit)')) return false;  // dimmed beside the one that is lit
    if (element.closest('[disabled], [aria-disabled=true], [hidden], .jp-mod-disabled')) return false;
    const { width, height } = element.getBoundingClientRect();
    return width > 2 && height > 2;
  };
  const found = [];
  const add = (element, text, color) => {
    if (!text.trim() || !isShown(element)) return;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const [front, back] = colors(element, color ?? (element instanceof SVGElement ? style.fill : style.color));
    const hex = (rgb) => '#' + rgb.map((v) => Math.round(v).toString(16).padStart(2, '0')).join('');
    found.push({
      text: text.trim().slice(0, 40), ratio: ratio(front, back), needed: isLarge ? 3 : 4.5,
      colors: `${hex(front)} on ${hex(back)}`, where: `${element.tagName.toLowerCase()}.${element.getAttribute('class') ?? ''}`,
    });
  };
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.parentElement.closest('option, script, style, title')) add(node.parentElement, node.data);
  }
  for (const field of root.querySelectorAll('input, textarea, select')) {
    if (field.matches('[type=checkbox], [type=radio], [type=range], [type=file]')) continue;
    const isSelect = field.tagName === 'SELECT';
    add(field, isSelect ? (field.selectedOptions[0]?.text ?? '') : field.value);
    if (!isSelect && !field.value && field.placeholder) {
      const style = getComputedStyle(field, '::placeholder');
      const [r, g, b, a] = parse(style.color);
      add(field, field.placeholder, `rgba(${r}, ${g}, ${b}, ${a * Number(style.opacity)})`);
    }
  }
  return found;
}"""


def measure_contrasts(locator: Any) -> list[dict[str, Any]]:
    """Return one dict for each visible text in an element.

    Its keys are `text`, `ratio` (WCAG's contrast with the background), `needed` (4.5, or 3 for large text), `colors`, `where`.
    Images behind a text are not looked at: a text on an image needs a background of its own.
    """
    return locator.evaluate(_CONTRASTS)


def faint_texts(locator: Any) -> list[str]:
    """Return the texts whose contrast is too low, in words."""
    texts = measure_contrasts(locator)
    assert len(texts) > 10, "too few texts were found"
    return [
        f"{text['text']!r} {text['ratio']:.2f}:1 ({text['colors']}, {text['where']})"
        for text in texts
        if text["ratio"] < text["needed"] - 0.005
    ]


def accessible_nodes(locator: Any) -> list[tuple[str, str]]:
    """Return (role, name) of everything in an element that a screen reader is told of."""
    page = locator.page
    session = page.context.new_cdp_session(page)
    session.send("DOM.enable")
    session.send("Accessibility.enable")
    locator.evaluate("element => element.setAttribute('data-accessibility-check', '')")
    root = session.send("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
    node = session.send("DOM.querySelector", {"nodeId": root, "selector": "[data-accessibility-check]"})["nodeId"]
    nodes = session.send("Accessibility.queryAXTree", {"nodeId": node})["nodes"]
    locator.evaluate("element => element.removeAttribute('data-accessibility-check')")
    session.detach()
    return [
        (node.get("role", {}).get("value", ""), node.get("name", {}).get("value", "").strip())
        for node in nodes
        if not node.get("ignored")
    ]


def nameless_controls(locator: Any) -> list[str]:
    """Return the roles of controls and images without an accessible name."""
    nodes = accessible_nodes(locator)
    assert sum(role in CONTROLS for role, _ in nodes) > 5, "too few controls were found"
    return [role for role, name in nodes if role in CONTROLS and not name]
