
the("model").addEventListener("change", () => page.choose());
the("key").addEventListener("submit", (event) => {
  event.preventDefault();
  page.token = the("token").value.trim();
  sessionStorage.setItem("regraft-token", page.token);
  page.start();
});
the("clear").addEventListener("click", () => {
  the("results").replaceChildren();
  the("clear").hidden = true;
  page.say("The answers are cleared.");
  the("ways").querySelector("input, button, textarea").focus();
});
document.addEventListener("paste", (event) => {
  if (!page.piece || ["INPUT", "TEXTAREA"].includes(event.target.tagName) && event.target.type !== "file") return;
  const items = page.piece.pasted(event.clipboardData);
  if (items.length) { event.preventDefault(); page.give(items); }
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); document.body.classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    if (kind === "drop" || event.relatedTarget === null) document.body.classList.remove("over");
  });
}
document.addEventListener("drop", (event) => {
  if (!page.piece) return;
  const items = [...event.dataTransfer.files].map((file) => ({ name: file.name, blob: file }));
  if (items.length) page.give(items);
});
page.start();
