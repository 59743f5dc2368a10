
// Pictures: dropped, pasted, chosen, or taken by a camera
offer("image", {
  hint: "Drop pictures here",
  also: "or paste them, with Ctrl+V or ⌘V",
  nouns: "pictures",
  looks: "beside",
  sense: "where it looked",
  spot: "place",

  ways(place, give) {
    place.append(chooser("Choose pictures", "image/*", give));
    if (navigator.mediaDevices) {
      const button = make("button", { type: "button", textContent: "Use the camera" });
      button.addEventListener("click", () => this.shoot(give));
      place.append(button);
    } else {  // a page that is not secure has no camera of its own, but a telephone's chooser has
      const label = chooser("Use the camera", "image/*", give, false);
      label.querySelector("input").setAttribute("capture", "environment");
      place.append(label);
    }
  },

  async shoot(give) {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
    } catch {
      page.say("There is no camera, or this page may not use it.");
      the("also").textContent = "There is no camera, or this page may not use it.";
      return;
    }
    const video = make("video", { srcObject: stream, autoplay: true, playsInline: true, muted: true });
    const take = make("button", { type: "button", className: "main", textContent: "Take the picture" });
    const cancel = make("button", { type: "button", textContent: "Cancel" });
    const dialog = make("dialog", { ariaLabel: "Camera" }, video, make("div", { className: "row" }, take, cancel));
    dialog.addEventListener("close", () => {
      stream.getTracks().forEach((track) => track.stop());
      dialog.remove();
    });
    cancel.addEventListener("click", () => dialog.close());
    take.addEventListener("click", () => {
      const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => { if (blob) give([{ name: "camera.jpg", blob }]); dialog.close(); }, "image/jpeg", 0.92);
    });
    document.body.append(dialog);
    dialog.showModal();
    take.focus();
  },

  pasted(clipboard) {
    return [...clipboard.files].filter((file) => file.type.startsWith("image/")).map((file) => ({ name: file.name, blob: file }));
  },

  preview(item) {
    const picture = make("img", { alt: item.name });
    picture.addEventListener("load", () => URL.revokeObjectURL(picture.src), { once: true });
    picture.addEventListener("error", () => { if (picture.isConnected) picture.style.visibility = "hidden"; }, { once: true });
    picture.src = URL.createObjectURL(item.blob);
    return picture;
  },
});
