"""The people of a demo: employees who ride and eat, the crew that answers calls and works orders; all over HTTP."""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from cloud.members.seed import DemoPerson
from fleet.clock import Clock

RETRY_S: Final = 0.5
OUTCOME_WAIT_S: Final = 30.0
ORDERS_PER_PAGE: Final = 500
LOOK_S_MIN: Final = 1.0
"""Real seconds at least between two looks of one member of the crew at the list of work."""
TRAVEL_S: Final = (120.0, 420.0)
ON_SITE_S: Final = (180.0, 480.0)
_BEGUN: Final = ("in_progress", "travelling", "accepted", "assigned")


@dataclass
class Tally:
    """What the people asked for and what they got, as they saw it."""

    unlocks_asked: int = 0
    unlocks_opened: int = 0
    unlock_ms: list[float] = field(default_factory=list)
    unlock_refusals: dict[str, int] = field(default_factory=dict)
    rides: list[str] = field(default_factory=list)
    sales_asked: int = 0
    purchases: list[str] = field(default_factory=list)
    sale_refusals: dict[str, int] = field(default_factory=dict)
    calls_acknowledged: int = 0
    orders_done: int = 0


class ApiError(Exception):
    """The API said no; `code` is its stable word."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class Client:
    """One signed-in person. Survives a restart of the cloud: requests that got no answer are asked again."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, person: DemoPerson) -> None:
        self._session = session
        self._base_url = base_url
        self._person = person
        self._token = ""

    async def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """JSON answer; raises ApiError for 4xx and 5xx."""
        while True:
            if not self._token:
                await self.sign_in()
            try:
                return await self._once(
                    method, path, body, {"Authorization": f"Bearer {self._token}", **(headers or {})}
                )
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                await asyncio.sleep(RETRY_S)

    async def text(self, path: str) -> str:
        """Text answer of a GET; raises ApiError."""
        if not self._token:
            await self.sign_in()
        headers = {"Authorization": f"Bearer {self._token}"}
        while True:
            try:
                async with self._session.get(self._base_url + path, headers=headers) as response:
                    if response.status >= 400:
                        raise ApiError(response.status, "")
                    return await response.text()
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                await asyncio.sleep(RETRY_S)

    async def sign_in(self) -> None:
        """Take a session; waits while the cloud is away."""
        body = {"login": self._person.login, "password": self._person.password}
        while not self._token:
            try:
                answer = await self._once("POST", "/api/v1/session", body, {})
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                await asyncio.sleep(RETRY_S)
                continue
            self._token = str(answer["token"])

    async def _once(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        url = self._base_url + path
        async with self._session.request(method, url, json=body, headers=headers) as response:
            text = await response.text()
            content = json.loads(text) if text else None
            if response.status >= 400:
                raise ApiError(response.status, str((content or {}).get("code", "")))
            return content


async def ride(
    client: Client, bikes: Sequence[str], clock: Clock, rng: random.Random, every_s: float, tally: Tally
) -> None:
    """Unlock a bike, ride it until it is locked again, wait a while, for ever."""
    while True:
        await asyncio.sleep(rng.expovariate(1 / every_s) / clock.speed)
        started_s = time.monotonic()
        tally.unlocks_asked += 1
        try:
            found = await client.call("POST", "/api/v1/rides", {"device_id": rng.choice(bikes)})
        except ApiError as error:
            tally.unlock_refusals[error.code] = tally.unlock_refusals.get(error.code, 0) + 1
            continue
        tally.rides.append(found["id"])
        while found["state"] == "unlocking":
            found = await client.call("GET", f"/api/v1/rides/{found['id']}?wait_s=10&seen=unlocking")
        if found["state"] in {"riding", "ended"}:
            tally.unlocks_opened += 1
            tally.unlock_ms.append((time.monotonic() - started_s) * 1000)
        while found["state"] == "riding":
            found = await client.call("GET", f"/api/v1/rides/{found['id']}?wait_s=10&seen=riding")


async def eat(client: Client, clock: Clock, rng: random.Random, every_s: float, tally: Tally) -> None:
    """Buy a meal that is in stock, wait for it, be full for a while, for ever."""
    while True:
        await asyncio.sleep(rng.expovariate(1 / every_s) / clock.speed)
        found = await client.call("GET", "/api/v1/machines")
        machines = [machine for machine in found["machines"] if _choices(machine)]
        if not machines:
            continue
        machine = rng.choice(machines)
        tally.sales_asked += 1
        body = {"device_id": machine["device_id"], "sku": rng.choice(_choices(machine))}
        try:
            found = await client.call("POST", "/api/v1/purchases", body, {"Idempotency-Key": uuid.uuid4().hex})
        except ApiError as error:
            tally.sale_refusals[error.code] = tally.sale_refusals.get(error.code, 0) + 1
            continue
        tally.purchases.append(found["id"])
        while not found["final"]:
            found = await client.call("GET", f"/api/v1/purchases/{found['id']}?wait_s=10")


def _choices(machine: dict[str, Any]) -> list[str]:
    if machine["obstacle"]:
        return []
    return [str(meal["sku"]) for meal in machine["menu"] if meal["stock_count"] > 0]


async def answer_calls(
    client: Client, notified: Path, clock: Clock, rng: random.Random, reaction_s: tuple[float, float], tally: Tally
) -> None:
    """Acknowledge each call some time after the phone rang (the receiver's log), for ever."""
    position = 0
    known: set[str] = set()
    async with asyncio.TaskGroup() as group:
        while True:
            await asyncio.sleep(0.1)
            lines, position = new_lines(notified, position)
            for line in lines:
                notice = line.get("notification", line)
                reference = str(notice.get("reference", ""))
                if (
                    notice.get("kind_of") == "call"
                    and notice.get("facts", {}).get("state") == "calling"
                    and reference not in known
                ):
                    known.add(reference)
                    group.create_task(
                        _acknowledge(client, reference, rng.uniform(*reaction_s) / clock.speed, known, tally)
                    )


async def _acknowledge(client: Client, call_id: str, after_s: float, known: set[str], tally: Tally) -> None:
    await asyncio.sleep(after_s)
    try:
        await client.call("POST", f"/api/v1/calls/{call_id}/acknowledge")
        tally.calls_acknowledged += 1
    except ApiError as error:
        if error.status not in {404, 409}:  # cleared meanwhile, or somebody else was quicker
            raise
    known.discard(call_id)  # a further press in the same room pages again


async def do_orders(
    client: Client,
    codes: Mapping[str, str],
    clock: Clock,
    rng: random.Random,
    reaction_s: tuple[float, float],
    tally: Tally,
) -> None:
    """Work one's own orders one by one, what was begun first: accept, travel, scan, repair, complete; for ever."""
    while True:
        await asyncio.sleep(max(LOOK_S_MIN, rng.uniform(*reaction_s) / clock.speed))
        found = await client.call("GET", "/api/v1/work-orders/mine?limit=50")
        orders = sorted(
            (order for order in found["orders"] if order["state"] in _BEGUN), key=lambda one: _BEGUN.index(one["state"])
        )
        if not orders:
            continue
        try:
            await _do_order(client, orders[0], codes, clock, rng)
            tally.orders_done += 1
        except ApiError as error:
            if error.status not in {403, 404, 409}:  # it was cancelled, given to somebody else, or is done by hand
                raise


async def _do_order(
    client: Client, order: Mapping[str, Any], codes: Mapping[str, str], clock: Clock, rng: random.Random
) -> None:
    path = f"/api/v1/work-orders/{order['id']}"
    if order["state"] == "assigned":
        await client.call("POST", f"{path}/accept")
    if order["state"] in {"assigned", "accepted"}:
        await client.call("POST", f"{path}/travel")
    if order["state"] != "in_progress" or not order["proven"]:
        await asyncio.sleep(rng.uniform(*TRAVEL_S) / clock.speed)
        await client.call("POST", "/api/v1/work-orders/scan", {"code": codes[order["device_id"]]})
    await asyncio.sleep(rng.uniform(*ON_SITE_S) / clock.speed)
    await client.call("POST", f"{path}/complete")


async def count_orders(client: Client, skill: str) -> int:
    """How many orders there are for a skill, over or not, page by page; one that moved between pages counts once."""
    found: dict[str, str] = {}
    offset = 0
    while True:
        page = await client.call("GET", f"/api/v1/work-orders?open=false&limit={ORDERS_PER_PAGE}&offset={offset}")
        found |= {order["id"]: order["skill"] for order in page["orders"]}
        if len(page["orders"]) < ORDERS_PER_PAGE:
            return sum(order_skill == skill for order_skill in found.values())
        offset += ORDERS_PER_PAGE


def new_lines(path: Path, position: int) -> tuple[list[dict[str, Any]], int]:
    """Whole JSON lines of a growing file behind `position`, and the position to go on from."""
    if not path.exists():
        return [], position
    with path.open("rb") as file:
        file.seek(position)
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], position + len(whole)
