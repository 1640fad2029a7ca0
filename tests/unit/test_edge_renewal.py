"""A certificate's way to its successor on the box: every step may be the last one before the power fails."""

import asyncio
import datetime as dt

import pytest

from cloud.identity import pki
from cloud.identity.pki_folder import PkiFolder
from edge import keys
from edge.identity import facts_of
from edge.link import LinkError
from edge.renewal import PROOFS_FAILED_MAX, Renewal, TryNewCertificateError
from fleet.credentials import (
    CertificateGrant,
    CertificateRefusal,
    decode_certificate_request,
    encode_credentials,
)
from fleet.topics import UpChannel

NOW = dt.datetime(2027, 1, 15, tzinfo=dt.UTC)
DAY_S = 86_400


class Clock:
    def __init__(self):
        self.s = 0.0

    def monotonic_s(self):
        return self.s


class PowerCutError(Exception):
    """The process is gone."""


class Session:
    def __init__(self):
        self.sent = []

    async def publish(self, channel, payload):
        assert channel is UpChannel.CERTIFICATE
        self.sent.append(decode_certificate_request(payload))


class Site:
    """A box's folder and the authority that answers it."""

    def __init__(self, folder):
        self.pki = PkiFolder(folder / "pki")
        self.pki.initialise(NOW)
        self.file = folder / "device.pem"
        self.authority = self.pki.root_file("services")
        issued = self.pki.device_authority().issue_client("bike-001", NOW)
        keys.write_whole(self.file, issued.key + issued.certificate)
        self.first = facts_of(self.file).serial
        self.clock = Clock()
        self.trusted = NOW + dt.timedelta(days=61)

    def box(self):
        return Renewal("bike-001", self.file, self.authority, self.clock)

    def answer(self, request, device_id="bike-001"):
        issued = self.pki.device_authority().sign(request.request.encode(), device_id, self.trusted)
        key = pki.requested_key(request.request.encode())
        fingerprint = keys._fingerprint(key)
        return encode_credentials(CertificateGrant(fingerprint, issued.chain.decode()))

    async def session(self, box, *, welcomed=True, busy=False, session=None):
        """One connection: which serial it used, what was asked, how it ended."""
        session = session or Session()
        box.tls()
        used = box.certificate
        running = asyncio.create_task(box.run(session, lambda: round(self.trusted.timestamp() * 1000), lambda: busy))
        if welcomed:
            box.welcomed()
        for _ in range(20):
            await asyncio.sleep(0)
        return used, session, running

    async def end(self, box, running):
        running.cancel()
        ended = (await asyncio.gather(running, return_exceptions=True))[0]
        box.ended()
        return ended


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


async def granted(site, box):
    """Up to where the new certificate lies beside the old one, and the connection is to be made anew."""
    _, session, running = await site.session(box)
    (request,) = session.sent
    box.on_answer(site.answer(request))
    ended = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(ended[0], TryNewCertificateError)
    box.ended()


async def test_a_new_pair_is_asked_for_tried_and_put_in_place_after_its_welcome(site):
    box = site.box()
    await granted(site, box)
    assert facts_of(site.file).serial == site.first, "the old one is in use until the new one proved itself"
    used, _, running = await site.session(box, welcomed=False)
    assert used != site.first
    box.welcomed()
    assert facts_of(site.file).serial == used == box.certificate
    assert not list(site.file.parent.glob("device.pem.*"))
    assert site.file.stat().st_mode & 0o777 == 0o600
    await site.end(box, running)


async def test_before_two_thirds_of_its_life_nothing_is_asked(site):
    site.trusted = NOW + dt.timedelta(days=59)
    _, session, running = await site.session(site.box())
    assert session.sent == []
    running.cancel()


async def test_without_the_clouds_time_nothing_is_asked(site):
    box, session = site.box(), Session()
    running = asyncio.create_task(box.run(session, lambda: None, lambda: False))
    await asyncio.sleep(0)
    assert session.sent == []
    running.cancel()


async def test_a_lost_answer_is_asked_for_again_with_the_same_key_also_after_a_restart(site):
    box = site.box()
    _, session, running = await site.session(box)
    await site.end(box, running)
    site.clock.s += 120
    again = site.box()
    _, second, running = await site.session(again)
    await site.end(again, running)
    first_key, second_key = (pki.requested_key(one.sent[0].request.encode()) for one in (session, second))
    assert first_key == second_key


