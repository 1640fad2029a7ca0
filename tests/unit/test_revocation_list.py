"""The revocation list: only complete lists take its name, entries are only added, and its age is everybody's matter."""

import asyncio
import datetime as dt
import os
import signal
import sys
import threading

import pytest
from cryptography import x509

from cloud.identity import revocation_list
from cloud.identity.authority import Revoked
from cloud.identity.pki_folder import PkiFolder
from cloud.identity.revocation_list import (
    FORGET_AFTER,
    CommandReload,
    RevocationKeeper,
    RevocationList,
    RevocationListError,
    SignalReload,
    problem_of,
    read_list,
)

NOW = dt.datetime(2027, 1, 15, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
SECOND = dt.timedelta(seconds=1)


class Told:
    """A broker that counts, and refuses while `broken`."""

    def __init__(self):
        self.count = 0
        self.broken = False

    async def __call__(self):
        if self.broken:
            raise RevocationListError("the broker was not told; start it")
        self.count += 1


@pytest.fixture
def folder(tmp_path):
    made = PkiFolder(tmp_path / "pki")
    made.initialise(NOW)
    return made


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def revocations(folder, told):
    return RevocationList(folder.device_authority, folder.revocation_file, told)


def serials(state):
    return {one.serial for one in state.revoked}


async def test_what_is_published_can_be_read_and_is_signed(folder, revocations, told):
    await revocations.publish([Revoked("ab12", NOW - DAY, "keyCompromise"), Revoked("7", NOW)], NOW)
    state = read_list(folder.revocation_file.read_bytes())
    assert [(one.serial, one.revoked_at, one.reason) for one in state.revoked] == [
        ("7", NOW, "unspecified"),
        ("ab12", NOW - DAY, "keyCompromise"),
    ]
    assert state.next_update == NOW + 7 * DAY
    assert told.count == 1
    signed = x509.load_pem_x509_crl(folder.revocation_file.read_bytes())
    assert signed.is_signature_valid(folder.device_authority().certificate.public_key())
    assert folder.revocation_file.stat().st_mode & 0o777 == 0o644


async def test_an_entry_stays_until_its_certificate_has_ended(revocations):
    await revocations.publish([Revoked("a", NOW)], NOW)
    assert serials(await revocations.publish([Revoked("b", NOW + DAY)], NOW + DAY)) == {"a", "b"}
    assert serials(await revocations.publish([], NOW + FORGET_AFTER - SECOND)) == {"a", "b"}
    assert serials(await revocations.publish([], NOW + FORGET_AFTER)) == {"b"}


async def test_each_list_is_newer_than_the_last_and_none_begins_in_the_future(revocations):
    begun = []
    for _ in range(5):  # all within one second, as when many devices are revoked at once
        state = await revocations.publish([], NOW)
        begun.append((state.this_update, state.number))
    assert begun == sorted(set(begun))
    assert begun[-1][0] <= NOW
    # A clock that was years ahead for a moment must not lock everybody out for years.
    await revocations.publish([], NOW + 4000 * DAY)
    assert (await revocations.publish([], NOW)).this_update <= NOW
    assert not problem_of(revocations.file, NOW)


async def test_a_broken_file_is_made_again_from_what_the_database_knows(folder, revocations):
    folder.revocation_file.write_bytes(b"garbage")
    assert serials(await revocations.publish([Revoked("a", NOW)], NOW)) == {"a"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no revocation list"),
        (b"garbage", "holds no revocation list"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "broken"),
    ],
    ids=["empty", "garbage", "truncated"],
)
def test_what_is_no_list_is_said_with_the_fix(folder, content, words):
    folder.revocation_file.write_bytes(content)
    problem = problem_of(folder.revocation_file, NOW)
    assert words in problem
    assert "fleet pki crl" in problem


async def test_age_future_and_absence_are_said_with_the_fix(folder, revocations):
    assert problem_of(folder.revocation_file, NOW) == ""
    assert "not refreshed for days" in problem_of(folder.revocation_file, NOW + 4 * DAY)
    assert "ended 3 days" in problem_of(folder.revocation_file, NOW + 10 * DAY)
    assert "correct the clock" in problem_of(folder.revocation_file, NOW - 3 * DAY)
    folder.revocation_file.unlink()
    assert "fleet pki crl" in problem_of(folder.revocation_file, NOW)
    for wrong in (NOW - 3 * DAY, NOW + 2 * DAY, NOW):
        assert revocations.due(wrong)


