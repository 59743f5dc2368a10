
// Texts: written into a box, or pasted; a file's whole content is one text
offer("text", {
  hint: "Write or paste a text",
  also: "Ctrl+Enter asks too. Text files can be dropped here.",
  nouns: "texts",
  looks: "under",
  sense: "which words mattered",
  spot: "word",

  ways(place, give) {
    const box = make("textarea", { ariaLabel: "Text", dir: "auto" });
    const lines = make("input", { type: "checkbox" });
    const go = make("button", { type: "button", className: "main", textContent: "Ask" });
    const ask = () => {
      const texts = (lines.checked ? box.value.split("\n") : [box.value]).filter((text) => text.trim());
      give(texts.map((text) => this.item(text)));
      if (texts.length) box.value = "";
      box.focus();
    };
    go.addEventListener("click", ask);
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); ask(); }
    });
    place.append(box, go, make("label", { className: "small soft" }, lines, " each line by itself"), chooser("Choose text files", "text/*,.txt", give, false));
  },

  item(text) {
    const name = text.trim().replace(/[\s/\\]+/g, " ").slice(0, 60);
    return { name, blob: new Blob([text], { type: "text/plain" }), text };
  },

  pasted(clipboard) {
    const text = clipboard.getData("text/plain");
    return text.trim() ? [this.item(text)] : [];
  },

  preview(item) {
    const quote = make("blockquote", { dir: "auto", tabIndex: 0, ariaLabel: "The text" });
    item.blob.slice(0, 8000).text().then((text) => { quote.textContent = text.slice(0, 2000); });
    return quote;
  },
});
