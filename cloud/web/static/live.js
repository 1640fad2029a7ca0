// Keeps an open page true: listens to what changed and lets htmx load the parts that show it.
// `data-topics` of the body lists what the page shows: `alarm`, or `device:bike-001` for one device alone.

const URGENT = new Set(["call", "alarm", "incident", "command", "ride", "purchase"]);
const BACKSTOP_MS = 15_000; // values that change without an event, and what a lost connection missed
const QUIET_INTERVAL_MS = 2000; // a busy fleet changes many times a second; a page need not
const body = document.body;
const topics = (body.dataset.topics || "").split(/\s+/).filter(Boolean);
const TOPIC_NAMES = ["device", "event", "alarm", "call", "order", "command", "ride", "purchase", "wallet", "inbox", "incident", "hiding"];

let lastRefresh = 0;
let timer = 0;

function concerns(topic, facts) {
  return topics.some((wanted) => {
    const [name, device] = wanted.split(":");
    return name === topic && (!device || device === facts.device_id);
  });
}

export function refresh() {
  timer = 0;
  if (document.hidden) {
    return;
  }
  lastRefresh = performance.now();
  const target = document.getElementById("refresh");
  target?.dispatchEvent(new CustomEvent("fleet:changed"));
}

// What somebody works at survives the exchange of the part around it: a form with the cursor in it or with something
// typed into it stays as it is, and what the reader unfolded stays unfolded.
function isChanged(control) {
  if (control.matches("[type=checkbox], [type=radio]")) {
    return control.checked !== control.defaultChecked;
  }
  if (control.matches("select")) {
    const preset = [...control.options].findIndex((option) => option.defaultSelected);
    return !control.multiple && control.selectedIndex !== Math.max(0, preset);
  }
  return control.value !== control.defaultValue;
}

function isInUse(form) {
  const controls = [...form.elements].filter((control) => control.matches("input:not([type=hidden]), select, textarea"));
  return controls.length > 0 && (form.contains(document.activeElement) || controls.some(isChanged));
}

htmx.registerExtension("keep-what-is-in-use", {
  htmx_before_morph_node: (node) => !(node instanceof HTMLFormElement && isInUse(node)),
  htmx_before_morph_attr: (node, { attrName }) => !(attrName === "open" && node instanceof HTMLDetailsElement),
});

// An element that moves within its list loses the focus in browsers that cannot move without taking it out.
let focused = null;
document.addEventListener("htmx:before:swap", () => {
  focused = document.activeElement;
});
document.addEventListener("htmx:after:swap", () => {
  if (document.activeElement === body && focused?.isConnected) {
    focused.focus({ preventScroll: true });
  }
});

function refreshSoon(urgent) {
  const wait = urgent ? 50 : Math.max(0, lastRefresh + QUIET_INTERVAL_MS - performance.now());
  if (timer && !urgent) {
    return;
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, wait);
}

function show(connected) {
  const state = document.getElementById("live-state");
  if (state) {
    state.hidden = false;
    state.textContent = connected ? state.dataset.on : state.dataset.off;
    state.title = state.textContent;
    state.classList.toggle("is-off", !connected);
  }
}

function connect() {
  const source = new EventSource("/api/v1/stream");
  source.addEventListener("hello", () => {
    show(true);
    refreshSoon(true); // what happened since the page was made, or while the connection was away
  });
  source.addEventListener("reload", () => location.reload());
  source.addEventListener("error", () => show(false));
  for (const topic of TOPIC_NAMES) {
    source.addEventListener(topic, (message) => {
      const facts = JSON.parse(message.data);
      document.dispatchEvent(new CustomEvent("fleet:change", { detail: { topic, facts } }));
      // The banner of calls stands on every page of those on duty.
      if (concerns(topic, facts) || topic === "call") {
        refreshSoon(URGENT.has(topic));
      }
    });
  }
  // A browser that leaves the page closes the stream; one that comes back from its cache opens it again.
  addEventListener("pagehide", () => source.close(), { once: true });
}

addEventListener("pageshow", (event) => event.persisted && location.reload());
document.addEventListener("visibilitychange", () => !document.hidden && refreshSoon(true));

// Waiting times count on between refreshes, in the fleet's own time.
const loadedAt = performance.now();
const serverNow = Number(body.dataset.now);
const speed = Number(body.dataset.speed) || 1;

export function nowMs() {
  return serverNow + (performance.now() - loadedAt) * speed;
}

setInterval(() => {
  for (const bar of document.querySelectorAll("progress[data-from]")) {
    bar.value = Math.min(bar.max, (nowMs() - Number(bar.dataset.from)) / 1000);
  }
  for (const element of document.querySelectorAll("time[data-until]")) {
    const seconds = Math.max(0, Math.ceil((Number(element.dataset.until) - nowMs()) / 1000));
    element.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }
  for (const element of document.querySelectorAll("time[data-since]")) {
    const seconds = Math.max(0, Math.round((nowMs() - Number(element.dataset.since)) / 1000));
    const parts = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60), seconds % 60];
    element.textContent = (parts[0] ? parts : parts.slice(1)).map((part) => String(part).padStart(2, "0")).join(":");
  }
}, 1000);

setInterval(() => refreshSoon(false), BACKSTOP_MS);

connect();

// After a form that was refused the address is the form's own: a reload would send it again. It becomes the page's.
if (body.dataset.path && location.pathname !== body.dataset.path) {
  history.replaceState(null, "", body.dataset.path);
}

// Acknowledging one of many does not lose the place: the next one stands where the last one stood.
const PLACE = "fleet-place";
const PLACE_KEPT_MS = 15_000;
document.addEventListener("submit", (event) => {
  if (event.target.matches("[data-keep-place]")) {
    sessionStorage.setItem(PLACE, JSON.stringify({ path: body.dataset.path, y: scrollY, at: Date.now() }));
  }
});
const place = JSON.parse(sessionStorage.getItem(PLACE) || "null");
sessionStorage.removeItem(PLACE);
if (place && place.path === body.dataset.path && Date.now() - place.at < PLACE_KEPT_MS) {
  addEventListener("load", () => requestAnimationFrame(() => scrollTo({ top: place.y, behavior: "instant" })));
}
