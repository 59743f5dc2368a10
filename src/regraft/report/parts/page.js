"use strict";
// Sorting, filtering and the confusion matrix's examples. The page is complete without it.
(() => {
  document.documentElement.classList.add("js");

  // What a cell is sorted by: the number it holds, or its text; empty ones come last.
  const key = (cell) => {
    const text = (cell.dataset.sort ?? cell.querySelector("data")?.value ?? cell.textContent).trim();
    const plain = text.replaceAll(",", "");
    return plain !== "" && Number.isFinite(Number(plain)) ? Number(plain) : text === "–" ? "" : text;
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return a === b ? 0 : Infinity * (a === "" ? 1 : -1);
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => ({ row, key: key(row.cells[column]) }));
        const numeric = rows.some((one) => typeof one.key === "number");
        const before = head.getAttribute("aria-sort");
        const down = before ? before === "ascending" : numeric; // numbers: the largest first
        rows.sort((a, b) => {
          const order = compare(a.key, b.key);
          return Number.isFinite(order) && down ? -order : order;
        });
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        body.append(...rows.map((one) => one.row));
      });
    });
  }

  // A class chosen: only examples that have it as label or answer.
  const filter = document.querySelector(".filter");
  if (filter) {
    filter.hidden = false;
    const said = filter.querySelector("output");
    filter.querySelector("select").addEventListener("change", (event) => {
      const wanted = event.target.value;
      let shown = 0;
      for (const item of document.querySelectorAll("#pictures [data-classes]")) {
        item.hidden = wanted !== "" && !item.dataset.classes.split(" ").includes(wanted);
        shown += !item.hidden;
      }
      for (const more of document.querySelectorAll("#pictures details.more")) more.open = wanted !== "";
      said.textContent = wanted === "" ? "" : `${shown} ${shown === 1 ? filter.dataset.one : filter.dataset.many}`;
    });
  }

  // A cell of the confusion matrix: its examples, right below the matrix.
  const links = [...document.querySelectorAll("a[href^='#cell-']")];
  const show = (id) => {
    for (const panel of document.querySelectorAll("details.cell")) {
      panel.open = panel.querySelector(".tiles").id === id;
    }
    for (const link of links) {
      if (link.hash === `#${id}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  for (const link of links) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      show(link.hash.slice(1));
      document.querySelector(link.hash).scrollIntoView({ block: "nearest" });
    });
  }
})();
