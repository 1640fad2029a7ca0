// The map of the fleet. Without a tile server it draws a schematic of its own: a plain grid and the zone's outline.

const PAGE = 500;
const RELOAD_MS = 5000;
const ZONE = [[38.84, 121.48], [38.89, 121.56]];
const GRID_DEGREES = 0.01;
const box = document.getElementById("map");
const words = JSON.parse(box.dataset.words);
const L = window.L;

const map = L.map(box, { zoomControl: false, attributionControl: Boolean(box.dataset.tiles), preferCanvas: false });
L.control.zoom({ zoomInTitle: words.in, zoomOutTitle: words.out }).addTo(map);
map.fitBounds(ZONE, { padding: [8, 8] });

if (box.dataset.tiles) {
  L.tileLayer(box.dataset.tiles, { attribution: box.dataset.attribution, maxZoom: 18 }).addTo(map);
} else {
  const line = { color: "#cbd6d2", weight: 1, interactive: false };
  const [[south, west], [north, east]] = ZONE;
  const margin = 6 * GRID_DEGREES;
  for (let step = Math.round((south - margin) / GRID_DEGREES); step * GRID_DEGREES <= north + margin; step += 1) {
    L.polyline([[step * GRID_DEGREES, west - 0.1], [step * GRID_DEGREES, east + 0.1]], line).addTo(map);
  }
  for (let step = Math.round((west - 0.1) / GRID_DEGREES); step * GRID_DEGREES <= east + 0.1; step += 1) {
    L.polyline([[south - margin, step * GRID_DEGREES], [north + margin, step * GRID_DEGREES]], line).addTo(map);
  }
}
L.rectangle(ZONE, { color: "#0a6062", weight: 2, dashArray: "6 4", fill: !box.dataset.tiles, fillColor: "#fff", fillOpacity: 0.5, interactive: false })
  .addTo(map);
const zoneName = document.createElement("span");
zoneName.textContent = box.dataset.zone;
L.marker(ZONE[0], { interactive: false, keyboard: false, icon: L.divIcon({ className: "zone-name", iconSize: null, iconAnchor: [0, -3], html: zoneName }) })
  .addTo(map);

const markers = new Map();

function statusOf(device) {
  if (device.open_calls) {
    return "call";
  }
  return device.open_alarms ? "alarm" : device.status;
}

function iconFor(device, status) {
  const size = status === "call" ? 28 : status === "alarm" ? 22 : 18;
  const picture = document.createElement("span");
  picture.innerHTML = '<svg class="icon" aria-hidden="true"><use></use></svg>';
  picture.querySelector("use").setAttribute("href", `/static/icons.svg#${encodeURIComponent(device.kind)}`);
  return L.divIcon({ className: `marker is-${status}`, iconSize: [size, size], html: picture.firstChild });
}

function popupFor(device, status) {
  const content = document.createElement("div");
  const link = document.createElement("a");
  link.href = `/devices/${encodeURIComponent(device.device_id)}`;
  link.textContent = device.name || device.device_id;
  const note = document.createElement("div");
  note.textContent = `${device.device_id} · ${words[status]}`;
  content.append(link, note);
  return content;
}

function place(device) {
  if (device.latitude === null || device.longitude === null) {
    return;
  }
  const status = statusOf(device);
  const known = markers.get(device.device_id);
  const at = [device.latitude, device.longitude];
  if (known && known.status === status) {
    known.marker.setLatLng(at);
    return;
  }
  known?.marker.remove();
  const order = { call: 3000, alarm: 2000, online: 1000 }[status] || 0;
  // The list below is the way by keyboard; 400 tab stops on a map would be a trap.
  const marker = L.marker(at, { icon: iconFor(device, status), keyboard: false, zIndexOffset: order, title: device.name || device.device_id });
  marker.bindPopup(() => popupFor(device, status)).addTo(map);
  markers.set(device.device_id, { marker, status });
}

async function load() {
  let after = "";
  const seen = new Set();
  do {
    const response = await fetch(`/api/v1/devices?limit=${PAGE}&after=${encodeURIComponent(after)}`);
    if (!response.ok) {
      return; // the indicator in the header says that the connection is away
    }
    const answer = await response.json();
    for (const device of answer.devices) {
      seen.add(device.device_id);
      place(device);
    }
    after = answer.next_after || "";
  } while (after);
  for (const [id, { marker }] of markers) {
    if (!seen.has(id)) {
      marker.remove();
      markers.delete(id);
    }
  }
  box.dataset.markers = String(markers.size);
}

let loading = false;
let again = false;
async function loadOnce() {
  if (loading) {
    again = true;
    return;
  }
  loading = true;
  try {
    await load();
  } catch {
    again = true; // the network is away; tried again below
  }
  setTimeout(() => {
    loading = false;
    if (again) {
      again = false;
      loadOnce();
    }
  }, RELOAD_MS);
}

document.addEventListener("fleet:change", (event) => {
  if (["device", "event", "alarm", "call"].includes(event.detail.topic) && !document.hidden) {
    loadOnce();
  }
});
loadOnce();
