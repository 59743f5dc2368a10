
"use strict";
// What a modality offers: offer(name, {hint, also, looks, ways(place, give), pasted(clipboard), preview(item)}),
// and leave(), where something has to end when another model is chosen.
// An item is {name, blob}; give(items) has them predicted. `looks` says where the map of what an answer rests on is
// shown: "beside" the item, which is then shown as the model sees it, or "under" it; "" for nowhere; `sense` is what the
// map tells ("where it looked"), and `spot` what is hidden for it ("place").
const offers = {};
const offer = (name, piece) => { offers[name] = piece; };
const the = (id) => document.getElementById(id);

const make = (tag, about = {}, ...inside) => {
  const node = Object.assign(document.createElement(tag), about);
  node.append(...inside);
  return node;
};

const percent = (share) => {
  const value = 100 * share;
  return value >= 99.95 || value < 0.05 ? `${Math.round(value)} %` : `${value.toFixed(value >= 10 ? 0 : 1)} %`;
};

const digits = (number) => Number(number.toPrecision(5)).toString();

// A control that lets files be chosen, of the kinds named, several at once
const chooser = (text, accept, give, main = true) => {
  const input = make("input", { type: "file", multiple: true, accept });
  input.addEventListener("change", () => {
    give([...input.files].map((file) => ({ name: file.name, blob: file })));
    input.value = "";
  });
  return make("label", { className: main ? "button main" : "button" }, text, input);
};

