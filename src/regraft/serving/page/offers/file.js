
// For a modality without a piece of its own: files
offer("file", {
  hint: "Drop files here",
  nouns: "examples",
  looks: "",
  sense: "",
  spot: "",
  ways(place, give) { place.append(chooser("Choose files", "", give)); },
  pasted(clipboard) { return [...clipboard.files].map((file) => ({ name: file.name, blob: file })); },
  preview() { return null; },
});
