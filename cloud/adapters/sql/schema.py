"""Which revision a database stands at, and which ones this release knows."""

from functools import lru_cache

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from cloud.adapters.sql.migrate import FOLDER


@lru_cache(maxsize=1)
def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(FOLDER))


def head() -> str:
    """The revision of this release."""
    found = _scripts().get_current_head()
    assert found is not None
    return found


def is_known(revision: str) -> bool:
    """Whether this release can go on from there."""
    return revision in {script.revision for script in _scripts().walk_revisions()}


def revision_of(tx: Connection) -> str:
    """Where the database stands; empty if it has no schema of ours."""
    return MigrationContext.configure(tx).get_current_revision() or ""
