"""A temperature controller on Modbus RTU or TCP, with pymodbus (extra `edge-modbus`)."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

ANSWER_S_MAX: Final = 2.0
CONNECT_S_MAX: Final = 5.0
_SIGN_BIT: Final = 0x8000


class ThermometerSettings(BaseModel):
    """Table `[hardware.fridge]`: where the value stands and what it means; see the controller's manual."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    """`tcp://host:502`, or `serial:/dev/ttyUSB1?baud=9600&parity=even` for RTU."""
    unit: int = Field(default=1, ge=1, le=247)
    register_number: int = Field(default=0, ge=0, le=65_535, alias="register")
    """Counted from 0, as on the wire: manuals that begin at 30001 or 40001 mean this plus 1."""
    table: Literal["input", "holding"] = "input"
    degrees_per_step: float = Field(default=0.1, gt=0, le=10)
    lowest_celsius: float = -40.0
    highest_celsius: float = 85.0
    """A value outside is a broken probe, which many controllers report as 32767 or -32768."""

    @field_validator("address")
    @classmethod
    def _names_a_place(cls, address: str) -> str:
        parts = urlsplit(address)
        if (parts.scheme == "tcp" and parts.hostname) or (parts.scheme == "serial" and parts.path):
            return address
        raise ValueError("write tcp://host:502 or serial:/dev/ttyUSB1?baud=9600&parity=even")


class ThermometerError(OSError):
    """No value: nobody answered, the register is not there, or the probe is broken."""


class ModbusThermometer:
    """`celsius` asks once; a broken connection is made anew with the next question."""

    def __init__(self, settings: ThermometerSettings) -> None:
        self._settings = settings
        self._client: AsyncModbusTcpClient | AsyncModbusSerialClient | None = None

    async def celsius(self) -> float:
        """The value now; raises ThermometerError."""
        from pymodbus.exceptions import ModbusException  # noqa: PLC0415  # an optional extra

        settings = self._settings
        try:
            async with asyncio.timeout(CONNECT_S_MAX + ANSWER_S_MAX):
                client = await self._connected()
                read = client.read_input_registers if settings.table == "input" else client.read_holding_registers
                answer = await read(settings.register_number, count=1, device_id=settings.unit)
        except (ModbusException, OSError, TimeoutError) as error:
            self.close()
            raise ThermometerError(f"{settings.address}: {str(error) or 'does not answer'}") from error
        if answer.isError():
            raise ThermometerError(f"{settings.address}: register {settings.register_number}: {answer}")
        return self._meaning(answer.registers[0])

    def _meaning(self, register: int) -> float:
        settings = self._settings
        signed = register - 2 * _SIGN_BIT if register & _SIGN_BIT else register
        value = signed * settings.degrees_per_step
        if not settings.lowest_celsius <= value <= settings.highest_celsius:
            raise ThermometerError(f"{settings.address}: {value:.1f} °C is no temperature; is the probe broken?")
        return value

    async def _connected(self) -> "AsyncModbusTcpClient | AsyncModbusSerialClient":
        if self._client is None:
            self._client = _client(self._settings.address)
        if not self._client.connected and not await self._client.connect():
            raise ThermometerError(f"{self._settings.address} cannot be reached")
        return self._client

    def close(self) -> None:
        """Let go of the line."""
        if self._client is not None:
            self._client.close()
            self._client = None


def _client(address: str) -> "AsyncModbusTcpClient | AsyncModbusSerialClient":
    try:
        from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient  # noqa: PLC0415  # an optional extra
    except ModuleNotFoundError as error:
        raise ThermometerError("pymodbus is not installed: pip install 'gaoxin-fleet[edge-modbus]'") from error
    parts = urlsplit(address)
    if parts.scheme == "tcp":
        return AsyncModbusTcpClient(
            parts.hostname or "", port=parts.port or 502, timeout=ANSWER_S_MAX, retries=0, reconnect_delay=0
        )
    options: Mapping[str, list[str]] = parse_qs(parts.query)
    parity = {"none": "N", "even": "E", "odd": "O"}[options.get("parity", ["none"])[-1]]
    return AsyncModbusSerialClient(
        parts.path, baudrate=int(options.get("baud", ["9600"])[-1]), parity=parity, timeout=ANSWER_S_MAX, retries=0,
        reconnect_delay=0,
    )  # fmt: skip
