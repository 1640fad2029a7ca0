"""Money of people and of the union: a double-entry ledger in integer fen, and idempotent requests about money."""
