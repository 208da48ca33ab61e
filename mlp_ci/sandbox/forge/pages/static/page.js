// Keeps the parts of a page that still change (data-live) fresh, without touching what somebody is typing.
"use strict";
(() => {
  const shown = new Map();
  const folds = (root) => [...root.querySelectorAll("details")];

  function replace(part, fresh) {
    const text = fresh.innerHTML;
    if (text === shown.get(part.id)) return;
    // What somebody has opened or scrolled stays so; what has no id is known by its place.
    const open = new Map(folds(part).map((each, place) => [each.id || place, each.open]));
    const scrolled = new Map([...part.querySelectorAll("pre[id]")].map((each) => [each.id, each.scrollTop]));
    folds(fresh).forEach((each, place) => {
      if (open.has(each.id || place)) each.open = open.get(each.id || place);
    });
    part.replaceChildren(...fresh.childNodes);
    for (const each of part.querySelectorAll("pre[id]")) each.scrollTop = scrolled.get(each.id) || 0;
    shown.set(part.id, text);
  }

  async function refresh() {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (!answer.ok || answer.redirected) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(part.id);
      if (now && !part.querySelector("input:focus, select:focus, textarea:focus")) replace(part, now);
    }
    schedule(fresh.body.dataset.refresh);
  }

  function schedule(seconds) {
    if (seconds) setTimeout(() => refresh().catch(() => schedule(seconds)), seconds * 1000);
  }

  // A refused form is shown again under the address it was sent to, which is none to load again.
  if (document.body.dataset.source) history.replaceState(null, "", document.body.dataset.source);
  for (const part of document.querySelectorAll("[data-live]")) shown.set(part.id, part.innerHTML);
  schedule(document.body.dataset.refresh);
})();
