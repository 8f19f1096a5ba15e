// Downloads: figures as one picture with their captions, and any blob as a file.

const GAP = 24; // px
const SIZE = 22; // px of the captions

export function sheet(figures, range) {
  const across = figures.length > 2 ? 2 : figures.length;
  const [width, height] = [figures[0].canvas.width, figures[0].canvas.height]; // all show one picture
  const line = Math.round(SIZE * 1.5);
  const step = height + GAP + 2 * line;
  const paper = document.createElement("canvas");
  paper.width = Math.max(720, across * (width + GAP) + GAP);
  paper.height = Math.ceil(figures.length / across) * step + GAP + line;
  const pen = paper.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, paper.width, paper.height);
  pen.textBaseline = "top";
  figures.forEach((each, i) => {
    const left = GAP + (i % across) * (width + GAP);
    const top = GAP + Math.floor(i / across) * step;
    pen.drawImage(each.canvas, left, top);
    pen.fillStyle = "#1d2023";
    pen.font = `600 ${SIZE}px system-ui, sans-serif`;
    pen.fillText(each.title[0], left, top + height + GAP / 3, width);
    pen.font = `${SIZE * 0.8}px system-ui, sans-serif`;
    pen.fillText(each.title.slice(1).join(" · "), left, top + height + GAP / 3 + line, width);
  });
  pen.fillStyle = "#5d636b";
  pen.fillText(range, GAP, paper.height - line, paper.width - 2 * GAP);
  return paper;
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
