// The search page: its address is the search, so that it can be shared and the browser's way back works.
(() => {
  const byId = id => document.getElementById(id);
  const make = (tag, attributes, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };
  const form = byId("form"), text = byId("text"), file = byId("file"), tag = byId("tag"), filters = byId("filters");
  const status = byId("status"), message = byId("message"), results = byId("results"), more = byId("more");
  const card = byId("card").content.firstElementChild;
  const STEP = 20, MAX_RESULTS = 100, TYPING_MS = 350;
  const toggles = new WeakMap();
  let tags = [], sound = null, running = null, typing = 0;

  // State. `state` is what stands in the address; a sound file cannot stand there.
  const read = () => {
    const values = new URLSearchParams(location.search);
    return {
      text: values.get("text") || "", tags: values.getAll("tags"), without: values.getAll("without"),
      like: values.get("like") || "", clip: values.get("clip") || "", mode: values.get("mode") || "embedding",
      k: Math.min(MAX_RESULTS, Math.max(STEP, Number(values.get("k")) || STEP)),
    };
  };
  let state = read();

  const parameters = () => {
    const values = new URLSearchParams();
    if (state.text) values.set("text", state.text);
    for (const name of state.tags) values.append("tags", name);
    for (const name of state.without) values.append("without", name);
    if (state.like) values.set("like", state.like);
    if (state.mode != "embedding" && state.text && !state.like) values.set("mode", state.mode);
    if (state.k != STEP) values.set("k", state.k);
    return values;
  };

  // Whatever is clicked, the words in the field are searched, also those that were typed a moment ago.
  const go = (change, replace) => {
    clearTimeout(typing);
    Object.assign(state, { clip: "", k: STEP, text: text.value.trim() }, change);
    const values = state.clip ? new URLSearchParams({ clip: state.clip }) : parameters();
    const address = location.pathname + (values.size ? "?" + values : "");
    history[replace ? "replaceState" : "pushState"](null, "", address);
    show();
  };

  // What narrows the search, as chips.
  const chip = (label, hint, className, press, remove) => {
    const name = make(press ? "button" : "span", { className: "name", textContent: label, title: hint, dir: "auto" });
    if (press) Object.assign(name, { type: "button", onclick: press });
    const cross = make("button", { type: "button", className: "cross", textContent: "×", onclick: remove });
    cross.setAttribute("aria-label", "Remove " + label);
    return make("li", { className }, name, cross);
  };
  const omit = (names, name) => names.filter(each => each != name);
  const drawFilters = () => {
    const include = name => chip(name, "Clips must have this tag; click to leave them out instead", "with", () => go({
      tags: omit(state.tags, name), without: [...omit(state.without, name), name],
    }), () => go({ tags: omit(state.tags, name) }));
    const exclude = name => chip("not " + name, "Clips with this tag are left out; click to ask for them", "without", () =>
      go({ tags: [...omit(state.tags, name), name], without: omit(state.without, name) }),
    () => go({ without: omit(state.without, name) }));
    const chips = [...state.tags.map(include), ...state.without.map(exclude)];
    if (state.like) chips.unshift(chip("like a clip", "Clips that sound like this one", "with", () =>
      go({ clip: state.like }), () => go({ like: "" })));
    if (sound) chips.unshift(chip("like " + sound.name, "Clips that sound like this file", "with", null, () => {
      sound = null;
      go({}, true);
    }));
    filters.replaceChildren(...chips);
    form.querySelector("fieldset").disabled = Boolean(sound || state.like);
  };

  // Results.
  const clipAddress = (id, what) => "api/clips/" + encodeURIComponent(id) + what;
  const drawClip = (clip, rank, scored) => {
    const element = card.cloneNode(true), title = clip.captions[0] || clip.key;
    const [picture, player, captions, names, small, actions] = element.children;
    element.dataset.key = clip.key;
    element.dataset.seconds = clip.duration_s;
    element.dataset.id = clip.id;
    element.setAttribute("aria-label", title);
    picture.firstElementChild.src = clipAddress(clip.id, "/spectrogram.png");
    picture.firstElementChild.alt = "Spectrogram of " + clip.key;
    player.src = clipAddress(clip.id, "/audio");
    player.setAttribute("aria-label", clip.key);
    captions.append(...(clip.captions.length ? clip.captions : [clip.key]).map(caption =>
      make("li", {}, make("p", { className: "caption", textContent: caption, dir: "auto" }))));
    names.append(...clip.tags.map(name => {
      const button = make("button", { type: "button", textContent: name, dir: "auto",
        onclick: () => go({ tags: [...omit(state.tags, name), name], without: omit(state.without, name) }) });
      button.title = "Show only clips with this tag";
      return make("li", { className: state.tags.includes(name) ? "on" : "" }, button);
    }));
    if (!clip.tags.length) names.append(make("li", { className: "none", textContent: "no tags" }));
    small.children[0].textContent = clip.key;
    small.children[1].textContent = [
      scored ? "#" + rank + ", score " + clip.score.toFixed(3) : "", clip.dataset + "/" + clip.file,
      clip.duration_s.toFixed(1) + " s",
    ].filter(Boolean).join(" · ");
    actions.children[0].onclick = () => { sound = null; text.value = ""; go({ like: clip.id }); scrollTo(0, 0); };
    actions.children[1].href = "?" + new URLSearchParams({ clip: clip.id });
    actions.children[1].onclick = event => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      go({ clip: clip.id });
      scrollTo(0, 0);
    };
    toggles.set(element, attachPlayer(element));
    return element;
  };

  const suggest = () => message.children[2].replaceChildren(...tags.slice(0, 12).map(({ name }) => make("li", {}, make(
    "button", { type: "button", textContent: name, dir: "auto", onclick: () => { text.value = name; go({}); } }))));
  const explain = (title, words, { suggests, retry }) => {
    message.hidden = false;
    message.children[0].textContent = title;
    message.children[1].textContent = words;
    message.children[2].hidden = !suggests;
    message.children[3].hidden = !retry;
  };
  message.children[3].onclick = () => show();

  const clear = () => {
    message.hidden = true;
    more.hidden = true;
    results.replaceChildren();
  };

  const failure = (words, passing) => Object.assign(new Error(words), { passing });
  const ask = async (address, options) => {
    let response;
    try {
      response = await fetch(address, options);
    } catch (error) {
      if (error.name == "AbortError") throw error;
      throw failure("The server does not answer. Check that it still runs.", true);
    }
    if (response.status == 401) location.reload();
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) {
      const words = answer.error || "The server answered with the status " + response.status + ".";
      throw failure(words, response.status == 429 || response.status >= 500);
    }
    return answer;
  };

  const request = signal => {
    if (state.clip) return ask(clipAddress(state.clip, ""), { signal }).then(clip => ({ results: [clip] }));
    if (!sound) return ask("api/search?" + parameters(), { signal });
    const body = new FormData(), values = parameters();
    values.delete("mode");
    values.delete("like");
    for (const [name, value] of values) body.append(name, value);
    body.append("file", sound);
    return ask("api/search", { method: "POST", body, signal });
  };

  const describe = (count, took) => {
    if (state.clip) return "One clip";
    const like = sound ? sound.name : state.like ? "a clip" : "";
    const query = [state.text && "“" + state.text + "”", like && "the sound of " + like].filter(Boolean).join(" and ");
    return count + (count == 1 ? " clip for " : " clips for ") + query + " in " + took.toFixed(2) + " s";
  };

  const welcome = () => {
    const narrowed = state.tags.length + state.without.length > 0;
    status.textContent = "";
    explain(narrowed ? "What are you looking for?" : "Describe a sound to find it",
      narrowed ? "Tags narrow a search. Type some words first, or choose a sound file." :
        "For example a whole scene, such as “a dog barks while a train passes”, or one of these:", { suggests: true });
  };

  const stop = () => {
    if (running) running.abort();
    running = null;
    results.removeAttribute("aria-busy");
  };

  const show = async () => {
    stop();
    drawFilters();
    document.title = (state.text || (sound && sound.name) || "Search") + " · " + document.body.dataset.name;
    if (!state.text && !state.like && !state.clip && !sound) {
      clear();
      return welcome();
    }
    const own = running = new AbortController();
    const slow = setTimeout(() => { status.textContent = "Searching …"; }, 200);
    results.setAttribute("aria-busy", "true");
    try {
      const started = performance.now(), answer = await request(own.signal);
      if (own !== running) return;
      clear();
      status.textContent = describe(answer.results.length, (performance.now() - started) / 1000);
      results.append(...answer.results.map((clip, i) => drawClip(clip, i + 1, !state.clip)));
      more.hidden = Boolean(state.clip) || answer.results.length < state.k || state.k >= MAX_RESULTS;
      if (!answer.results.length)
        explain("No clip fits", "Remove a filter, or use other words.", { suggests: true });
    } catch (error) {
      if (own !== running || error.name == "AbortError") return;
      clear();
      status.textContent = "";
      explain("That did not work", error.message, { retry: error.passing });
    } finally {
      clearTimeout(slow);
      if (own === running) results.removeAttribute("aria-busy");
    }
  };

  // Form.
  const fill = () => {
    text.value = state.text;
    form.elements.mode.value = state.mode;
  };
  form.addEventListener("submit", event => {
    event.preventDefault();
    go({});
  });
  text.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => { if (text.value.trim() != state.text) go({}, !state.clip); }, TYPING_MS);
  });
  for (const mode of form.elements.mode) mode.addEventListener("change", () => go({ mode: mode.value }));
  tag.addEventListener("change", () => {
    const name = tag.value.trim(), known = tags.find(each => each.name.toLowerCase() == name.toLowerCase());
    tag.value = "";
    if (name) go({ tags: [...omit(state.tags, (known || { name }).name), (known || { name }).name] });
  });
  more.addEventListener("click", () => go({ k: Math.min(MAX_RESULTS, state.k + STEP) }, true));
  addEventListener("popstate", () => { clearTimeout(typing); sound = null; state = read(); fill(); show(); });

  // A sound file, chosen or dropped.
  const take = chosen => {
    if (!chosen) return;
    if (chosen.size > Number(form.dataset.maxBytes)) {
      clearTimeout(typing);
      stop();
      clear();
      status.textContent = "";
      const megabytes = Number(form.dataset.maxBytes) / 1e6;
      return explain("That did not work", chosen.name + " is larger than " + megabytes + " MB; use a shorter sound.", {});
    }
    sound = chosen;
    go({ like: "" }, true);
  };
  byId("choose").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    take(file.files[0]);
    file.value = ""; // the same file may be chosen again
  });
  const hasFile = event => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  addEventListener("dragover", event => {
    if (!hasFile(event)) return;
    event.preventDefault();
    byId("drop").hidden = false;
  });
  addEventListener("dragleave", event => { if (!event.relatedTarget) byId("drop").hidden = true; });
  addEventListener("drop", event => {
    if (!hasFile(event)) return;
    event.preventDefault();
    byId("drop").hidden = true;
    take(event.dataTransfer.files[0]);
  });

  // Keys.
  const columns = () => getComputedStyle(results).gridTemplateColumns.split(" ").length;
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inField = event.target.matches("input:not([type=range]), textarea, select");
    if (event.key == "/" && !inField) {
      event.preventDefault();
      text.focus();
      text.select();
      return;
    }
    const cards = [...results.children], at = cards.indexOf(document.activeElement.closest(".clip"));
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[event.key];
    if (step && cards.length && (!inField || (event.target === text && event.key == "ArrowDown"))) {
      event.preventDefault();
      const next = at < 0 ? 0 : at + step;
      if (next < 0) text.focus();
      else cards[Math.min(next, cards.length - 1)].focus();
    } else if (event.key == " " && event.target.matches(".clip")) {
      event.preventDefault();
      toggles.get(event.target)();
    }
  });

  document.documentElement.classList.add("script");
  document.body.dataset.name = document.querySelector("h1").textContent;
  fill();
  show();
  ask("api/tags").then(found => {
    tags = found;
    byId("names").replaceChildren(...tags.map(each => make("option", { value: each.name })));
    suggest();
  }).catch(() => {});
})();
