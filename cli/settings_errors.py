"""Settings of the cloud with errors in one line: which key, where it comes from, what to do."""

import os
from typing import Any

from pydantic import ValidationError

from cloud.settings import CloudSettings


class SettingsError(ValueError):
    """One line for people."""


def cloud_settings(**arguments: Any) -> CloudSettings:
    """Settings from `FLEET_…` and the arguments that are not None; raises SettingsError."""
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return CloudSettings(**given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = str(problem["loc"][0]) if problem["loc"] else "settings"
        variable = f"FLEET_{key.upper()}"
        source = f"option --{key.replace('_', '-')}" if key in given else f"environment variable {variable}"
        value = given.get(key, os.environ.get(variable))
        raise SettingsError(f"{key}: {problem['msg']} (got {value!r} from {source}); correct it or unset it") from error