async def test_two_processes_never_take_back_what_the_other_revoked(folder, told):
    """Each with its own view of the folder; without the lock one would overwrite what the other just added."""
    lists = [RevocationList(folder.device_authority, folder.revocation_file, told) for _ in range(2)]

    def revoke(one, first):
        for number in range(15):
            one.write([Revoked(f"{first + number:x}", NOW)], NOW)

    threads = [threading.Thread(target=revoke, args=(one, 1 + index * 100)) for index, one in enumerate(lists)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(lists[0].state().revoked) == 30


async def test_a_full_disk_leaves_the_old_list_in_place(revocations, monkeypatch):
    await revocations.publish([Revoked("a", NOW)], NOW)
    before = revocations.file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cloud.identity.authority.os.fsync", full)
    with pytest.raises(RevocationListError, match="No space left"):
        await revocations.publish([Revoked("b", NOW)], NOW)
    assert revocations.file.read_bytes() == before


# --- how the broker is told --------------------------------------------------------------------------------------


async def test_a_signal_goes_to_the_process_in_the_file(tmp_path):
    heard = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, heard.set)
    try:
        (tmp_path / "pid").write_text(f"{os.getpid()}\n")
        await SignalReload(tmp_path / "pid")()
        async with asyncio.timeout(5):
            await heard.wait()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


@pytest.mark.parametrize("content", ["", "word", "999999999"])
async def test_a_broker_that_is_not_there_is_said(tmp_path, content):
    (tmp_path / "pid").write_text(content)
    with pytest.raises(RevocationListError, match="FLEET_BROKER_PID_FILE"):
        await SignalReload(tmp_path / "pid")()


async def test_a_command_runs_without_a_shell(tmp_path):
    marker = tmp_path / "a b; touch x"
    await CommandReload(f'{sys.executable} -c "import sys; open(sys.argv[1], chr(119))" "{marker}"')()
    assert [path.name for path in tmp_path.iterdir()] == ["a b; touch x"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"{sys.executable} -c \"import sys; sys.exit('no broker')\"", "no broker"),
        ("/no/such/command", "No such file"),
    ],
    ids=["fails", "missing"],
)
async def test_a_command_that_fails_names_the_setting(command, words):
    with pytest.raises(RevocationListError, match="FLEET_BROKER_RELOAD_COMMAND") as told:
        await CommandReload(command)()
    assert words in str(told.value)


async def test_a_command_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(revocation_list, "RELOAD_S_MAX", 0.1)
    with pytest.raises(RevocationListError, match="did not end"):
        await CommandReload(f'{sys.executable} -c "import time; time.sleep(60)"')()


# --- the daily refresh -------------------------------------------------------------------------------------------


class Days:
    """Real time that a test moves."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


async def test_the_keeper_brings_what_the_database_knows_and_says_what_fails(folder, revocations, told):
    days, rows = Days(), [Revoked("a", NOW)]

    async def source():
        return rows

    keeper = RevocationKeeper(revocations, source, days)
    await keeper.refresh()
    assert (keeper.problem(), keeper.entries()) == ("", 1.0)
    assert keeper.left_s() == 7 * 86_400
    told.broken = True
    rows.append(Revoked("b", NOW))
    await keeper.refresh()
    assert "was not told" in keeper.problem()
    assert keeper.entries() == 2.0, "written all the same"
    told.broken = False
    await keeper.refresh()
    assert keeper.problem() == ""
    days.now = NOW + 5 * DAY
    assert "fleet pki crl" in keeper.problem()
    folder.revocation_file.unlink()
    assert keeper.left_s() == 0.0


async def test_the_keeper_refreshes_daily_and_a_failure_every_minute(revocations, told, monkeypatch):
    days, looks = Days(), []

    async def source():
        return []

    class EndError(Exception):
        pass

    async def pass_time(_seconds):
        looks.append(told.count)
        if len(looks) > 60:
            raise EndError
        told.broken = 30 <= len(looks) < 33
        days.now += dt.timedelta(hours=1) if len(looks) != 30 else 25 * dt.timedelta(hours=1)

    monkeypatch.setattr("cloud.identity.revocation_list.asyncio.sleep", pass_time)
    with pytest.raises(EndError):
        await RevocationKeeper(revocations, source, days).run()
    assert looks[0] == 1, "at the start, so that the broker holds what the database holds"
    assert looks[23] == 1
    assert looks[24] == 2
    assert looks[30:33] == [2, 2, 2], "the broker could not be told"
    assert looks[33] == 3, "and was as soon as it could"


async def test_a_damaged_folder_is_said_and_does_not_end_the_process(folder, revocations):
    async def source():
        return []

    keeper = RevocationKeeper(revocations, source, Days())
    _, key_file = folder.online_files("devices")
    right = key_file.read_bytes()
    key_file.write_bytes(folder.online_files("services")[1].read_bytes())
    await keeper.refresh()
    assert "same backup" in keeper.problem()
    key_file.write_bytes(right)
    await keeper.refresh()
    assert keeper.problem() == ""


async def test_the_broker_is_told_of_a_list_that_a_command_wrote(folder, revocations, told, monkeypatch):
    """A new intermediate's list is written by `fleet pki`: without it the broker refuses every new certificate."""
    told_at = []

    async def source():
        return []

    async def sleep(_seconds):
        told_at.append(told.count)
        if len(told_at) == 2:
            folder.renew_intermediate("devices", NOW)
        if len(told_at) == 4:
            raise asyncio.CancelledError

    monkeypatch.setattr(revocation_list.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await RevocationKeeper(revocations, source, Days()).run()
    assert told_at == [1, 1, 2, 2]
