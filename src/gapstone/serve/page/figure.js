// One picture with one map over it: what is drawn on its canvas, and what is said below it.

import { logitText, signed } from "./answer.js";
import { box, cellAt, edges, place, rgba, scaled } from "./maps.js";

const MOST = 1000; // px of the grid that maps are placed on: boxes are exact for pictures up to it, and sliders stay quick
const LEAST = 720; // px: a smaller picture is drawn enlarged by a whole number, its pixels as squares

// The picture as canvases, once per answer: in colour and in grey, at the size it is drawn.
export function backdrop(image, size) {
  const [height, width] = size;
  const longest = Math.max(image.naturalWidth, image.naturalHeight);
  const times = Math.max(1, Math.floor(LEAST / longest));
  const colour = canvas(image.naturalWidth * times, image.naturalHeight * times);
  const pen = colour.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingEnabled = false;
  pen.drawImage(image, 0, 0, colour.width, colour.height);
  const grey = canvas(colour.width, colour.height);
  const pixels = pen.getImageData(0, 0, colour.width, colour.height);
  const data = pixels.data;
  for (let i = 0; i < data.length; i += 4) {
    data[i] = data[i + 1] = data[i + 2] = 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
  }
  grey.getContext("2d").putImageData(pixels, 0, 0);
  const shrink = Math.min(1, MOST / Math.max(height, width));
  const grid = [Math.max(1, Math.round(height * shrink)), Math.max(1, Math.round(width * shrink))];
  const sharp = times > 1 ? [colour.height, colour.width] : grid;
  return { colour, grey, grid, sharp, size };
}

function canvas(width, height) {
  const made = document.createElement("canvas");
  made.width = width;
  made.height = height;
  return made;
}

// What a figure shows: the class `a` of a model, or `a` minus `b`. null where the answer holds no map of it.
export function evidence(model, a, b) {
  if (!a?.map || (b !== undefined && !b?.map)) return null;
  if (b === undefined) return { model, a, map: a.map, logit: a.logit, bias: a.bias };
  const map = a.map.map((value, i) => value - b.map[i]);
  return { model, a, b, map, logit: a.logit - b.logit, bias: a.bias - b.bias };
}

export class Figure {
  constructor(shown, back, largest, title, onPoint) {
    this.shown = shown;
    this.back = back;
    this.largest = largest;
    this.cell = null;
    this.element = document.createElement("figure");
    this.canvas = canvas(back.colour.width, back.colour.height);
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-roledescription", "map over the picture");
    this.canvas.setAttribute("aria-label", `${title.join(", ")}. Arrow keys read the cells.`);
    this.caption = document.createElement("figcaption");
    this.title = title;
    const frame = document.createElement("div");
    frame.className = "frame";
    frame.append(this.canvas);
    this.element.append(frame, this.caption);
    this.lines = ["title", "sum", "cell"].map((name) => {
      const line = document.createElement("p");
      line.className = name;
      this.caption.append(line);
      return line;
    });
    this.lines[0].append(...title.map((text, i) => Object.assign(document.createElement(i ? "span" : "b"), { textContent: text })));
    this.lines[1].append(...this.summary());
    this.point(onPoint);
  }

  summary() {
    const { map, model, logit, bias, a, b } = this.shown;
    let [above, below] = [0, 0];
    for (const value of map) if (value > 0) above += value; else below += value;
    const what = b ? `the difference of ${signed(logit)}` : logitText(model, logit);
    const parts = [];
    if (above === 0) {
      const nothing = document.createElement("b");
      const which = b ? `${a.shown} rather than ${b.shown}` : a.shown;
      nothing.textContent = `No positive evidence: nothing in the picture speaks for ${which}. `;
      parts.push(nothing);
    }
    const most = Math.max(above, -below, Math.abs(logit));
    const [pro, contra, base] = [above, below, bias].map((value) => signed(value, most));
    parts.push(`${pro} for, ${contra} against, ${base} bias`);
    const gap = logit - (above + below + bias);
    const held = model.held.length ? `, with ${model.held.join(" and ")} held as a number of the picture` : "";
    if (model.additive) parts.push(` = ${what}${held}`);
    else parts.push(` of ${what}: this head does not add up, ${signed(gap, most)} is left unexplained`);
    return parts;
  }

  // `look`: { kind, grey, opacity, boxed, threshold }. Only what changed is made anew.
  draw(look) {
    if (this.kind !== look.kind) {
      const { sharp, grid } = this.back;
      this.placed = this.placeOn(grid, look.kind);
      const fine = sharp === grid ? this.placed : this.placeOn(sharp, look.kind);
      this.overlay = canvas(sharp[1], sharp[0]);
      this.overlay.getContext("2d").putImageData(new ImageData(rgba(fine, this.largest), sharp[1], sharp[0]), 0, 0);
      this.kind = look.kind;
    }
    const found = look.boxed ? box(this.placed, this.back.grid, look.threshold) : null;
    const [gridHeight, gridWidth] = this.back.grid;
    const [height, width] = this.back.size;
    this.box = found && found.map((edge, i) => Math.round(i % 2 ? (edge * height) / gridHeight : (edge * width) / gridWidth));
    this.paint(this.canvas, look);
    this.say();
  }

