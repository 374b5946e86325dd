"use strict";

// A click on a header sorts the table by its column; the buttons in the headers make it work from the keyboard.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const numbers = header.classList.contains("number");
    const first = numbers ? "descending" : "ascending";
    const order = header.ariaSort === first ? (numbers ? "ascending" : "descending") : first;
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const compare = (a, b) => numbers ? a - b : a.localeCompare(b, "en", { numeric: true });
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: row.cells[column].dataset.value }));
    rows.sort((a, b) => {
      const unknown = (a.value === undefined) - (b.value === undefined);  // last in either order
      return unknown || (a.value === undefined ? 0 : sign * compare(a.value, b.value));
    });
    table.tBodies[0].append(...rows.map(({ row }) => row));
  }));
}

// A tracker under the pointer stands out in every plot; a click or tap on its name keeps it so.
const lines = [...document.querySelectorAll("[data-tracker]")];
let kept = null;
function standOut(tracker) {
  for (const line of lines) {
    line.classList.toggle("faded", tracker !== null && line.dataset.tracker !== tracker);
    line.classList.toggle("kept", kept !== null && line.dataset.tracker === kept);
  }
}
for (const line of lines) {
  line.addEventListener("pointerenter", () => standOut(line.dataset.tracker));
  line.addEventListener("pointerleave", () => standOut(kept));
  line.addEventListener("click", () => {
    kept = kept === line.dataset.tracker ? null : line.dataset.tracker;
    standOut(kept);
  });
}
