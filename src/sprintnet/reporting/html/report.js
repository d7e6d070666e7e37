"use strict";
const page = 48;

/* Numbers by size, text by alphabet with the numbers in it by size. */
const order = (a, b) => (Number.isNaN(a - b) ? a.localeCompare(b, "en", { numeric: true }) : a - b);

/* One gallery: its order, how many of its pictures are shown, and the cells of its section's table that open some of them. */
function browse(album) {
  const gallery = album.querySelector(".gallery");
  const all = album.querySelector(".all");
  const more = album.querySelector(".more");
  const pictures = [...gallery.children];
  const cells = [...album.closest("section").querySelectorAll(".confusion button")];
  let limit = page;
  let selected = null;

  const matches = (picture) => selected === null || picture.dataset.errors.split(", ").includes(selected.dataset.error);

  function update() {
    for (const cell of cells) cell.setAttribute("aria-pressed", cell === selected);
    const found = pictures.filter(matches);
    for (const picture of pictures) picture.hidden = true;
    for (const picture of found.slice(0, limit)) picture.hidden = false;
    all.hidden = selected === null;
    more.hidden = found.length <= limit;
    album.querySelector("output").textContent = `${Math.min(limit, found.length)} of ${found.length} pictures`;
  }

  function select(cell) {
    selected = cell;
    limit = page;
    update();
  }

  function sort(key) {
    const direction = key === "confidence" || key === "loss" ? -1 : 1;
    pictures.sort((a, b) => direction * order(a.dataset[key], b.dataset[key]));
    gallery.append(...pictures);
    update();
  }

  for (const cell of cells) {
    cell.addEventListener("click", () => {
      select(cell === selected ? null : cell);
      document.getElementById(gallery.getAttribute("aria-labelledby")).scrollIntoView({ block: "start" });
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
  album.querySelector("select").addEventListener("change", (event) => sort(event.target.value));
  update();
}

for (const album of document.querySelectorAll(".album")) browse(album);
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
