"""A process that can be ended at a milestone: `python -m cli.chaos.victim CONTROL fleet serve …`.

It installs the observer and the wrong clock, and then is the ordinary program.
"""

import sys
from pathlib import Path

from cli import clock
from cli.chaos.control import Control
from fleet import milestones


def run(arguments: list[str]) -> None:
    """`arguments`: the control file, the program, and the program's own arguments."""
    control_file, program, *rest = arguments
    control = Control(Path(control_file))
    milestones.observe(control.observe)
    clock.jump = control.clock_jump_ms
    if program == "agents":
        from cli.chaos.agents import main

        main(Path(rest[0]))
        return
    from cli.main import run as run_command

    sys.argv[1:] = rest
    run_command()


if __name__ == "__main__":
    run(sys.argv[1:])
