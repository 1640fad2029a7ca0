"""Hook of the wheel build: the front-end assets are fetched then, so that no third-party file is committed."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class AssetsHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's generic parameter is not public
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build `cloud/web/static/vendor/` before files are collected; `make setup` does it for an editable install."""
        del build_data
        if self.target_name != "wheel" or version == "editable":
            return
        root = str(Path(self.root))
        sys.path.insert(0, root)
        try:
            from scripts import assets  # noqa: PLC0415  # only importable once the project's root is on the path

            assets.build(Path(root))
        finally:
            sys.path.remove(root)
