// The device page: a plot of the last 24 hours, and the outcome of commands as it comes.

const DAY_MS = 86_400_000;
const STEP_S = 300;
const box = document.getElementById("plot");
const choice = document.getElementById("plot-field");
const summary = document.getElementById("plot-summary");
const clock = new Intl.DateTimeFormat("zh-CN", { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: "Asia/Shanghai" });
let plot = null;

function draw(label, unit, points) {
  plot?.destroy();
  plot = null;
  box.replaceChildren();
  if (!points.length) {
    box.textContent = box.dataset.empty;
    summary.textContent = "";
    return;
  }
  const values = points.map(([, value]) => value);
  const words = JSON.parse(summary.dataset.words);
  const figure = (value) => `${Math.round(value * 100) / 100}${unit ? ` ${unit}` : ""}`;
  summary.textContent = `${words.low} ${figure(Math.min(...values))} · ${words.high} ${figure(Math.max(...values))} · ${words.last} ${figure(values.at(-1))}`;
  // A gap longer than a few steps is drawn as a gap, not as a line across it.
  const xs = [];
  const ys = [];
  points.forEach(([at, value], index) => {
    if (index && at - points[index - 1][0] > box.dataset.gapMs) {
      xs.push((points[index - 1][0] + at) / 2000);
      ys.push(null);
    }
    xs.push(at / 1000);
    ys.push(value);
  });
  plot = new window.uPlot(
    {
      width: box.clientWidth,
      height: 230,
      legend: { show: false },
      cursor: { y: false },
      axes: [{ space: 60, values: (_, splits) => splits.map((seconds) => clock.format(new Date(seconds * 1000))) }, { size: 56 }],
      series: [{}, { label, stroke: "#0a6062", width: 2, fill: "rgba(10, 96, 98, 0.08)", points: { show: points.length < 60 } }],
    },
    [xs, ys],
    box,
  );
}

async function load() {
  const option = choice.selectedOptions[0];
  const now = Number(document.body.dataset.now);
  const address = `/api/v1/devices/${encodeURIComponent(box.dataset.device)}/series?field=${encodeURIComponent(option.value)}&from=${now - DAY_MS}&step_s=${STEP_S}`;
  try {
    const response = await fetch(address);
    if (!response.ok) {
      throw new Error(String(response.status));
    }
    draw(option.textContent, option.dataset.unit, (await response.json()).points);
  } catch {
    plot?.destroy();
    plot = null;
    box.textContent = box.dataset.failed;
    summary.textContent = "";
  }
}

if (box) {
  box.dataset.gapMs = String(4 * 3_600_000);
  choice.addEventListener("change", load);
  new ResizeObserver(() => plot && plot.setSize({ width: box.clientWidth, height: 230 })).observe(box);
  load();
}

// A command that is under way: the server answers when it ended, then the page's list is loaded anew.
const watched = new URLSearchParams(location.search).get("command");
if (watched) {
  const watch = async (tries) => {
    const response = await fetch(`/api/v1/commands/${encodeURIComponent(watched)}?wait_s=10`);
    const answer = response.ok ? await response.json() : { final: true };
    document.getElementById("refresh")?.dispatchEvent(new CustomEvent("fleet:changed"));
    if (!answer.final && tries > 0) {
      await watch(tries - 1);
    }
  };
  watch(30).catch(() => {});
}
