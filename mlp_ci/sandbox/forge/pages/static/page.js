// Keeps the parts of a page that still change (data-live) fresh, without touching what somebody is typing.
"use strict";
(() => {
  const open = (root) => new Map([...root.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));

  async function refresh() {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (!answer.ok || answer.redirected) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(part.id);
      if (!now || part.querySelector("input:focus, select:focus, textarea:focus")) continue;
      if (now.innerHTML === part.dataset.was) continue;
      const was = open(part);
      const text = now.innerHTML;
      for (const each of now.querySelectorAll("details[id]")) if (was.has(each.id)) each.open = was.get(each.id);
      const places = new Map([...part.querySelectorAll("pre[id]")].map((each) => [each.id, each.scrollTop]));
      part.replaceChildren(...now.childNodes);
      part.dataset.was = text;
      for (const each of part.querySelectorAll("pre[id]")) {
        each.scrollTop = places.get(each.id) || 0;
      }
    }
    schedule(fresh.body.dataset.refresh);
  }

  function schedule(seconds) {
    if (seconds) setTimeout(() => refresh().catch(() => schedule(seconds)), seconds * 1000);
  }

  schedule(document.body.dataset.refresh);
})();
