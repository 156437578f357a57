"use strict";
const images = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const settings = new Map();  // of a layer, by its name; kept from image to image
let shown = [], current = null, view = {scale: 1, x: 0, y: 0};

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function sort() {
  const by = $("order").value;
  const mean = image => image.disagreement.length ? image.disagreement.reduce((sum, [, value]) => sum + value, 0) / image.disagreement.length : -1;
  const compare = {
    disagreement: (a, b) => mean(b) - mean(a) || a.number - b.number,
    title: (a, b) => a.title.localeCompare(b.title, undefined, {numeric: true}),
    number: (a, b) => a.number - b.number,
  }[by];
  shown = [...images].sort(compare);
  $("sheet").replaceChildren(...shown.map(image => {
    const first = image.disagreement.length ? `disagreement ${mean(image).toFixed(2)}` : "";
    const card = element("button", {class: "card", type: "button"},
      element("img", {src: image.thumbnail, alt: "", loading: "lazy"}), element("span", {}, image.title),
      element("small", image.warnings.length ? {class: "warned"} : {}, [first, image.warnings.length ? "⚠ " + image.warnings.length : ""].filter(Boolean).join(" · ")));
    card.addEventListener("click", () => { location.hash = image.number; });
    return element("li", {}, card);
  }));
}

function setting(layer) {
  if (!settings.has(layer.name)) settings.set(layer.name, {on: true, opacity: Math.round(layer.share * 100), low: 0, high: 255});
  return settings.get(layer.name);
}

function apply(layer, div, filter) {
  const {on, opacity, low, high} = setting(layer);
  div.hidden = !on;
  div.style.opacity = opacity / 100;
  const slope = 255 / Math.max(high - low, 1), intercept = -low / 255 * slope;
  for (const channel of filter.children[0].children) {
    channel.setAttribute("slope", slope);
    channel.setAttribute("intercept", intercept);
  }
}

function slider(label, layer, key, limits, changed) {
  const input = element("input", {type: "range", ...limits, value: setting(layer)[key], "aria-label": `${layer.name} ${label}`});
  input.addEventListener("input", () => { setting(layer)[key] = Number(input.value); changed(); });
  return element("label", {class: "slider"}, label, input);
}

function showLayers(image) {
  const namespace = "http://www.w3.org/2000/svg";
  const disagreement = new Map(image.disagreement);
  $("picture").replaceChildren(); $("layers").replaceChildren(); $("filters").replaceChildren();
  image.layers.forEach((layer, index) => {
    const filter = document.createElementNS(namespace, "filter");
    filter.id = `contrast-${index}`;
    filter.setAttribute("color-interpolation-filters", "sRGB");
    const transfer = document.createElementNS(namespace, "feComponentTransfer");
    for (const channel of "RGB") {
      const made = document.createElementNS(namespace, `feFunc${channel}`);
      made.setAttribute("type", "linear");
      transfer.append(made);
    }
    filter.append(transfer);
    $("filters").append(filter);
    const picture = element("img", {src: layer.picture, alt: ""});
    picture.draggable = false;
    picture.style.filter = `url(#${filter.id})`;
    const div = element("div", {class: "layer"}, picture);
    div.style.backgroundColor = `#${layer.colour}`;
    $("picture").append(div);
    const change = () => apply(layer, div, filter);
    const box = element("input", {type: "checkbox", id: `layer-${index}`});
    box.checked = setting(layer).on;
    box.addEventListener("change", () => { setting(layer).on = box.checked; change(); });
    const swatch = element("i");
    swatch.style.backgroundColor = `#${layer.colour}`;
    const value = disagreement.has(layer.name) ? `disagreement ${disagreement.get(layer.name).toFixed(2)}` : "";
    $("layers").append(element("fieldset", {}, element("legend", {class: "sr"}, layer.name),
      element("label", {class: "name"}, box, swatch, layer.name, element("output", {}, value)),
      slider("Opacity", layer, "opacity", {min: 0, max: 100}, change),
      slider("Black at", layer, "low", {min: 0, max: 254}, change),
      slider("White at", layer, "high", {min: 1, max: 255}, change)));
    change();
  });
}

function place() {
  $("picture").style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  const size = current.pixel_size_um;
  $("scale").hidden = size === null;
  if (size === null) return;
  const perUm = view.scale / size, wanted = 110 / perUm, power = 10 ** Math.floor(Math.log10(wanted));
  const length = [5, 2, 1].map(step => step * power).find(each => each <= wanted) || power;
  $("bar").style.width = `${length * perUm}px`;
  $("length").textContent = length >= 1000 ? `${length / 1000} mm` : `${Number(length.toPrecision(3))} µm`;
}

