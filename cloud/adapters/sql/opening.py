"""The database that the settings name, brought to this release's schema."""

import asyncio
from typing import Final

from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.identity.files import ConfigurationError
from cloud.settings import CloudSettings

IDLE_S_MIN: Final = 5.0
"""So long a busy machine may leave a transaction of ours alone. Beyond the length of a lease nobody waits for us."""


async def open_database(settings: CloudSettings) -> SqlDatabase:
    """Raises ConfigurationError, without the password that the URL holds."""
    try:
        await asyncio.to_thread(upgrade, settings.sql_url())
        return SqlDatabase(settings.sql_url(), idle_s_max=max(IDLE_S_MIN, settings.lease_s))
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigurationError(
            f"database_url: {error} (from FLEET_DATABASE_URL); write postgresql+psycopg://user:password@host/name"
        ) from None
    except ArgumentError:  # its text repeats the URL, which holds a password
        raise ConfigurationError(
            "database_url: is no URL of a database (from FLEET_DATABASE_URL); "
            "write postgresql+psycopg://user:password@host/name"
        ) from None
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        where = "FLEET_DATABASE_URL" if settings.database_url else "FLEET_DATA_DIRECTORY"
        raise ConfigurationError(
            f"database_url: the database can't be used: {reason} (from {where}); correct it, or start the database"
        ) from None
