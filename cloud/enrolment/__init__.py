"""How a box comes to its certificate: claims, requests, approval (ADR 0012)."""
