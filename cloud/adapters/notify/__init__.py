"""Ways to tell people: the web inbox, a webhook, and every service apprise knows."""
