"use strict";
const page = 48;
const descending = ["confidence", "loss", "suggested_probability"];

/* Compares numbers by value, text alphabetically with numbers in it by value. */
const order = (a, b) => (Number.isNaN(a - b) ? a.localeCompare(b, "en", { numeric: true }) : a - b);

/* One gallery: its order, its number of visible images, and the table cells of its section that select images. */
function browse(album) {
  const gallery = album.querySelector(".gallery");
  const all = album.querySelector(".all");
  const more = album.querySelector(".more");
  const images = [...gallery.children];
  const cells = [...album.closest("section").querySelectorAll(".confusion button")];
  let limit = page;
  let selected = null;

  const matches = (image) => selected === null || image.dataset.errors.split(", ").includes(selected.dataset.error);

  function update() {
    for (const cell of cells) cell.setAttribute("aria-pressed", cell === selected);
    const found = images.filter(matches);
    for (const image of images) image.hidden = true;
    for (const image of found.slice(0, limit)) image.hidden = false;
    all.hidden = selected === null;
    more.hidden = found.length <= limit;
    album.querySelector("output").textContent = `${Math.min(limit, found.length)} of ${found.length} images`;
  }

  function select(cell) {
    selected = cell;
    limit = page;
    update();
  }

  function sort(key) {
    const direction = descending.includes(key) ? -1 : 1;
    images.sort((a, b) => direction * order(a.dataset[key], b.dataset[key]));
    gallery.append(...images);
    update();
  }

  for (const cell of cells) {
    cell.addEventListener("click", () => {
      select(cell === selected ? null : cell);
      document.getElementById(gallery.getAttribute("aria-labelledby")).scrollIntoView({ block: "start" });
      gallery.focus({ preventScroll: true });
    });
  }
  // either button may hide itself: focus moves to the images
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
