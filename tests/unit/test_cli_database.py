"""What a command says when the database refuses what it wanted to store."""

import pytest
import typer
from sqlalchemy import insert

from cli.database import with_services
from cloud.adapters.sql.migrate import upgrade
from cloud.tables import crew


def test_a_row_that_breaks_a_rule_of_the_database_is_one_line_and_no_traceback(tmp_path, capsys):
    upgrade(f"sqlite:///{tmp_path / 'state.db'}")

    async def store_nothing_valid(here):
        await here.database.write(lambda tx: tx.execute(insert(crew).values(id=None)))

    with pytest.raises(typer.Exit) as ended:
        with_services(tmp_path, store_nothing_valid)
    assert ended.value.exit_code == 1
    assert "the database refused it" in capsys.readouterr().err
