"""Runs `fleet` in this process, without the machine's own settings."""

import os

from typer.testing import CliRunner

from cli.app import app


def fleet(*arguments, **settings):
    """Result of one command; `settings` are environment variables, and there are no others that start with FLEET_."""
    environment = {name: None for name in os.environ if name.startswith("FLEET_")}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={**environment, **settings})


def one_line(result):
    """What was said on stderr, which must be one line."""
    (line,) = result.stderr.splitlines()
    return line
