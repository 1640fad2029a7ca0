"""Settings of the cloud with errors in one line: which key, where it comes from, what to do."""

import os
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings.exceptions import SettingsError as SourceError

from cloud.settings import CloudSettings

PREFIX: Final = "FLEET_"
_ELSEWHERE: Final = frozenset({"FLEET_CHECK_STRICT"})
"""Variables that start like a setting and are none."""


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
        variable = variable_of(key)
        source = f"option --{key.replace('_', '-')}" if key in given else f"environment variable {variable}"
        value = given.get(key, os.environ.get(variable))
        message = problem["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{key}: {message} (got {value!r} from {source}); correct it or unset it") from error
    except SourceError as error:
        keys = [name for name in CloudSettings.model_fields if f'"{name}"' in str(error)]
        key = keys[0] if keys else "settings"
        variable = variable_of(key)
        value = os.environ.get(variable)
        raise SettingsError(
            f'{key}: is no JSON list (got {value!r} from environment variable {variable}); write for example ["a", "b"]'
        ) from error


def variable_of(key: str) -> str:
    """Environment variable of a setting."""
    return PREFIX + key.upper()


def unknown_variables() -> list[str]:
    """`FLEET_…` variables that no setting reads: most likely misspelt."""
    known = {variable_of(name) for name in CloudSettings.model_fields} | _ELSEWHERE
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
