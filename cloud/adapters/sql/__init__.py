"""The SQL state on SQLite or PostgreSQL behind `cloud.ports.Database`."""
