"""Watches over the way of an emergency call, and over every button; see ADR 0024 and docs/calls.md."""
