"""After the start nobody looks through what was loaded; what comes later is collected as ever."""

import subprocess
import sys

_LOOK = """
import gc, json, weakref
from cloud.bootstrap import heap

class Ring: pass

loaded = Ring()
heap.settle()
after = gc.get_freeze_count()
ring = Ring(); ring.me = ring
gone = weakref.ref(ring)
del ring
gc.collect()
listed = any(one is loaded for one in gc.get_objects())
print(json.dumps([after > 1000, gone() is None, listed, gc.get_threshold()[0] == heap.OBJECTS_BETWEEN_LOOKS]))
"""


def test_what_was_loaded_is_left_alone_and_later_rings_are_collected() -> None:
    found = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[true, true, false, true]"
