"""The listening page's style sheet and script, which are the same on every page."""

STYLE = """
:root { color-scheme: light dark; --bg: #f8f6f7; --card: #fff; --ink: #201c24; --soft: #625a69; --line: #e5dfe4;
  --accent: #8a2a7c; --on-accent: #fff; --chip: #f4eaf2; --chip-ink: #5f2058; --flag: #fdeee0; --flag-ink: #843700;
  --shadow: 0 1px 2px rgb(40 20 50 / .06), 0 4px 14px rgb(40 20 50 / .05) }
@media (prefers-color-scheme: dark) { :root { --bg: #121015; --card: #1c1921; --ink: #ece8ef; --soft: #aaa2b2;
  --line: #342e3b; --accent: #fb8f6a; --on-accent: #1c1118; --chip: #32243a; --chip-ink: #f1cde7;
  --flag: #3d2815; --flag-ink: #ffc894;
  --shadow: none } }
* { box-sizing: border-box }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100% }
body { margin: 0; overflow-wrap: anywhere; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
body::before { content: ""; display: block; height: 5px;
  background: linear-gradient(90deg, #1c1044, #4f127b, #812581, #b5367a, #e55964, #fb8761, #fec287, #fcfdbf) }
header, nav > div, main, footer { max-width: 1240px; margin: 0 auto; padding: 0 1.25rem }
h1 { font-size: clamp(1.6rem, 4.5vw, 2.3rem); line-height: 1.15; letter-spacing: -.02em; margin: 1.8rem 0 1.1rem }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 2.2rem 0 .2rem }
h3 { font-size: .95rem; margin: 0 }
ul, ol, dl, dd, figure { margin: 0; padding: 0; list-style: none }
a { color: var(--accent) }
.soft { color: var(--soft); margin: 0 0 1rem; max-width: 75ch }
.figures { display: flex; flex-wrap: wrap; gap: .9rem 2.4rem; margin: 0 0 1.2rem }
.figures div { display: flex; flex-direction: column-reverse; min-width: 0 }
.figures dd { font-size: clamp(1.6rem, 4vw, 2.2rem); font-weight: 700; line-height: 1.15; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; color: var(--accent) }
.figures dt { color: var(--soft); font-size: .9rem }
nav { position: sticky; top: 0; z-index: 2; background: var(--bg); border-block: 1px solid var(--line) }
nav > div { display: flex; flex-wrap: wrap; align-items: center; gap: .35rem 1.3rem; padding-block: .5rem }
nav a { text-decoration: none; font-weight: 600; padding: .3rem 0 } nav a:hover { text-decoration: underline }
nav form { margin-left: auto; display: flex; align-items: center }
nav output { color: var(--soft); font-size: .85rem } nav output:not(:empty) { margin-left: .7rem }
input[type=search] { font: inherit; color: inherit; background: var(--card); border: 1px solid #8d8494; border-radius: 99px;
  padding: .3rem .9rem; width: 15rem; max-width: 100% }
::placeholder { color: var(--soft); opacity: 1 }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
section { scroll-margin-top: 3.4rem }
.grid { display: grid; gap: 1.1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)) }
.clip, .panel { background: var(--card); border: 1px solid var(--line); border-radius: 12px; box-shadow: var(--shadow) }
.clip { overflow: hidden; display: flex; flex-direction: column; min-width: 0 }
.clip.on { border-color: var(--accent) }
.picture { position: relative; background: #000004; overflow: hidden }
.picture img { display: block; width: 100%; height: 112px }
.picture::after { content: ""; position: absolute; inset: 0 auto 0 calc(var(--at, 0) * 100%); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 5px #000; opacity: 0; pointer-events: none }
.on .picture::after { opacity: 1 }
.picture input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: pointer;
  appearance: none }
.picture input::-webkit-slider-thumb { appearance: none; width: 1px; height: 100% }
.picture input::-moz-range-thumb { border: 0; width: 1px; height: 100% }
.picture:has(:focus-visible) { outline: 3px solid var(--accent); outline-offset: -3px }
audio { display: block; width: 100%; height: 40px; margin-top: .6rem; padding: 0 .6rem }
.player { display: flex; align-items: center; gap: .7rem; padding: .7rem 1rem 0; color: var(--soft); font-size: .85rem;
  font-variant-numeric: tabular-nums }
.player button { flex: none; width: 40px; height: 40px; border: 0; border-radius: 50%; background: var(--accent);
  display: grid; place-items: center; cursor: pointer; padding: 0 }
.player button::before { content: ""; width: 15px; height: 16px; background: var(--on-accent); margin-left: 3px;
  clip-path: polygon(0 0, 100% 50%, 0 100%) }
.player .pause::before { margin: 0; width: 14px;
  clip-path: polygon(0 0, 33% 0, 33% 100%, 67% 100%, 67% 0, 100% 0, 100% 100%, 0 100%, 0 0) }
.texts { padding: .7rem 1rem 0 }
.texts > li + li { border-top: 1px solid var(--line); margin-top: .6rem; padding-top: .6rem }
.caption { margin: 0 }
li:first-child > .caption { font-size: 1.08rem; line-height: 1.4; font-weight: 600 }
.notes, .tags { display: flex; flex-wrap: wrap; gap: .3rem; font-size: .8rem }
.notes { gap: .15rem .4rem; color: var(--soft); margin-top: .25rem }
.notes li { min-width: 0 }
.notes li:not(.flag) + li:not(.flag)::before { content: "\\b7"; margin-right: .4rem }
.flag { background: var(--flag); color: var(--flag-ink); border-radius: 5px; padding: 0 .45rem }
.tags { padding: .75rem 1rem 0; margin-top: auto }
.tags li { background: var(--chip); color: var(--chip-ink); border-radius: 99px; padding: .1rem .65rem; min-width: 0 }
.tags .none { background: none; color: var(--soft); padding: 0 }
.small { padding: .6rem 1rem .8rem; margin: 0; color: var(--soft); font-size: .75rem }
.small code { display: block }
.charts { display: grid; gap: 1.1rem; margin-top: .8rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)) }
.stack { display: grid; gap: 1.1rem } .panel { padding: 1rem 1.1rem; min-width: 0 }
.panel .soft { font-size: .85rem; margin-bottom: .6rem }
.bars li { display: grid; grid-template-columns: minmax(0, 11rem) minmax(0, 1fr) 3.4rem; gap: .6rem; align-items: center;
  font-size: .85rem; line-height: 1.5 }
.bars span { white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.bars b { font-weight: 400; color: var(--soft); font-variant-numeric: tabular-nums }
.bars svg { display: block; width: 100%; height: 12px }
svg { fill: var(--accent) } .columns { display: block; width: 100%; max-width: 520px }
.columns text { font: 11px system-ui, sans-serif; fill: var(--soft) } .columns line { stroke: var(--line) }
footer { padding-block: 2.5rem 2rem; color: var(--soft); font-size: .85rem }
.js { display: none } .script span.js { display: inline } .script form.js { display: flex }
[hidden] { display: none !important }
@media (max-width: 640px) { header, nav > div, main, footer { padding-inline: .9rem } nav a { font-size: .9rem }
  nav form { margin: 0; width: 100% } input[type=search] { width: 100%; min-width: 0 }
  nav { position: static } section { scroll-margin-top: 0 }
  .bars li { grid-template-columns: minmax(0, 8.5rem) minmax(0, 1fr) 3rem }
  .figures { gap: .8rem 1.7rem } nav output { flex: none } }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto } }
"""

