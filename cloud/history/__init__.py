"""What happened, kept and told: bounds of the SQL tables, and the feed from them into the time series.

| module | what |
|---|---|
| `bounds` | deletes what is done and old |
| `steps` | rows of the transition tables become points (`fleet.series`) |
| `horizon` | up to which row a table is final: rows commit out of the order of their ids |
| `feed` | follows the tables, from a persisted position, into the series |
| `samples` | the state of the fleet each minute, forecasts |
| `platform` | how this process fares, every ten seconds |
"""