async def test_a_new_certificate_that_fails_leaves_the_old_one_in_use_and_is_tried_later(site):
    box = site.box()
    await granted(site, box)
    serials = []
    for _ in range(4):
        used, _, running = await site.session(box, welcomed=False)
        if used == site.first:
            box.welcomed()
        await site.end(box, running)
        serials.append(used == site.first)
    assert serials == [False, True, True, True], "once, then the old one until it is tried again"
    site.clock.s += 700
    used, _, running = await site.session(box, welcomed=False)
    assert used != site.first
    await site.end(box, running)


async def test_a_new_certificate_that_never_works_is_discarded(site):
    box = site.box()
    await granted(site, box)
    for _ in range(PROOFS_FAILED_MAX):
        _, _, running = await site.session(box, welcomed=False)
        await site.end(box, running)
        used, _, running = await site.session(box)
        assert used == site.first
        await site.end(box, running)
        site.clock.s += 100_000
    assert not (site.file.parent / "device.pem.next").exists()
    assert facts_of(site.file).serial == site.first


async def test_without_a_network_both_take_turns_and_nothing_is_held_against_the_new_one(site):
    box = site.box()
    await granted(site, box)
    used = []
    for _ in range(6):
        box.tls()
        used.append(box.certificate == site.first)
        box.ended()
    assert used == [False, True, False, True, False, True]
    box.tls()
    box.welcomed()
    assert box.certificate != site.first


async def test_an_emergency_that_waits_keeps_the_connection(site):
    box = site.box()
    _, session, running = await site.session(box, busy=True)
    box.on_answer(site.answer(session.sent[0]))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.done()
    await site.end(box, running)


async def test_no_welcome_with_the_new_certificate_ends_the_attempt(site, monkeypatch):
    monkeypatch.setattr("edge.renewal.PROVE_WITHIN_S", 0.01)
    box = site.box()
    await granted(site, box)
    _, _, running = await site.session(box, welcomed=False)
    with pytest.raises(LinkError, match="no welcome"):
        await running


@pytest.mark.parametrize("what", ["another device", "another key", "rubbish", "refusal"])
async def test_an_answer_that_does_not_fit_changes_nothing(site, what, caplog):
    box = site.box()
    _, session, running = await site.session(box)
    request = session.sent[0]
    fingerprint = keys._fingerprint(pki.requested_key(request.request.encode()))
    if what == "another device":
        box.on_answer(site.answer(request, "bike-002"))
    elif what == "another key":
        other = site.pki.device_authority().issue_client("bike-001", site.trusted).certificate.decode()
        box.on_answer(encode_credentials(CertificateGrant(fingerprint, other)))
    elif what == "rubbish":
        box.on_answer(b"{")
    else:
        box.on_answer(encode_credentials(CertificateRefusal(fingerprint, "ask an admin", 3600)))
        assert "ask an admin" in caplog.text
    assert not (site.file.parent / "device.pem.next").exists()
    box.tls()
    assert box.certificate == site.first
    await site.end(box, running)


@pytest.mark.parametrize("cut_at", range(1, 7))
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
async def test_whatever_step_the_power_fails_at_the_box_comes_back_and_finishes(site, monkeypatch, cut_at, after):
    with monkeypatch.context() as patched:
        steps = []

        def wrap(real):
            def change(*arguments, **keywords):
                steps.append(arguments)
                mine = len(steps)
                if mine == cut_at and not after:
                    raise PowerCutError
                real(*arguments, **keywords)
                if mine == cut_at and after:
                    raise PowerCutError

            return change

        for name in ("write_whole", "rename", "remove"):
            patched.setattr(keys, name, wrap(getattr(keys, name)))
        cut = False
        try:
            await renew_once(site)
        except PowerCutError:
            cut = True
    assert cut, "every step of the way is cut once"
    assert len(steps) <= 6, "a new step needs a new cut"
    site.clock.s += 10_000
    box = site.box()
    assert box.certificate in {site.first, facts_of(site.file).serial}
    if facts_of(site.file).serial == site.first:
        await renew_once(site)
    assert facts_of(site.file).serial != site.first
    assert not list(site.file.parent.glob("device.pem.*"))


async def renew_once(site):
    """The whole way in one process that starts now."""
    box = site.box()
    for _ in range(3):
        _, session, running = await site.session(box)
        if running.done():
            error = running.exception()
            if isinstance(error, PowerCutError):
                raise error
        if session.sent:
            box.on_answer(site.answer(session.sent[0]))
        await site.end(box, running)
        site.clock.s += 10_000
        if facts_of(site.file).serial != site.first:
            return
