"""Who may speak as which device: claims of installers, their requests, and every certificate that was issued.

Times are real ms since the epoch, never business time: certificates are checked by the broker's own clock.
"""

from sqlalchemy import Column, Index, Text, UniqueConstraint, text

from cloud.tables.base import Ms, table

claim = table(  # single-use permission for one hardware serial to ask for one device's certificate
    "claim",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("hardware_serial", Text, nullable=False, index=True),
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("made_by", Text, nullable=False),
    Column("made_at", Ms, nullable=False),
    Column("expires_at", Ms, nullable=False),
    Column("used_at", Ms),
    Column("withdrawn_at", Ms),
)

enrolment = table(  # what a box asked for with a claim; `state` as in cloud.enrolment.lifecycle
    "enrolment",
    Column("id", Text, primary_key=True),
    Column("claim_id", Text, nullable=False, unique=True),
    Column("device_id", Text, nullable=False, index=True),
    Column("hardware_serial", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),  # SHA-256 of the public key, hex
    Column("request", Text, nullable=False),  # PEM
    Column("poll_hash", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("asked_at", Ms, nullable=False),
    Column("state", Text, nullable=False),
    Column("decided_by", Text, nullable=False, server_default=""),
    Column("decided_at", Ms),
    Column("reason", Text, nullable=False, server_default=""),
    Index("enrolment_by_state", "state", "asked_at"),
)

renewal = table(  # the latest request of each device for its next certificate
    "renewal",
    Column("device_id", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("request", Text, nullable=False),  # PEM
    Column("asked_at", Ms, nullable=False),
    Column("answered_at", Ms, index=True),
    Column("refused", Text, nullable=False, server_default=""),
    Column("retry_after_s", Ms, nullable=False, server_default=text("0")),
)

certificate = table(
    "certificate",
    Column("serial", Text, primary_key=True),  # lower-case hex
    Column("device_id", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),  # of its public key: the same request gets the same certificate
    Column("origin", Text, nullable=False),  # `enrolment` or `renewal`
    Column("chain", Text, nullable=False),  # PEM, leaf first
    Column("issued_at", Ms, nullable=False),
    Column("expires_at", Ms, nullable=False, index=True),
    Column("proven_at", Ms),
    Column("superseded_at", Ms),
    Column("revoked_at", Ms, index=True),
    Column("revoked_reason", Text, nullable=False, server_default=""),
    UniqueConstraint("device_id", "fingerprint"),
)
