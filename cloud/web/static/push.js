// The button that lets this browser be notified: asks, subscribes, and hands the subscription over as a channel.

const place = document.getElementById("push");

function bytesOf(text) {
  const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/").padEnd(Math.ceil(text.length / 4) * 4, "="));
  return Uint8Array.from(plain, (character) => character.charCodeAt(0));
}

function complain(text) {
  const line = place.querySelector("[role=alert]");
  line.textContent = text;
  line.hidden = false;
}

async function subscribe() {
  if ((await Notification.requestPermission()) !== "granted") {
    complain(place.dataset.denied);
    return;
  }
  try {
    const worker = await navigator.serviceWorker.register("/service-worker.js");
    await navigator.serviceWorker.ready;
    const subscription = await worker.pushManager.subscribe({
      userVisibleOnly: true,
      applicationServerKey: bytesOf(place.dataset.key),
    });
    const { endpoint, keys } = subscription.toJSON();
    const answer = await fetch("/api/v1/notifications/contacts", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": place.dataset.csrf },
      body: JSON.stringify({
        channel: "push",
        address: JSON.stringify({ endpoint, keys }),
        label: navigator.userAgentData?.platform || navigator.platform || "",
      }),
    });
    if (!answer.ok) {
      complain((await answer.json()).detail || place.dataset.failed);
      return;
    }
    location.hash = "contacts";
    location.reload();
  } catch {
    complain(place.dataset.failed);
  }
}

if (place && "serviceWorker" in navigator && "PushManager" in globalThis && "Notification" in globalThis) {
  place.hidden = false;
  place.querySelector("button").addEventListener("click", subscribe);
}
