"use strict";
const gallery = document.getElementById("gallery");
const pictures = [...gallery.children];
const all = document.getElementById("all");
const more = document.getElementById("more");
const page = 48;
let limit = page;
let selected = null;
const cells = [...document.querySelectorAll(".confusion button")];

const matches = (picture) => selected === null || picture.dataset.errors.split(", ").includes(selected.dataset.error);

function update() {
  for (const cell of cells) cell.setAttribute("aria-pressed", cell === selected);
  const found = pictures.filter(matches);
  for (const picture of pictures) picture.hidden = true;
  for (const picture of found.slice(0, limit)) picture.hidden = false;
  all.hidden = selected === null;
  more.hidden = found.length <= limit;
  document.getElementById("count").textContent = `${Math.min(limit, found.length)} of ${found.length} pictures`;
}

function select(cell) {
  selected = cell;
  limit = page;
  update();
}

function sort(key) {
  const direction = key === "confidence" || key === "loss" ? -1 : 1;
  pictures.sort((a, b) => direction * a.dataset[key].localeCompare(b.dataset[key], "en", { numeric: true }));
  gallery.append(...pictures);
  update();
}

for (const cell of cells) {
  cell.addEventListener("click", () => {
    select(cell === selected ? null : cell);
    document.getElementById("gallery-title").scrollIntoView({ block: "start" });
    gallery.focus({ preventScroll: true });
  });
}
// both may hide themselves: the focus goes where the pictures are
all.addEventListener("click", () => {
  gallery.focus();
  select(null);
});
more.addEventListener("click", () => {
  gallery.focus({ preventScroll: true });
  limit += 4 * page;
  update();
});
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
document.getElementById("sort").addEventListener("change", (event) => sort(event.target.value));
update();
