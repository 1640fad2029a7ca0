"""A whole installation on one PostgreSQL and one broker: a process per role, and a small simulated fleet."""

import datetime as dt
import json
import os
import random
import signal
import sqlite3
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict

import httpx
from sqlalchemy import func, select, text

from cli.broker import Broker, free_port
from cli.clock import real_now_ms
from cli.demo import people, verdict
from cli.demo.stage import fleet_of, make_identities, put_identity
from cli.processes import Child
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.device_commands.keys import public_key_of
from cloud.devices import repository as device_rows
from cloud.members.seed import seed_demo
from cloud.tables import event, gap, twin
from cloud.wallet.seed import seed_demo as fill_wallets
from fleet.topics import INGESTER_NAME

COUNTS = {"bike": 4, "meal_machine": 2, "nursing_room": 24}
SPEED = 10
PRESS_EVERY_BUSINESS_S = 6
START_S_MAX = 40


class Installation:
    """`with Installation(folder, url) as it:`; processes are started by name with `start`."""

    def __init__(self, folder, database_url):
        self.folder = folder
        self.origin_ms = real_now_ms()
        self.fleet = fleet_of(COUNTS, 1)
        tls = self._identify(dt.datetime.now(dt.UTC))
        self.broker = Broker(folder / "broker", tls=tls)
        self.database = SqlDatabase(database_url)
        self.receiver_file, receiver_port = folder / "notified.jsonl", free_port()
        self.key_file = folder / "command.key"
        self.environment = {
            "FLEET_DATABASE_URL": database_url,
            "FLEET_BROKER_PORT": str(self.broker.services_port),
            "FLEET_BROKER_PID_FILE": str(self.broker.pid_file),
            "FLEET_BROKER_CA_FILE": str(tls.services_root),
            "FLEET_BROKER_CERTIFICATE_FILE": str(folder / "identities" / f"{INGESTER_NAME}.pem"),
            "FLEET_BROKER_KEY_FILE": str(folder / "identities" / f"{INGESTER_NAME}.key"),
            "FLEET_PKI_DIRECTORY": str(folder / "pki"),
            "FLEET_COMMAND_KEY_FILE": str(self.key_file),
            "FLEET_WEBHOOK_URL": f"http://127.0.0.1:{receiver_port}/notify",
            "FLEET_WEBHOOK_ALLOW_PRIVATE": "true",
            "FLEET_CLOCK_SPEED": str(SPEED),
            "FLEET_CLOCK_ORIGIN_MS": str(self.origin_ms),
            "FLEET_LOG_LEVEL": "warning",
        }
        self.children = {}
        self.ports = {}
        self._add("receiver", ["receiver", str(receiver_port), str(self.receiver_file)], {})

    def __enter__(self):
        upgrade(str(self.environment["FLEET_DATABASE_URL"]))
        self.people = self.database.write_here(self._enrol)
        self.broker.start()
        self.children["receiver"].start()
        return self

    def __exit__(self, *_):
        for child in self.children.values():
            child.kill()  # how they end well is part of the tests; here it would only take time
            child.stop()
        self.broker.stop()
        self.database.close()

    def _identify(self, now):
        """Both domains, the cloud's and the devices' certificates, as in production."""
        pki, tls = make_identities(self.folder, [INGESTER_NAME], now)
        authority = pki.device_authority()
        for device_id in self.fleet:
            put_identity(self.folder / "identities", device_id, authority.issue_client(device_id, now))
        return tls

    def _enrol(self, tx):
        for device_id, (kind, site) in self.fleet.items():
            device_rows.add_device(
                tx, device_id=device_id, kind=kind, name=site.name, latitude=site.latitude, longitude=site.longitude,
                enrolled_at=self.origin_ms,
            )  # fmt: skip
        found = {person.role: person for person in seed_demo(tx, self.origin_ms, random.Random(1))}
        fill_wallets(tx, [person.id for person in found.values()], self.origin_ms, 50_000)
        return found

    # --- processes ---------------------------------------------------------------------------------------------

    def _add(self, name, arguments, environment):
        self.children[name] = Child(name, arguments, self.folder / f"{name}.log", environment)

    def serve(self, name, role, *options, directory=None):
        """Define and start one process of ours."""
        self.ports[name] = free_port()
        data = self.folder / (directory or "data")
        own = {"FLEET_DATA_DIRECTORY": str(data), "FLEET_HTTP_PORT": str(self.ports[name])}
        self._add(name, ["serve", "--role", role, *options], {**self.environment, **own})
        self.children[name].start()
        return data

    def simulate(self):
        """Start agents and hardware; a press in some room every 0.6 real seconds on average."""
        key_id, public_file = public_key_of(self.key_file, self.folder)
        arguments = [
            "sim", "--broker-port", str(self.broker.port), "--identities", str(self.folder / "identities"),
            "--authority", self.environment["FLEET_BROKER_CA_FILE"], "--command-key", str(public_file),
            "--command-key-id", key_id, "--directory", str(self.folder / "sim"), "--speed", str(SPEED),
            "--origin-ms", str(self.origin_ms), "--press-every-s", str(PRESS_EVERY_BUSINESS_S),
            "--connect-within-s", "0.5",
        ]  # fmt: skip
        for kind, count in COUNTS.items():
            arguments += ["--count", f"{kind}={count}"]
        self._add("sim", arguments, {})
        self.children["sim"].start()

    def stand_still(self):
        """The world stops; agents finish what they have."""
        os.kill(self.children["sim"].pid, signal.SIGUSR1)

    def check(self, name):
        """What `/readyz` of a process says about its parts; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/readyz", timeout=2) as answer:
                return json.load(answer)["checks"]
        except urllib.error.HTTPError as refusal:
            return json.load(refusal)["checks"]
        except OSError:
            return {}

    def is_ready(self, name):
        checks = self.check(name)
        return bool(checks) and set(checks.values()) == {"ok"}

    def wait(self, what, holds, limit_s=START_S_MAX):
        """Poll until `holds()` is true; returns its value."""
        deadline = time.monotonic() + limit_s
        while not (value := holds()):
            assert time.monotonic() < deadline, f"waited {limit_s} s in vain for {what}: {self._words()}"
            time.sleep(0.05)
        return value

    def _words(self):
        return "\n".join(f"{name}: {child.last_words(3)}" for name, child in self.children.items())

    # --- people ------------------------------------------------------------------------------------------------

    def sign_in(self, role, name="api"):
        person = self.people[role]
        client = httpx.Client(base_url=f"http://127.0.0.1:{self.ports[name]}", timeout=30)
        answer = client.post("/api/v1/session", json={"login": person.login, "password": person.password})
        assert answer.status_code in {200, 201}, answer.text
        client.headers["authorization"] = f"Bearer {answer.json()['token']}"
        return client

    # --- what is the case --------------------------------------------------------------------------------------

    def statistics(self):
        try:
            return json.loads((self.folder / "sim/statistics.json").read_text())
        except FileNotFoundError:
            return {}

    def connected(self):
        return self.statistics().get("connected", 0) >= len(self.fleet)

    def nothing_pending(self):
        return not any(self.statistics()["pending"].values())

    def truths(self):
        lines, _ = people.new_lines(self.folder / "sim/truth.jsonl", 0)
        return verdict.truths_of(lines, 1 << 62)

    def notices(self):
        return people.new_lines(self.receiver_file, 0)[0]

    def notified(self, since_s=0.0):
        """Event id of each notified press since then → real ms from the button's edge to the receiver's 2xx."""
        truths = self.truths()
        told = verdict.notified_presses(truths, self.notices())
        return {event_id: ms for event_id, ms in told.items() if truths.presses[event_id]["real_s"] >= since_s}

    def stored_events(self):
        rows = self.database.read_here(lambda tx: tx.execute(select(event.c.event_id, event.c.device_id)).all())
        return [{"event_id": row.event_id, "device_id": row.device_id} for row in rows]

    def marks(self):
        """Committed telemetry mark of each device."""
        rows = self.database.read_here(lambda tx: tx.execute(select(twin.c.device_id, twin.c.telemetry_seq)).all())
        return {row.device_id: row.telemetry_seq for row in rows}

    def gaps(self):
        return self.database.read_here(lambda tx: tx.scalar(select(func.count()).select_from(gap)))

    def owners(self):
        return self.database.read_here(
            lambda tx: Counter(tx.scalars(text("SELECT owner FROM shard_lease WHERE lease_until > 0 AND shard < 64")))
        )

    def in_series(self, *directories):
        """Telemetry message numbers of each device in the series of these ingesters together."""
        found = defaultdict(set)
        for directory in directories:
            connection = sqlite3.connect(f"file:{directory / 'series.db'}?mode=ro", uri=True)
            rows = connection.execute(
                "SELECT device_id, json_extract(fields, '$.message_seq') FROM point JOIN series ON id = series_id "
                "WHERE json_extract(fields, '$.message_seq') IS NOT NULL"
            )
            for device_id, seq in rows:
                found[device_id].add(seq)
            connection.close()
        return found

    def finish(self, *directories):
        """Let everything arrive, then compare; every kind of data on its own."""
        self.stand_still()
        truths = self.truths()

        def all_there():
            nonlocal truths
            truths = self.truths()
            return (
                self.nothing_pending()
                and not verdict.missing_events(truths, self.stored_events())
                and set(self.notified()) == set(truths.presses)
            )

        self.wait("everything to arrive", all_there, 30)
        stored = self.stored_events()
        assert verdict.doubled_events(set(truths.by_event_id), stored) == []
        assert len(truths.presses) > 5
        deliveries = Counter(notice["delivery_id"] for notice in self.notices())
        assert [name for name, count in deliveries.items() if count > 1] == []
        assert self.gaps() == 0  # no device had to declare telemetry lost

        def series_complete():
            found, marks = self.in_series(*directories), self.marks()
            return all(found[device_id] == set(range(1, mark + 1)) for device_id, mark in marks.items())

        self.wait("the series to hold exactly the messages up to the committed marks", series_complete, 20)
        assert min(self.marks().values()) > 0
