"""How single people are reached, what they want to be told, and every attempt to tell anybody."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Text, UniqueConstraint, text

from cloud.tables.base import Id, Ms, table

contact_point = table(
    "contact_point",
    Column("id", Text, primary_key=True),
    Column("person_id", Text, ForeignKey("person.id"), nullable=False),
    Column("channel", Text, nullable=False),  # push, chat, sms, voice, mail
    Column("address", Text, nullable=False),  # number, mail address, apprise URL; for push the subscription as JSON
    Column("label", Text, nullable=False, server_default=""),
    Column("created_at", Ms, nullable=False),
    Column("verified_at", Ms),  # who is behind it typed the code that was sent through it, or an admin vouched
    Column("failing_since", Ms),  # it was refused there, or nothing got through; ends with the next delivery
    Column("failure", Text, nullable=False, server_default=""),
    Column("delivered_at", Ms),  # the latest delivery
    Column("code_hash", Text),
    Column("code_sent_at", Ms),
    Column("code_tries", Integer, nullable=False, server_default=text("0")),
    Column("codes_sent", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("person_id", "channel", "address"),
    CheckConstraint("channel IN ('push', 'chat', 'sms', 'voice', 'mail')", name="contact_point_channel_known"),
)

notification_preference = table(
    "notification_preference",
    Column("person_id", Text, ForeignKey("person.id"), primary_key=True),
    Column("channels", Text, nullable=False),  # JSON priority → channels; a priority that is missing: all of them
    Column("quiet_from_minute", Integer),  # minutes of the local day; both or none
    Column("quiet_until_minute", Integer),
    Column("time_zone", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("changed_at", Ms, nullable=False),
    CheckConstraint("(quiet_from_minute IS NULL) = (quiet_until_minute IS NULL)", name="quiet_hours_have_an_end"),
)

personal_quota = table(  # what one person was told lately, and what waits because it was much
    "personal_quota",
    Column("person_id", Text, ForeignKey("person.id"), primary_key=True),
    Column("told_at", Text, nullable=False),  # JSON list of the latest few times, ascending
    Column("digest_due_at", Ms, index=True),
    Column("digest_count", Integer, nullable=False, server_default=text("0")),
    Column("digest", Text, nullable=False, server_default="[]"),  # JSON: the first few of what was collected
)

delivery_attempt = table(
    "delivery_attempt",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at", Ms, nullable=False, index=True),  # when it ended
    Column("delivery_id", Text, nullable=False, index=True),
    Column("reference", Text, nullable=False),
    Column("kind_of", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("recipient", Text, nullable=False),  # a person's id; empty: everybody who reads this channel
    Column("contact_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("urgent", Integer, nullable=False),
    Column("outcome", Text, nullable=False),  # delivered, failed, refused, timed_out, given_up, recalled, too_late
    Column("duration_ms", Integer, nullable=False),  # real ms
    Column("error", Text, nullable=False),
    Index("delivery_attempt_by_reference", "reference", "id"),
    Index("delivery_attempt_by_recipient", "recipient", "id"),
    Index("delivery_attempt_by_channel", "channel", "at"),
)
