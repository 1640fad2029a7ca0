"""Which options somebody gave: one without effect is refused, never passed over."""

from collections.abc import Mapping

import typer

from cli.output import USAGE, fail


def refuse_without_effect(context: typer.Context, options: Mapping[str, str], why: str) -> None:
    """End the command if one of them stands on the command line.

    Args:
        context: of the command.
        options: parameter → option as people write it.
        why: what it is without, and what to do.
    """
    given = [
        option
        for name, option in options.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise fail(f"{', '.join(given)}: {why}", USAGE)
