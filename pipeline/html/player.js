// Makes the picture of a clip seekable and its sound playable; of all clips of a page, one plays at a time.
const attachPlayer = (() => {
  let active = null;
  const clock = s => Math.floor(s / 60) + ":" + String(Math.floor(s % 60)).padStart(2, "0");
  const make = (tag, attributes) => Object.assign(document.createElement(tag), attributes);
  const activate = clip => {
    if (active && active !== clip) {
      active.querySelector("audio").pause();
      active.classList.remove("on");
    }
    active = clip;
    clip.classList.add("on");
  };

  // `clip` has the key and the seconds of the clip as data, a `.picture` and an audio element. Returns what plays or pauses it.
  return clip => {
    const sound = clip.querySelector("audio"), picture = clip.querySelector(".picture");
    const seconds = Number(clip.dataset.seconds);
    const button = make("button", { type: "button" }), time = make("span", {});
    const player = make("div", { className: "player" });
    const slider = make("input", { type: "range", min: 0, max: seconds, step: "any", value: 0 });
    slider.setAttribute("aria-label", "Position in " + clip.dataset.key);
    player.append(button, time);
    picture.after(player);
    picture.append(slider);
    sound.controls = false;
    sound.hidden = true;

    const show = () => {
      const at = Math.min(sound.currentTime, seconds);
      picture.style.setProperty("--at", seconds ? at / seconds : 0);
      slider.value = at;
      slider.setAttribute("aria-valuetext", at.toFixed(1) + " of " + seconds.toFixed(1) + " seconds");
      if (!sound.error) time.textContent = clock(at) + " / " + clock(Math.round(seconds));
      button.classList.toggle("pause", !sound.paused);
      button.setAttribute("aria-label", (sound.paused ? "Play " : "Pause ") + clip.dataset.key);
      if (!sound.paused) requestAnimationFrame(show);
    };
    const fail = () => { time.textContent = "this browser cannot play the clip"; };
    const play = () => sound.play().catch(error => { if (error.name != "AbortError") fail(); });
    const seek = s => { sound.currentTime = Math.max(0, Math.min(seconds, s)); clip.classList.add("on"); show(); };
    const toggle = () => { if (sound.paused) play(); else sound.pause(); };
    sound.addEventListener("play", () => { activate(clip); show(); });
    for (const event of ["pause", "ended", "seeked"]) sound.addEventListener(event, show);
    sound.addEventListener("error", fail);
    button.addEventListener("click", toggle);
    slider.addEventListener("input", () => seek(Number(slider.value)));
    slider.addEventListener("click", play);
    slider.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (step) seek(sound.currentTime + step);
      else if (event.key == " ") toggle();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    show();
    return toggle;
  };
})();
