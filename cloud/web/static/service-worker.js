// Shows what was pushed while no page is open, and leads to the page where it is answered.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => {
  const told = event.data ? event.data.json() : {};
  event.waitUntil(
    self.registration.showNotification(told.title || "Fleet", {
      body: told.body || "",
      tag: told.tag || undefined,
      renotify: Boolean(told.tag && told.urgent),
      requireInteraction: Boolean(told.urgent),
      icon: "/static/favicon.svg",
      data: { link: told.link || "/alarms" },
    }),
  );
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  const wanted = new URL(event.notification.data.link, self.location.origin);
  // Only our own pages: what is pushed is encrypted for us, and still never leads elsewhere.
  const target = wanted.origin === self.location.origin ? wanted.href : self.location.origin;
  event.waitUntil(self.clients.openWindow(target));
});
