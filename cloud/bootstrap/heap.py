"""The collector of reference cycles, in a process that runs for months on what it loaded at its start."""

import gc
from typing import Final

OBJECTS_BETWEEN_LOOKS: Final = 5_000
"""Per batch of messages thousands of objects come and go by their counts alone; looking at each 700 finds nothing."""


def settle() -> None:
    """Everything is loaded: never look through it again.

    A full look through modules, routes and tables takes about 0.15 s, during which nobody is heard; what comes after
    the start is collected as ever.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_LOOKS, *gc.get_threshold()[1:])
