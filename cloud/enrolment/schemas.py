"""What the API says and accepts about claims, requests and certificates. Every answer is an allowlist of fields."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

HardwareSerial = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[ -~]+$")]


class ClaimBody(BaseModel):
    """For which piece of hardware."""

    model_config = ConfigDict(extra="forbid")

    hardware_serial: HardwareSerial


class ClaimAnswer(BaseModel):
    """The claim's text is shown this once."""

    device_id: str
    hardware_serial: str
    claim: str
    expires_at: int


class EnrolmentBody(BaseModel):
    """A box asks: the claim's secret (base32), the serial on its housing, a PEM request, and how it will poll."""

    model_config = ConfigDict(extra="forbid")

    secret: Annotated[str, Field(pattern=r"^[A-Z2-7]{16}$")]
    hardware_serial: HardwareSerial
    request: Annotated[str, Field(max_length=4096)]
    poll_secret: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class AuthorityAnswer(BaseModel):
    """Whom a box will trust; it believes this only if it matches the pin in its claim."""

    authority: str


class EnrolmentAnswer(BaseModel):
    """How far a request came. From `granted` on with everything the box needs."""

    id: str
    device_id: str
    kind: str
    fingerprint: str
    state: Literal["pending", "approved", "granted", "rejected", "expired"]
    reason: str
    chain: str = ""
    authority: str = ""
    command_keys: dict[str, str] = {}
    broker_host: str = ""
    broker_port: int = 0


class DecisionBody(BaseModel):
    """Approve exactly the key whose fingerprint the box shows (at least 8 of its digits)."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: Annotated[str, Field(pattern=r"^[0-9A-Fa-f: ]{8,128}$")]


class ReasonBody(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=200)]


class WaitingLine(BaseModel):
    """A box that waits for approval."""

    device_id: str
    hardware_serial: str
    fingerprint: str
    address: str
    asked_at: int


class CertificateLine(BaseModel):
    """A certificate and how far it came. Times are real ms."""

    serial: str
    origin: str
    state: Literal["issued", "in_use", "superseded", "revoked", "expired"]
    issued_at: int
    expires_at: int
    proven_at: int | None
    revoked_at: int | None
    revoked_reason: str


class TraceLine(BaseModel):
    """Something that happened around the identity, refused attempts among it."""

    at: int
    actor: str
    action: str
    detail: dict[str, str | int]


class IdentityAnswer(BaseModel):
    """Everything about a device's identity. `now_ms` is real time, as are all moments but those of the trace."""

    device_id: str
    revoked_at: int | None
    revoked_reason: str
    waiting: WaitingLine | None
    certificates: list[CertificateLine]
    trace: list[TraceLine]
    now_ms: int
    expires_soon: bool


class WaitingList(BaseModel):
    """Boxes of all devices that wait for approval, oldest first."""

    waiting: list[WaitingLine]