function fit() {
  const [height, width] = current.shape, stage = $("stage");
  view.scale = Math.min(stage.clientWidth / width, stage.clientHeight / height);
  view.x = (stage.clientWidth - width * view.scale) / 2;
  view.y = (stage.clientHeight - height * view.scale) / 2;
  place();
}

function zoom(factor, x = $("stage").clientWidth / 2, y = $("stage").clientHeight / 2) {
  const scale = Math.min(Math.max(view.scale * factor, 0.02), 60), ratio = scale / view.scale;
  view = {scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio};
  place();
}

function open(image) {
  current = image;
  $("sheet").hidden = $("sorting").hidden = true;
  $("viewer").hidden = false;
  $("title").textContent = image.title;
  const [height, width] = image.shape;
  Object.assign($("picture").style, {width: `${width}px`, height: `${height}px`});
  $("picture").setAttribute("aria-label", `${image.title}: input with predicted ${image.layers.slice(1).map(layer => layer.name).join(", ")}`);
  showLayers(image);
  $("warnings").hidden = !image.warnings.length;
  $("warnings").querySelector("ul").replaceChildren(...image.warnings.map(text => element("li", {}, text)));
  $("metadata").replaceChildren(...image.metadata.map(([key, value]) => element("tr", {}, element("th", {scope: "row"}, key), element("td", {}, value))));
  $("files").replaceChildren(...image.files.map(([label, link]) => element("li", {}, element("a", {href: link}, label))));
  const index = shown.indexOf(image);
  $("previous").disabled = index === 0;
  $("next").disabled = index === shown.length - 1;
  $("status").textContent = `Image ${index + 1} of ${shown.length}: ${image.title}`;
  fit();
  $("title").focus({preventScroll: true});
}

function close() {
  const former = current;
  current = null;
  $("viewer").hidden = true;
  $("sheet").hidden = $("sorting").hidden = false;
  $("status").textContent = `${images.length} images`;
  if (former) $("sheet").children[shown.indexOf(former)].querySelector("button").focus();
}

function step(by) {
  const next = shown[shown.indexOf(current) + by];
  if (next) location.hash = next.number;
}

function follow() {
  const image = images.find(each => String(each.number) === location.hash.slice(1));
  if (image) open(image); else close();
}

function pressed(event) {
  if (!current || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { location.hash = ""; return; }
  if (event.target.matches("input, select, a")) return;
  const moves = {ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60]};
  if (moves[event.key] && event.target === $("stage")) {
    view.x += moves[event.key][0]; view.y += moves[event.key][1];
    place();
  } else if (event.key === "+" || event.key === "=") zoom(1.25);
  else if (event.key === "-") zoom(0.8);
  else if (event.key === "0") fit();
  else if ($(`layer-${event.key - 1}`)) $(`layer-${event.key - 1}`).click();
  else return;
  event.preventDefault();
}

const stage = $("stage");
const fingers = new Map();
stage.addEventListener("pointerdown", event => { fingers.set(event.pointerId, event); stage.setPointerCapture(event.pointerId); });
stage.addEventListener("pointermove", event => {
  const former = fingers.get(event.pointerId);
  if (!former) return;
  const others = [...fingers.values()].filter(each => each.pointerId !== event.pointerId);
  if (others.length) {
    const distance = each => Math.hypot(each.clientX - others[0].clientX, each.clientY - others[0].clientY);
    const box = stage.getBoundingClientRect();
    zoom(distance(event) / Math.max(distance(former), 1), (event.clientX + others[0].clientX) / 2 - box.left, (event.clientY + others[0].clientY) / 2 - box.top);
  } else {
    view.x += event.clientX - former.clientX; view.y += event.clientY - former.clientY;
    place();
  }
  fingers.set(event.pointerId, event);
});
for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, event => fingers.delete(event.pointerId));
stage.addEventListener("wheel", event => {
  const box = stage.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
  event.preventDefault();
}, {passive: false});
$("order").addEventListener("change", sort);
$("back").addEventListener("click", () => { location.hash = ""; });
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("in").addEventListener("click", () => zoom(1.25));
$("out").addEventListener("click", () => zoom(0.8));
$("fit").addEventListener("click", fit);
addEventListener("keydown", pressed);
addEventListener("hashchange", follow);
addEventListener("resize", () => { if (current) fit(); });
const origins = [...new Set(images.flatMap(image => image.metadata.filter(([key]) => key === "trained on").map(([, value]) => value)))];
$("about").textContent = `${images.length} image${images.length === 1 ? "" : "s"}, predicted by networks trained on ${origins.join(" and ") || "unknown data"}. Disagreement is no probability: large numbers say where to look first.`;
sort();
follow();
