"""The agent of one real device, without the command tree: typer and rich would be a fifth of its memory."""

import random
from collections.abc import Sequence
from pathlib import Path

from cli.clock import SystemClock


def config_of(arguments: Sequence[str]) -> Path | None:
    """FILE of exactly `[run] --config FILE` or `[run] --config=FILE`; None for anything else: the tree explains."""
    match arguments:
        case ["run", *rest]:
            return None if rest[:1] == ["run"] else config_of(rest)
        case ["--config", file] if file and not file.startswith("-"):
            return Path(file)
        case [option] if option.startswith("--config=") and option != "--config=":
            return Path(option.removeprefix("--config="))
        case _:
            return None


def run_agent(config: Path, *, as_json: bool = False) -> int:
    """Run until SIGTERM or SIGINT; the exit code. Wrong settings, keys or storage end with one line."""
    from edge.identity import IdentityError
    from edge.logs import configure
    from edge.notify import service_manager
    from edge.records import JournalError
    from edge.run import main
    from edge.settings import SettingsError, load_settings

    try:
        settings = load_settings(config)
        if as_json:
            from cli.output import print_json

            print_json({
                "device_id": settings.device_id, "kind": settings.kind, "transport": settings.transport,
                "broker": f"{settings.broker.host}:{settings.broker.port}", "tls": not settings.broker.plain,
                "data_directory": str(settings.data_directory),
            })  # fmt: skip
        try:
            recent = configure(settings.log)
        except OSError as error:
            raise SettingsError(
                f"log.file: {settings.log.file} cannot be written ({error.strerror}); name another"
            ) from error
        main(settings, SystemClock(), random.SystemRandom(), recent, service_manager())
    except (SettingsError, IdentityError, JournalError) as error:
        from cli.output import FAILURE, USAGE, fail

        return fail(str(error), FAILURE if isinstance(error, JournalError) else USAGE).exit_code
    return 0
