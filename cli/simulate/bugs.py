"""Planted bugs: each breaks one rule of the code for one run, to see whether the simulation notices.

A bug is a patch on the classes of the code under test, taken back at the end of the run; nothing of it is in the
product. The list is what somebody could plausibly get wrong in this code.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cli.simulate import bugs_cloud, bugs_edge
from cli.simulate.planting import Bug

BUGS: Final[Mapping[str, Bug]] = MappingProxyType({bug.__name__: bug for bug in (*bugs_edge.BUGS, *bugs_cloud.BUGS)})
"""By name."""
