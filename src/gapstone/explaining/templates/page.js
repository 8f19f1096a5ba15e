"use strict";
// Filter, order and page the cards; without it all of them are shown.
const STEP = 60;
const find = (id) => document.getElementById(id);
const list = document.querySelector(".cards");
const cards = [...list.children].map((card, given) => ({
  card, given, name: card.dataset.name, answers: card.dataset.answers ? JSON.parse(card.dataset.answers) : [card.dataset.answer], p: Number(card.dataset.p),
  text: `${card.dataset.name} ${card.dataset.answer} ${card.dataset.labels}`.toLowerCase(),
}));
const orders = {
  given: (a, b) => a.given - b.given,
  sure: (a, b) => b.p - a.p || a.given - b.given,
  unsure: (a, b) => a.p - b.p || a.given - b.given,
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }) || a.given - b.given,
};
let most = STEP;
let order = "given";
function show() {
  const words = find("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const answer = find("answer")?.value ?? "";
  if (find("order").value !== order) {
    order = find("order").value;
    cards.sort(orders[order]);
    list.append(...cards.map((c) => c.card));
  }
  let matching = 0;
  for (const c of cards) {
    const fits = (!answer || c.answers.includes(answer)) && words.every((word) => c.text.includes(word));
    matching += fits;
    c.card.hidden = !fits || matching > most;
  }
  const shown = Math.min(matching, most);
  find("count").textContent = shown < matching ? `${shown} of ${matching}` : `${matching} picture${matching === 1 ? "" : "s"}`;
  document.querySelector(".more").hidden = shown === matching;
  document.querySelector(".none").hidden = matching > 0;
}
function anew() { most = STEP; show(); }
find("filter").addEventListener("input", anew);
find("answer")?.addEventListener("change", anew);
find("order").addEventListener("change", anew);
find("more").addEventListener("click", () => { most += STEP; show(); });
find("all").addEventListener("click", () => { most = Infinity; show(); });
document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
document.querySelector(".tools").hidden = cards.length < 2;
show();
