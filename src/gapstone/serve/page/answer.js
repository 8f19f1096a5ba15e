// The document of /api/explain (schema 1) as the page uses it: classes joined over the models, maps as arrays. Maps,
// logits and biases are minus the mean of all classes where the document has it, or as they are where not `centred`.

export function read(document, centred) {
  const models = document.models.map((model) => readModel(model, centred ? model.mean : null));
  const classes = new Map(); // key → { label, of: [the class in each model, or null] }
  models.forEach((model, m) => {
    for (const entry of model.classes) {
      if (!classes.has(entry.key)) classes.set(entry.key, { key: entry.key, label: entry.shown, of: models.map(() => null) });
      classes.get(entry.key).of[m] = entry;
    }
  });
  const largest = Math.max(...models.map((model) => model.largest));
  return { size: document.picture.size, notes: document.picture.notes, models, classes: [...classes.values()], largest };
}

function readModel(model, mean) {
  const [count, h, w] = model.maps.shape;
  const values = floats(model.maps.base64);
  if (mean) {
    const map = floats(mean.base64);
    values.forEach((value, i) => { values[i] = value - map[i % map.length]; });
  }
  const named = new Map();
  for (const entry of [...model.classes].sort((a, b) => a.index - b.index)) {
    named.set(entry.label, [...(named.get(entry.label) ?? []), entry.index]);
  }
  const classes = model.classes.map((entry, i) => {
    const alike = named.get(entry.label); // ImageNet has two cranes: the bird and the machine
    const nth = alike.indexOf(entry.index);
    return {
      ...entry,
      logit: entry.logit - (mean?.logit ?? 0),
      bias: entry.bias - (mean?.bias ?? 0),
      key: `${entry.label}\n${nth}`,
      shown: alike.length > 1 ? `${entry.label} (${entry.index})` : entry.label,
      map: i < count ? values.subarray(i * h * w, (i + 1) * h * w) : null,
    };
  });
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  return { name: model.name, multiLabel: model.multi_label === true, centred: Boolean(mean), largest, additive: model.additive, held: model.held, placement: model.placement, cells: [h, w], count, values, classes };
}

function floats(base64) {
  const text = atob(base64);
  const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer); // little-endian, as every machine with a browser is
}

// The classes that a model predicts: the most probable one, or of several labels all of 50 % or more.
export function predicted(model) {
  return model.multiLabel ? model.classes.filter((entry) => entry.probability >= 0.5) : model.classes.slice(0, 1);
}

export function percent(p) {
  if (p >= 0.9995) return "> 99.9 %"; // never "100 %": a softmax is not that sure
  if (p >= 0.0005) return `${(100 * p).toFixed(1)} %`;
  return "< 0.1 %";
}

// Three digits are what an eye compares: +0.31, −12.4, +0.0021. `beside`: the largest number it stands with.
export function signed(value, beside = value) {
  return (value < 0 ? "−" : value > 0 ? "+" : "") + size(value, beside);
}

export function plain(value) {
  return (value < 0 ? "−" : "") + size(value, value);
}

export function logitText(model, logit) {
  return model.centred ? `logit ${plain(Math.abs(logit))} ${logit < 0 ? "below" : "above"} the mean` : `logit ${plain(logit)}`;
}

function size(value, beside) {
  const [absolute, largest] = [Math.abs(value), Math.max(Math.abs(value), Math.abs(beside))];
  if (largest === 0) return "0";
  if (largest < 0.001) return absolute.toExponential(1);
  return absolute.toFixed(Math.max(0, 2 - Math.floor(Math.log10(largest))));
}