const page = {
  models: [], model: null, token: sessionStorage.getItem("regraft-token") || "", running: 0, waiting: [],

  // Answers of the server as {status, body}; asks for the token where it is wanted, and comes again where told to
  async ask(path, about = {}) {
    for (let attempt = 0; ; attempt += 1) {
      const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
      let response;
      try {
        response = await fetch(path, { ...about, headers });
      } catch {
        return { status: 0, body: { error: "the server does not answer" } };
      }
      if (response.status === 429 && attempt < 20) {
        const seconds = Number(response.headers.get("Retry-After")) || 1;
        await new Promise((done) => setTimeout(done, 1000 * seconds));
        continue;
      }
      const body = await response.json().catch(() => ({ error: `the server said ${response.status}` }));
      if (response.status === 401) this.locked(true);
      return { status: response.status, body };
    }
  },

  locked(yes) {
    the("key").hidden = !yes;
    the("offer").hidden = the("settings").hidden = yes;
    if (yes) { the("question").textContent = "Who is asking?"; the("token").focus(); }
  },

  async start() {
    const { status, body } = await this.ask("/models");
    if (status !== 200) {
      if (status !== 401) the("question").textContent = `There are no models to ask: ${body.error}.`;
      return;
    }
    this.locked(false);
    this.models = body.models;
    the("model").replaceChildren(...this.models.map((one) => make("option", { textContent: one.name })));
    the("which").hidden = false;
    the("model").hidden = this.models.length === 1;
    the("only").textContent = this.models.length === 1 ? this.models[0].name : "";
    this.choose();
  },

  choose() {
    const model = this.models[the("model").selectedIndex] || this.models[0];
    if (this.piece && this.piece.leave) this.piece.leave();
    this.model = model;
    this.piece = offers[model.modality] || offers.file;
    document.title = `${model.name} · regraft`;
    this.ask_of(model);
    the("hint").textContent = this.piece.hint;
    the("also").textContent = this.piece.also || "";
    the("ways").replaceChildren();
    this.piece.ways(the("ways"), (items) => this.give(items));
    the("promise").hidden = !model.precisions.length;
    the("precision").replaceChildren(
      make("option", { value: "", textContent: "always" }),
      ...model.precisions.map((one) => make("option", { value: one, textContent: `only when ${percent(one)} of such answers are right` })),
    );
    the("looking").hidden = !this.piece.looks || !model.looks;
    the("sense").textContent = this.piece.sense;
    the("foot").textContent = "What you give goes to this server, is answered, and is not kept.";
  },

  // The question in words: all classes where they are few
  ask_of(model) {
    const names = model.classes, few = model.task !== "single" || (names.length > 1 && names.length <= 6);
    const question = the("question");
    if (model.task !== "single") {
      question.textContent = model.question || `What does ${model.name} say?`;
    } else if (few) {
      const parts = names.flatMap((name, n) => [n === 0 ? "" : n === names.length - 1 ? " or " : ", ", make("em", { textContent: name })]);
      question.replaceChildren("Is it ", ...parts, "?");
    } else {
      question.textContent = names.length ? `Which of ${names.length} is it?` : `What does ${model.name} say?`;
    }
    the("all").hidden = few || !names.length;
    the("all").querySelector("summary").textContent = `All ${names.length}`;
    the("all").querySelector("p").textContent = names.join(", ");
  },

  give(items) {
    const asked = items.map((item) => {
      const seen = make("div", { className: "seen" });
      const told = make("div", { className: "told" }, make("p", { className: "source", dir: "auto", textContent: item.name }), make("p", { className: "busy", textContent: "asking" }));
      const preview = this.piece.preview(item), look = the("explain").checked ? this.piece.looks : "";
      if (preview) seen.append(preview);
      return { item, seen, told, preview, look, card: make("li", {}, seen, told), model: this.model, piece: this.piece };
    });
    the("results").prepend(...asked.map((one) => one.card));
    this.waiting.push(...asked);
    the("clear").hidden = !the("results").children.length;
    this.work();
  },

  async work() {
    while (this.running < 4 && this.waiting.length) {
      this.running += 1;
      this.answer(this.waiting.shift()).finally(() => { this.running -= 1; this.work(); });
    }
  },

  send(one, settings) {
    const form = new FormData();
    form.append("file", one.item.blob, one.item.name);
    const query = new URLSearchParams({ model: one.model.name, ...settings });
    return this.ask(`/predict?${query}`, { method: "POST", body: form });
  },

  async answer(one) {
    const precision = the("precision").value;
    if (one.look) one.seen.append(make("div", { className: `wait ${one.look}` }));
    else if (one.preview) one.preview.classList.add("alone");
    const { status, body } = await this.send(one, precision ? { precision } : {});
    const wrong = status === 200 ? body.predictions[0].error : body.error;
    if (wrong) { this.refuse(one, wrong); return; }
    const answer = body.predictions[0];
    this.tell(one, answer);
    if (one.look) await this.looked(one);
  },

  refuse(one, reason) {
    one.card.classList.add("brief");
    one.seen.remove();
    one.told.replaceChildren(make("p", { className: "source", dir: "auto", textContent: one.item.name }), make("p", { className: "wrong", textContent: `No answer: ${reason}.` }));
    this.say(`${one.item.name}: no answer, ${reason}`);
  },

  tell(one, answer) {
    const doubt = answer.sure === false;
    const label = make("p", { className: doubt ? "label doubt" : "label" }, doubt ? "Perhaps " : "");
    const source = make("p", { className: "source", dir: "auto", textContent: one.item.name });
    const tags = answer.sure === null ? [] : [make("span", { className: doubt ? "tag warning" : "tag", textContent: doubt ? "not sure" : "sure" })];
    const said = answer.label || "none of them";
    label.append(make("strong", { textContent: said }));
    if (answer.probability !== null) label.append(" ", make("span", { className: "chance", textContent: percent(answer.probability) }));
    one.told.replaceChildren(make("div", { className: "row" }, source, ...tags), label, ...this.within(answer), ...this.bars(answer, one.model), ...this.familiar(answer, one));
    const sure = doubt ? ", not sure" : "";
    const far = answer.unfamiliar ? ", unlike anything it was trained on" : "";
    const chance = answer.probability === null ? "" : `, ${percent(answer.probability)}`;
    this.say(`${one.item.name}: ${said}${chance}${sure}${far}`);
  },

  // Numbers: where each lies, as promised, and what is to be known of them
  within(answer) {
    const lines = Object.entries(answer.intervals || {}).map(([name, [low, high]]) => `${name}: ${digits(low)} to ${digits(high)}, as promised`);
    if (answer.note) lines.push(answer.note);
    return lines.map((text) => make("p", { className: "more", textContent: text }));
  },

  bars(answer, model) {
    const rows = Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]);
    if (rows.length < 2) return [];
    const body = make("tbody");
    const table = make("table", { className: "bars" }, make("caption", { className: "unseen", textContent: "Probabilities" }), body);
    const shown = rows.length > 6 ? 5 : 6, said = answer.labels || [rows[0][0]];
    for (const [name, share] of rows.slice(0, shown)) {
      const bar = make("span");
      bar.style.width = `${100 * share}%`;
      body.append(make("tr", { className: said.includes(name) ? "said" : "" }, make("th", { scope: "row", title: name, textContent: name }), make("td", { className: "track", ariaHidden: "true" }, bar), make("td", { className: "share", textContent: percent(share) })));
    }
    const left = rows.slice(shown).reduce((sum, [, share]) => sum + share, 0);
    const rest = model.task === "single" ? `${rows.length - shown} others together ${percent(left)}` : `and ${rows.length - shown} others`;
    return rows.length > shown ? [table, make("p", { className: "more", textContent: rest })] : [table];
  },

  // How far it is from the training examples: 0 to 100, the last percent marked
  familiar(answer, one) {
    if (answer.familiarity === null) return [];
    const far = answer.unfamiliar, share = Math.round(answer.familiarity);
    const dot = make("i");
    dot.style.left = `${Math.min(100, answer.familiarity)}%`;
    const words = far
      ? "Unlike anything it was trained on: the answer may mean nothing."
      : answer.familiarity > 90
        ? `Unusual: ${share} % of the training ${one.piece.nouns} are more like the others.`
        : "Like what it was trained on.";
    return [make("div", { className: far ? "known far" : "known" }, make("div", { className: "scale", ariaHidden: "true" }, dot), make("span", { textContent: words }))];
  },

  async looked(one) {
    const { status, body } = await this.send(one, { top: 1, explain: true });
    const look = status === 200 ? body.predictions[0].look : null;
    const place = one.seen.querySelector(".wait");
    if (!look) {
      place.remove();
      if (one.preview) one.preview.classList.add("alone");
      return;
    }
    const map = make("img", { src: look.map, alt: `The ${one.piece.spot}s that the answer ${look.label} rests on, in warm colours` });
    const picture = make("img", { src: look.picture, alt: `${one.item.name}, as the model sees it` });
    await Promise.all([map.decode(), picture.decode()]).catch(() => {});
    map.className = one.look;
    if (one.look === "beside" && one.preview) one.preview.replaceWith(picture);
    else if (one.look === "beside") one.seen.prepend(picture);
    place.replaceWith(map);
    const sense = one.piece.sense[0].toUpperCase() + one.piece.sense.slice(1), spot = one.piece.spot;
    const fall = `${sense}: with the warmest ${spot} hidden, ${look.label} falls from ${percent(look.probability)} to ${percent(look.hidden)}.`;
    const none = `${sense}: no single ${spot} matters, hiding any leaves ${look.label} at ${percent(look.hidden)} or more.`;
    one.seen.append(make("p", { className: "caption", textContent: look.probability - look.hidden > 0.02 ? fall : none }));
  },

  say(text) { the("said").textContent = text; },
};
