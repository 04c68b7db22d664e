// Keeps a page fresh: when the stream of changes names something that the page shows
// (data-watch="noun" or "noun:id" on <main>), the page is fetched again and <main> replaced.
// Nothing is computed here; without scripts the page works and is merely not live.
"use strict";

const root = new URL("..", document.currentScript.src); // where the pages of this fleet begin
const live = document.getElementById("live");
let due = 0;
let pause = 500; // milliseconds

function watched(change) {
  const words = (document.getElementById("main").dataset.watch || "").split(" ");
  return words.includes(change.noun) || words.includes(change.noun + ":" + change.id);
}

function schedule() {
  // At most two refreshes a second, fewer where the page takes long, and none while it is hidden,
  // text is being selected or something is being typed.
  if (due) return;
  due = setTimeout(async () => {
    due = 0;
    const isBusy = document.activeElement?.closest("#main input");
    if (document.hidden || isBusy || !getSelection().isCollapsed) return schedule();
    const began = performance.now();
    await refresh();
    pause = Math.max(500, 10 * (performance.now() - began));
  }, pause);
}

async function refresh() {
  let response;
  try {
    response = await fetch(location.href, { credentials: "same-origin" });
  } catch {
    return; // the stream says when the control room is back
  }
  if (response.status === 401) return location.reload(); // the session ended: the way in is shown
  if (!response.ok) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  document.getElementById("main").replaceWith(fresh.getElementById("main"));
}

function listen() {
  const stream = new EventSource(new URL("api/v1/events", root));
  stream.onopen = () => {
    live.classList.add("on");
    schedule(); // something may have changed while the stream was away
  };
  stream.onerror = () => {
    live.classList.remove("on");
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
  stream.addEventListener("change", (event) => {
    if (watched(JSON.parse(event.data))) schedule();
  });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button || (button.dataset.ask && !confirm(button.dataset.ask))) return;
  button.disabled = true;
  const response = await fetch(button.dataset.post, { method: "POST", credentials: "same-origin" });
  if (!response.ok) alert((await response.json()).detail);
  await refresh();
});

if (document.getElementById("main").dataset.watch) {
  listen();
  setInterval(schedule, 20000); // "seen 5 s ago" grows old by itself
}
