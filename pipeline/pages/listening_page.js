// Filters the clips of the page by words.
(() => {
  document.documentElement.classList.add("script");
  const clips = [...document.querySelectorAll(".clip")];
  clips.forEach(attachPlayer);

  const form = document.querySelector("nav form");
  const count = form.querySelector("output"), search = form.querySelector("input");
  const words = clips.map(clip => clip.textContent.toLowerCase());
  search.addEventListener("input", () => {
    const parts = search.value.toLowerCase().split(" ").filter(Boolean);
    clips.forEach((clip, i) => { clip.hidden = !parts.every(part => words[i].includes(part)); });
    for (const section of document.querySelectorAll("main > .clips"))
      section.hidden = parts.length > 0 && !section.querySelector(".clip:not([hidden])");
    const left = clips.filter(clip => !clip.hidden).length;
    count.textContent = parts.length ? left + " of " + clips.length : "";
  });
  form.addEventListener("submit", event => event.preventDefault());
})();