SCRIPT = """
(() => {
  document.documentElement.classList.add("script");
  const clock = s => Math.floor(s / 60) + ":" + String(Math.floor(s % 60)).padStart(2, "0");
  const make = (tag, attributes) => Object.assign(document.createElement(tag), attributes);
  const clips = [...document.querySelectorAll(".clip")];
  const sounds = clips.map(clip => clip.querySelector("audio"));

  clips.forEach((clip, i) => {
    const sound = sounds[i], picture = clip.querySelector(".picture"), seconds = Number(clip.dataset.seconds);
    const button = make("button", { type: "button" }), time = make("span", {});
    const player = make("div", { className: "player" });
    const place = make("input", { type: "range", min: 0, max: seconds, step: "any", value: 0 });
    place.setAttribute("aria-label", "Position in " + clip.dataset.key);
    player.append(button, time);
    picture.after(player);
    picture.append(place);
    sound.controls = false;
    sound.hidden = true;

    const show = () => {
      const at = Math.min(sound.currentTime, seconds);
      picture.style.setProperty("--at", seconds ? at / seconds : 0);
      place.value = at;
      place.setAttribute("aria-valuetext", at.toFixed(1) + " of " + seconds.toFixed(1) + " seconds");
      if (!sound.error) time.textContent = clock(at) + " / " + clock(Math.round(seconds));
      button.classList.toggle("pause", !sound.paused);
      button.setAttribute("aria-label", (sound.paused ? "Play " : "Pause ") + clip.dataset.key);
      if (!sound.paused) requestAnimationFrame(show);
    };
    const fail = () => { time.textContent = "this browser cannot play the clip"; };
    const play = () => sound.play().catch(error => { if (error.name != "AbortError") fail(); });
    const seek = s => { sound.currentTime = Math.max(0, Math.min(seconds, s)); clip.classList.add("on"); show(); };
    const toggle = () => { if (sound.paused) play(); else sound.pause(); };
    sound.addEventListener("play", () => {
      sounds.forEach((other, k) => { if (other !== sound) { other.pause(); clips[k].classList.remove("on"); } });
      clip.classList.add("on");
      show();
    });
    for (const event of ["pause", "ended", "seeked"]) sound.addEventListener(event, show);
    sound.addEventListener("error", fail);
    button.addEventListener("click", toggle);
    place.addEventListener("input", () => seek(Number(place.value)));
    place.addEventListener("click", play);
    place.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (step) seek(sound.currentTime + step);
      else if (event.key == " ") toggle();
      else return;
      event.preventDefault();
    });
    show();
  });

  const form = document.querySelector("nav form");
  const found = form.querySelector("output"), wanted = form.querySelector("input");
  const words = clips.map(clip => clip.textContent.toLowerCase());
  wanted.addEventListener("input", () => {
    const parts = wanted.value.toLowerCase().split(" ").filter(Boolean);
    clips.forEach((clip, i) => { clip.hidden = !parts.every(part => words[i].includes(part)); });
    for (const section of document.querySelectorAll("main > .clips"))
      section.hidden = parts.length > 0 && !section.querySelector(".clip:not([hidden])");
    const left = clips.filter(clip => !clip.hidden).length;
    found.textContent = parts.length ? left + " of " + clips.length : "";
  });
  form.addEventListener("submit", event => event.preventDefault());
})();
"""
