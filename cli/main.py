"""`fleet`: one command for everything.

An edge box runs `fleet edge run --config FILE` for years in little memory, so exactly that goes straight to the
agent; everything else is read by the command tree in `cli.app`.
"""

import sys


def run() -> None:
    """Entry point of the installed command."""
    if sys.argv[1:2] == ["edge"]:
        from cli.agent import config_of, run_agent

        config = config_of(sys.argv[2:])
        if config is not None:
            sys.exit(run_agent(config))
    from cli.app import app
    from cli.output import INTERRUPTED, USAGE, fail, words

    try:
        app()
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        # A folder or file that somebody named; whatever else the system refuses is ours to explain.
        if error.filename is None:
            raise
        sys.exit(fail(f"{error.filename}: {error.strerror}; name a place that can be written", USAGE).exit_code)
    except KeyboardInterrupt:
        words.print("interrupted")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    run()
