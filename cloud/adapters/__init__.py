"""Concrete ways to the outside. Only `cloud.bootstrap` (and tests) import from here."""