  placeOn([height, width], kind) {
    const { map, model } = this.shown;
    const placement = scaled(model.placement, [height / this.back.size[0], width / this.back.size[1]]);
    return place(map, model.cells, placement, [height, width], kind);
  }

  paint(target, look) {
    const pen = target.getContext("2d");
    const { width, height } = target;
    pen.drawImage(look.grey ? this.back.grey : this.back.colour, 0, 0);
    pen.globalAlpha = look.opacity;
    pen.imageSmoothingEnabled = look.kind === "smooth";
    pen.drawImage(this.overlay, 0, 0, width, height);
    pen.globalAlpha = 1;
    const [[top, bottom], [left, right]] = scaled(this.shown.model.placement, this.perPixel()).seen;
    pen.fillStyle = "rgb(40 42 46 / 0.6)"; // what the network did not see
    pen.fillRect(0, 0, width, top);
    pen.fillRect(0, bottom, width, height - bottom);
    pen.fillRect(0, top, left, bottom - top);
    pen.fillRect(right, top, width - right, bottom - top);
    if (this.box) {
      const [y, x] = this.perPixel();
      outline(pen, [this.box[0] * x, this.box[1] * y, this.box[2] * x, this.box[3] * y], Math.max(width, height) / 360, []);
    }
    if (this.cell) {
      const placement = scaled(this.shown.model.placement, this.perPixel());
      const [ys, xs] = [0, 1].map((axis) => edges(placement, this.shown.model.cells[axis], axis));
      const [row, column] = this.cell;
      outline(pen, [xs[column], ys[row], xs[column + 1], ys[row + 1]], Math.max(width, height) / 600, [2, 2]);
    }
  }

  // Pixels of the canvas per pixel of the picture, y and x.
  perPixel() {
    return [this.canvas.height / this.back.size[0], this.canvas.width / this.back.size[1]];
  }

  // Shows the cell at a point of the picture ([y, x] in pixels from its corner; null: none).
  pointAt(point, look) {
    const { model } = this.shown;
    const cell = point && [0, 1].map((axis) => cellAt(model.placement, model.cells[axis], axis, point[axis]));
    this.cell = cell && cell.every((at) => at >= 0) ? cell : null;
    this.outside = point !== null && !this.cell;
    this.paint(this.canvas, look);
    this.say();
  }

  say() {
    this.lines[2].textContent = this.reading() || (this.box ? this.boxText() : "Point at a cell to read its part.");
  }

  reading() {
    if (this.outside) return "The network did not look here.";
    if (!this.cell) return "";
    const { model, map, logit, a, b } = this.shown;
    const [row, column] = this.cell;
    const value = map[row * model.cells[1] + column];
    const what = b ? `the difference ${signed(logit)}` : logitText(model, logit);
    return `Row ${row + 1}, column ${column + 1}: ${signed(value)} of ${what} (${a.shown}${b ? ` − ${b.shown}` : ""})`;
  }

  boxText() {
    const [x0, y0, x1, y1] = this.box;
    return `Box ${x1 - x0} × ${y1 - y0} px, from (${x0}, ${y0}) to (${x1}, ${y1})`;
  }

  point(onPoint) {
    const at = (event) => {
      const place = this.canvas.getBoundingClientRect();
      const [height, width] = this.back.size;
      onPoint(this, [((event.clientY - place.top) / place.height) * height, ((event.clientX - place.left) / place.width) * width], false);
    };
    this.canvas.addEventListener("pointermove", at);
    this.canvas.addEventListener("pointerdown", at);
    this.canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && onPoint(this, null, false));
    this.canvas.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (event.key === "Escape") onPoint(this, null, true);
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const { cells, placement } = this.shown.model;
      const now = this.cell ?? cells.map((count) => Math.floor((count - 1) / 2));
      const next = this.cell ? now.map((cell, axis) => Math.min(Math.max(cell + step[axis], 0), cells[axis] - 1)) : now;
      onPoint(this, next.map((cell, axis) => middle(edges(placement, cells[axis], axis), cell)), true);
    });
  }
}

function middle(all, cell) {
  return (all[cell] + all[cell + 1]) / 2;
}

// White between black lines: seen on every picture.
function outline(pen, [x0, y0, x1, y1], thickness, dashes) {
  const line = Math.max(1, thickness);
  const inset = 1.1 * line; // a box at the picture's edge is drawn within it
  [x0, y0] = [Math.max(x0, inset), Math.max(y0, inset)];
  [x1, y1] = [Math.min(x1, pen.canvas.width - inset), Math.min(y1, pen.canvas.height - inset)];
  for (const [style, width] of [["rgb(0 0 0 / 0.75)", 2.2 * line], ["#fff", line]]) {
    pen.strokeStyle = style;
    pen.lineWidth = width;
    pen.setLineDash(style === "#fff" ? dashes.map((d) => d * 2 * line) : []);
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  pen.setLineDash([]);
}
