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
    from cli.output import INTERRUPTED, words

    try:
        app()
    except OSError as error:
        sys.exit(_refused_place(error))
    except KeyboardInterrupt:
        words.print("interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        code = _refused_database(error)
        if code is None:
            raise
        sys.exit(code)


def _refused_place(error: OSError) -> int:
    """Say which folder or file the system refuses; a refused connection has no name, and is ours to explain."""
    from cli.output import FAILURE, USAGE, fail
    from cli.places import OF_THE_DISK, why_not

    if error.filename is None and error.errno not in OF_THE_DISK:
        raise error
    place = "a file" if error.filename is None else error.filename
    code = FAILURE if error.errno in OF_THE_DISK else USAGE
    return fail(f"cannot write or read {place}: {why_not(error)}", code).exit_code


def _refused_database(error: Exception) -> int | None:
    """Say what SQLite refuses, also through SQLAlchemy; None: the error is another one, or a mistake of ours."""
    import sqlite3

    from cli.output import fail

    found = getattr(error, "orig", None) or error
    if not isinstance(found, sqlite3.OperationalError) and type(found) is not sqlite3.DatabaseError:
        return None
    fix = "see that its disk has space and its folder can be written; if the file is damaged, restore a backup"
    if "no such" in str(found):
        fix = "it has not the tables of this release: start `fleet serve` once, so that they are made"
    return fail(f"the database cannot be used: {found}; {fix} (fleet doctor says more)").exit_code


if __name__ == "__main__":
    run()
