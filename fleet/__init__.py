"""The shared vocabulary of devices and cloud.

Everything here is pure: no I/O, no clock, no global randomness (a linter keeps it so). What crosses
the wire is defined in `envelope`, `topics`, `commands` and `signing`; what a kind of device must
offer in `kind`; how things live and end in `lifecycle` and `incident`.
"""
