"""Bridges: lines to hardware that does not speak our frames. See docs/hardware.md; loaded only when one is named."""
