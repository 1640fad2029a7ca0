"""Settings of the cloud with errors in one line: which key, where it comes from, what to do."""

import difflib
import os
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings.exceptions import SettingsError as SourceError

from cloud.settings import CloudSettings

PREFIX: Final = "FLEET_"
NEAR: Final = 0.8
"""Of 1: all of them begin alike, so what is less alike was hardly meant."""
_ELSEWHERE: Final = frozenset({"FLEET_CHECK_STRICT"})
"""Variables that start like a setting and are none."""


SECRET_KEYS: Final = frozenset(
    {
        "apprise_urls",
        "database_url",
        "deadman_url",
        "watchdog_urls",
        "grafana_token",
        "influxdb_reader_token",
        "influxdb_token",
        "smtp_url",
        "sms_headers",
        "sms_url",
        "voice_headers",
        "voice_url",
        "platform_alert_secret",
        "webhook_secret",
        "webhook_url",
    }
)
"""Settings whose values are never printed."""


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
        value = _shown(key, given.get(key, os.environ.get(variable)))
        message = problem["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{key}: {message} (got {value} from {source}); correct it or unset it") from error
    except SourceError as error:
        keys = [name for name in CloudSettings.model_fields if f'"{name}"' in str(error)]
        key = keys[0] if keys else "settings"
        variable = variable_of(key)
        value = _shown(key, os.environ.get(variable))
        raise SettingsError(
            f'{key}: is no JSON list (got {value} from environment variable {variable}); write for example ["a", "b"]'
        ) from error


def _shown(key: str, value: Any) -> str:
    """What was given, unless it is or holds a secret."""
    return "a secret" if key in SECRET_KEYS else repr(value)


def variable_of(key: str) -> str:
    """Environment variable of a setting."""
    return PREFIX + key.upper()


def unknown_variables() -> list[str]:
    """`FLEET_…` variables that no setting reads: most likely misspelt."""
    known = {variable_of(name) for name in CloudSettings.model_fields} | _ELSEWHERE
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def warnings() -> list[str]:
    """One line for each variable that nobody reads, with the one it may have been meant to be."""
    known = [variable_of(name) for name in CloudSettings.model_fields]
    lines = []
    for name in unknown_variables():
        near = difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
        meant = f"did you mean {near[0]}?" if near else "docs/operations.md lists them all"
        lines.append(f"{name} is no setting and has no effect; {meant}")
    return lines
