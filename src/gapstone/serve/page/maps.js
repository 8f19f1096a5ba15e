// Maps in a picture, their colours and boxes: the same rules as gapstone.maps (placement, placing, colours, boxes), so that
// a slider moves at once. Along an axis, cell i has its centre at start + stride · i in pixels, 0 the centre of the first.

export const ABOVE = [213, 94, 0];
export const BELOW = [0, 90, 181];

// The same cells in a picture of another size: `scale` = its pixels per pixel of this one, y before x.
export function scaled(placement, scale) {
  return {
    stride: placement.stride.map((stride, axis) => stride * scale[axis]),
    start: placement.start.map((start, axis) => (start + 0.5) * scale[axis] - 0.5),
    seen: placement.seen.map((edges, axis) => edges.map((edge) => edge * scale[axis])),
  };
}

// cells + 1 edges, 0 the outer edge of the first pixel: halfway between centres; the outer cells reach to what was seen.
export function edges(placement, cells, axis) {
  const [low, high] = placement.seen[axis];
  const all = [low];
  for (let i = 0; i < cells - 1; i++) {
    const edge = placement.start[axis] + placement.stride[axis] * (i + 0.5) + 0.5;
    all.push(Math.min(Math.max(edge, low), high));
  }
  return [...all, high];
}

// The cell at a point (edges' coordinates) along an axis; −1 where the network did not look.
export function cellAt(placement, cells, axis, point) {
  const all = edges(placement, cells, axis);
  if (!(point >= all[0] && point <= all[cells])) return -1;
  let cell = 0;
  while (cell < cells - 1 && point >= all[cell + 1]) cell++;
  return cell;
}

// Each pixel's value, row by row: bilinear between centres ("smooth"), or its cell's ("cells"); 0 where nothing was seen.
export function place(map, [h, w], placement, [height, width], how) {
  const rows = axisOf(placement, h, 0, height, how);
  const columns = axisOf(placement, w, 1, width, how);
  const wide = new Float32Array(h * width);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * w + columns.cell[x];
      const next = columns.part[x] ? map[at + 1] : 0;
      wide[y * width + x] = columns.seen[x] ? map[at] * (1 - columns.part[x]) + next * columns.part[x] : 0;
    }
  }
  const placed = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    if (!rows.seen[y]) continue;
    const upper = rows.cell[y] * width;
    const part = rows.part[y];
    const lower = part ? upper + width : upper;
    for (let x = 0; x < width; x++) placed[y * width + x] = wide[upper + x] * (1 - part) + wide[lower + x] * part;
  }
  return placed;
}

function axisOf(placement, cells, axis, pixels, how) {
  const cell = new Int32Array(pixels);
  const part = new Float64Array(pixels);
  const seen = new Uint8Array(pixels);
  const [low, high] = placement.seen[axis];
  for (let i = 0; i < pixels; i++) {
    const middle = i + 0.5;
    seen[i] = middle >= low && middle <= high ? 1 : 0;
    if (how === "cells") {
      cell[i] = Math.max(cellAt(placement, cells, axis, middle), 0);
    } else {
      const at = Math.min(Math.max((i - placement.start[axis]) / placement.stride[axis], 0), cells - 1);
      cell[i] = Math.min(Math.floor(at), Math.max(cells - 2, 0));
      part[i] = at - cell[i];
    }
  }
  return { cell, part, seen };
}

// Four bytes per value: vermilion for, blue against, opacity sqrt(|v| / largest).
export function rgba(values, largest) {
  const colours = new Uint8ClampedArray(values.length * 4);
  for (let i = 0; i < values.length; i++) {
    const colour = values[i] > 0 ? ABOVE : BELOW;
    colours[4 * i] = colour[0];
    colours[4 * i + 1] = colour[1];
    colours[4 * i + 2] = colour[2];
    colours[4 * i + 3] = 255 * Math.min(1, Math.sqrt(Math.abs(values[i]) / largest));
  }
  return colours;
}

// The box around the largest region (8 neighbours) above `threshold` of the largest positive value: [x0, y0, x1, y1], the
// far edges exclusive; null where nothing is positive. Of equally large regions the one with the higher peak.
export function box(values, [height, width], threshold) {
  let peak = 0;
  for (const value of values) if (value > peak) peak = value;
  if (peak === 0) return null;
  const open = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) open[i] = values[i] > 0 && values[i] / peak > threshold ? 1 : 0;
  const waiting = new Int32Array(values.length);
  let best = null;
  for (let first = 0; first < values.length; first++) {
    if (!open[first]) continue;
    const region = { area: 0, peak: 0, x0: width, y0: height, x1: 0, y1: 0 };
    let count = 1;
    waiting[0] = first;
    open[first] = 0;
    while (count) {
      const at = waiting[--count];
      const y = Math.floor(at / width);
      const x = at - y * width;
      region.area++;
      if (values[at] > region.peak) region.peak = values[at];
      if (x < region.x0) region.x0 = x;
      if (y < region.y0) region.y0 = y;
      if (x >= region.x1) region.x1 = x + 1;
      if (y >= region.y1) region.y1 = y + 1;
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
          const beside = v * width + u;
          if (open[beside]) {
            open[beside] = 0;
            waiting[count++] = beside;
          }
        }
      }
    }
    if (!best || before(region, best)) best = region;
  }
  return [best.x0, best.y0, best.x1, best.y1];
}

function before(a, b) {
  const order = (r) => [-r.area, -r.peak, r.y0, r.x0, r.y1, r.x1];
  const [left, right] = [order(a), order(b)];
  const at = left.findIndex((value, i) => value !== right[i]);
  return at >= 0 && left[at] < right[at];
}
