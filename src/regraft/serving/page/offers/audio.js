
// Sounds: recorded, dropped or chosen. A recording is sent as a WAV file, which every server can read
offer("audio", {
  hint: "Drop sounds here",
  also: "",
  nouns: "sounds",
  looks: "under",
  sense: "where it listened",
  spot: "place",

  ways(place, give) {
    place.append(chooser("Choose sounds", "audio/*", give));
    if (!navigator.mediaDevices || !window.MediaRecorder) return;
    const button = make("button", { type: "button", textContent: "Record", ariaPressed: "false" });
    button.addEventListener("click", async () => {
      if (this.recorder) { this.recorder.stop(); return; }
      button.disabled = true;  // until the browser has asked for leave
      try {
        await this.record(give, () => { button.textContent = "Record"; button.ariaPressed = "false"; });
        button.textContent = "Stop and ask";
        button.ariaPressed = "true";
        this.tell("Recording. Press the button again to stop and ask.");
      } catch {
        this.tell("There is no microphone, or this page may not use it.");
      }
      button.disabled = false;
      button.focus();
    });
    place.append(button);
  },

  tell(text) { page.say(text); the("also").textContent = text; },

  // Another model is chosen: what is being recorded is for nobody
  leave() {
    if (this.recorder) { this.dropped = true; this.recorder.stop(); }
  },

  async record(give, ended) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const recorder = new MediaRecorder(stream), pieces = [];
    this.recorder = recorder;
    this.dropped = false;
    recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
    recorder.addEventListener("stop", async () => {
      stream.getTracks().forEach((track) => track.stop());
      this.recorder = null;
      if (this.dropped) return;
      ended();
      const context = new AudioContext();
      try {
        const sound = await context.decodeAudioData(await new Blob(pieces).arrayBuffer());
        this.tell("");
        give([{ name: "recording.wav", blob: this.wav(sound) }]);
      } catch {
        this.tell("Nothing was recorded: hold on a little longer before you stop.");
      }
      context.close();
    });
    recorder.start();
  },

  // One channel of 16-bit samples
  wav(sound) {
    const samples = sound.getChannelData(0), view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
    const text = (place, letters) => [...letters].forEach((letter, n) => view.setUint8(place + n, letter.charCodeAt(0)));
    text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
    view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
    view.setUint32(24, sound.sampleRate, true); view.setUint32(28, 2 * sound.sampleRate, true);
    view.setUint16(32, 2, true); view.setUint16(34, 16, true);
    text(36, "data"); view.setUint32(40, 2 * samples.length, true);
    samples.forEach((sample, n) => view.setInt16(44 + 2 * n, 32767 * Math.max(-1, Math.min(1, sample)), true));
    return new Blob([view.buffer], { type: "audio/wav" });
  },

  pasted(clipboard) {
    return [...clipboard.files].filter((file) => file.type.startsWith("audio/")).map((file) => ({ name: file.name, blob: file }));
  },

  preview(item) {
    const sound = make("audio", { controls: true, src: URL.createObjectURL(item.blob) });
    sound.setAttribute("aria-label", item.name);
    return sound;
  },
});
