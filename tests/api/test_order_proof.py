"""Proof of work over HTTP: scans, photos, reasons, service levels, orders by hand, figures."""

import asyncio
import contextlib
import io
import random

import pytest
from PIL import Image
from sqlalchemy import select, update

from cloud import tables
from cloud.work_orders.photos import BYTES_MAX, PHOTOS_PER_ORDER_MAX, PhotoError, remade
from cloud.work_orders.upkeep import OrderKeeper
from fleet.incident import ALARM, AlarmEvent, AlarmState
from tests.api.duty_world import on_duty
from tests.unit.dispatch_cases import NOW, alarm_change, definition
from tests.web.world import NOW_MS, add_device

REPAIR = definition("fallen", skill="repair")
PATH = "/api/v1/work-orders"
MINUTE = 60_000


@pytest.fixture
async def duty(tmp_path):
    async with on_duty(tmp_path, {}) as world:
        add_device(world.world, "bike-001", "bike", latitude=38.86, longitude=121.52)
        yield world


async def order_of_alarm(duty, at=NOW):
    duty.plan(alarm_change(of=REPAIR, at=at))
    (order,) = (await duty.get(PATH))["orders"]
    return order["id"]


def later(duty, ms):
    duty.world.clock.advance(seconds=ms / 1000)


def add_crew(duty, person_id):
    duty.world.write(
        tables.person, id=person_id, login=person_id, name=person_id, role="crew", password_hash="", created_at=NOW
    )


def disable(duty, person_id):
    closed = update(tables.person).where(tables.person.c.id == person_id).values(disabled_at=NOW)
    duty.world.database.write_here(lambda tx: tx.execute(closed))


async def look(duty):
    return await duty.world.services.get(OrderKeeper).look()


async def code_of(duty, device_id="bike-001"):
    answer = await duty.clients["admin"].get(f"{PATH}/codes/{device_id}.svg")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
    codes = select(tables.device_code.c.code).where(tables.device_code.c.device_id == device_id)
    return duty.world.database.read_here(lambda tx: tx.scalar(codes))


def picture(size=(64, 48), form="JPEG", **more):
    written = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(written, form, **more)
    return written.getvalue()


async def upload(duty, order_id, data, role="crew"):
    return await duty.clients[role].post(f"{PATH}/{order_id}/photos", files={"photo": ("x.jpg", data, "image/jpeg")})


# --- scan and end ----------------------------------------------------------------------------------------------------


async def test_work_is_done_only_after_a_scan_on_site_and_the_device_must_be_normal_then(duty):
    order_id = await order_of_alarm(duty, at=duty.world.clock.now_ms())
    for act in ("accept", "travel", "start"):
        await duty.post(f"{PATH}/{order_id}/{act}")
    refused = await duty.post(f"{PATH}/{order_id}/complete", status=409)
    assert refused["code"] == "scan_first"
    assert "complete" not in (await duty.get(f"{PATH}/{order_id}"))["acts"]
    code = await code_of(duty)
    scanned = await duty.post(f"{PATH}/scan", {"code": f"https://fleet.example.org/scan/{code.lower()}"})
    assert [order["id"] for order in scanned["orders"]] == [order_id]
    done = await duty.post(f"{PATH}/{order_id}/complete")
    assert (done["state"], done["verified_at"]) == ("done", None)
    duty.plan(alarm_change(1, AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED, of=REPAIR, at=duty.world.clock.now_ms()))
    await look(duty)
    assert (await duty.get(f"{PATH}/{order_id}"))["verified_at"] == duty.world.clock.now_ms()


async def test_what_is_not_normal_in_time_is_opened_again_with_its_reason(duty):
    order_id = await order_of_alarm(duty, at=duty.world.clock.now_ms())
    await duty.post(f"{PATH}/scan", {"code": await code_of(duty)})
    await duty.post(f"{PATH}/{order_id}/complete")
    later(duty, 14 * MINUTE)
    await look(duty)
    assert (await duty.get(f"{PATH}/{order_id}"))["state"] == "done"
    later(duty, 2 * MINUTE)
    await look(duty)
    again = await duty.get(f"{PATH}/{order_id}")
    assert (again["state"], again["reopened"], again["proven"], again["assigned_to"]) == (
        "assigned", 1, False, "person-crew",
    )  # fmt: skip
    assert [step["reason"] for step in again["transitions"] if step["event"] == "reopen"] == ["not_normal"]
    told = duty.world.database.read_here(lambda tx: list(tx.scalars(select(tables.outbox.c.notification))))
    assert sum("not_normal" in one for one in told) >= 1


async def test_a_scan_says_that_one_accepted_travelled_and_began(duty):
    order_id = await order_of_alarm(duty)
    await duty.post(f"{PATH}/scan", {"code": await code_of(duty), "latitude": 38.8605, "longitude": 121.5203})
    found = await duty.get(f"{PATH}/{order_id}")
    assert (found["state"], found["proven"]) == ("in_progress", True)
    assert [step["event"] for step in found["transitions"]][-3:] == ["accept", "travel", "start"]


async def test_a_phone_that_is_elsewhere_is_refused_and_that_is_remembered(duty):
    order_id = await order_of_alarm(duty)
    refused = await duty.post(
        f"{PATH}/scan", {"code": await code_of(duty), "latitude": 38.87, "longitude": 121.52}, status=409
    )
    assert refused["code"] == "too_far"
    assert not (await duty.get(f"{PATH}/{order_id}"))["proven"]
    assert len(duty.audited("device.scan_refused")) == 1
    unknown = await duty.post(f"{PATH}/scan", {"code": "bike-001"}, status=404)
    assert unknown["code"] == "code_unknown"  # the device's own name proves nothing


async def test_the_code_of_a_retired_device_is_no_code_any_more(duty):
    code = await code_of(duty)
    retire(duty)
    assert (await duty.post(f"{PATH}/scan", {"code": code}, status=404))["code"] == "code_unknown"


def retire(duty):
    retired = update(tables.device).where(tables.device.c.device_id == "bike-001").values(retired_at=NOW_MS)
    duty.world.database.write_here(lambda tx: tx.execute(retired))


# --- photos and notes ------------------------------------------------------------------------------------------------


async def test_a_photo_is_kept_anew_encoded_without_metadata_for_the_crew_alone(duty):
    order_id = await order_of_alarm(duty)
    exif = Image.Exif()
    exif[0x010E] = "SECRETPLACE"
    data = picture((3000, 1000), exif=exif)
    assert b"SECRETPLACE" in data
    made = await upload(duty, order_id, data)
    assert made.status_code == 201, made.text
    photo = made.json()
    assert (photo["width"], photo["height"]) == (2048, 683)
    again = await upload(duty, order_id, data)
    assert again.json()["id"] == photo["id"]
    path = f"{PATH}/{order_id}/photos/{photo['id']}"
    for query, side in (("", 2048), ("?small=true", 320)):
        answer = await duty.clients["crew"].get(path + query)
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "filename" in answer.headers["content-disposition"]
        assert b"SECRETPLACE" not in answer.content
        assert max(Image.open(io.BytesIO(answer.content)).size) == side
    assert (await duty.clients["employee"].get(path)).status_code == 403
    assert (await duty.clients["nobody"].get(path)).status_code == 401
    assert (await duty.clients["crew"].get(f"{PATH}/other/photos/{photo['id']}")).status_code == 404
    assert [one["id"] for one in (await duty.get(f"{PATH}/{order_id}"))["photos"]] == [photo["id"]]


def a_bomb():
    """A small PNG that claims and holds 20,000 × 20,000 pixels."""
    written = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(written, "PNG")
    return written.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "photo_unreadable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", 422, "photo_unreadable"),
        (b"%PDF-1.7 nothing", 422, "photo_unreadable"),
        (picture()[:200], 422, "photo_unreadable"),
        (picture(form="GIF"), 422, "photo_unreadable"),
        (picture(form="TIFF"), 422, "photo_unreadable"),
        (a_bomb(), 422, "photo_too_many_pixels"),
        (b"\xff\xd8" + bytes(BYTES_MAX), 413, "photo_too_large"),
    ],
    ids=["empty", "svg", "pdf", "cut", "gif", "tiff", "bomb", "large"],
)
async def test_what_is_no_photo_is_refused(duty, data, status, code):
    order_id = await order_of_alarm(duty)
    answer = await upload(duty, order_id, data)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await duty.get(f"{PATH}/{order_id}"))["photos"] == []


async def test_a_phones_photo_with_a_second_picture_behind_it_is_taken(duty):
    order_id = await order_of_alarm(duty)
    map_of_light = [Image.new("RGB", (32, 24))]
    made = await upload(duty, order_id, picture(form="MPO", save_all=True, append_images=map_of_light))
    assert (made.status_code, made.json()["width"]) == (201, 64)


async def test_a_photo_sent_twice_at_the_same_moment_is_kept_once(duty):
    order_id = await order_of_alarm(duty)
    answers = await asyncio.gather(*(upload(duty, order_id, picture((1600, 1200))) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len((await duty.get(f"{PATH}/{order_id}"))["photos"]) == 1


async def test_a_photo_beyond_the_last_leaves_nothing_on_the_disk(duty, tmp_path):
    order_id = await order_of_alarm(duty)
    for side in range(PHOTOS_PER_ORDER_MAX):
        assert (await upload(duty, order_id, picture((40 + side, 40)))).status_code == 201
    before = sorted(tmp_path.rglob("*.jpg"))
    refused = await upload(duty, order_id, picture((200, 200)))
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_photos")
    assert before
    assert sorted(tmp_path.rglob("*.jpg")) == before


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whatever_is_wrong_with_a_picture_is_a_refusal():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8769] = 6, "words", {0x9003: "2026"}
    whole = [picture(form=form, exif=exif) for form in ("JPEG", "PNG", "WEBP")]
    chance = random.Random(7)
    for _ in range(600):
        broken = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        with contextlib.suppress(PhotoError):
            remade(bytes(broken))


async def test_work_that_goes_to_somebody_else_is_proven_anew(duty):
    order_id = await order_of_alarm(duty)
    code = await code_of(duty)
    await duty.post(f"{PATH}/scan", {"code": code})
    assert (await duty.get(f"{PATH}/{order_id}"))["proven"]
    await duty.post(f"{PATH}/{order_id}/hold", {"reason": "end_of_shift", "note": "明天继续"})
    add_crew(duty, "person-wu")
    disable(duty, "person-crew")
    await duty.post(f"{PATH}/{order_id}/resume", role="admin")
    found = await duty.get(f"{PATH}/{order_id}", role="admin")
    assert (found["state"], found["assigned_to"], found["proven"]) == ("assigned", "person-wu", False)


async def test_only_photos_may_be_large(duty):
    order_id = await order_of_alarm(duty)
    body = {"photo": ("x.png", bytes(2_000_000), "image/png")}
    assert (await duty.clients["crew"].post(f"{PATH}/{order_id}/notes", files=body)).status_code == 413
    assert (await duty.clients["crew"].post(f"{PATH}/{order_id}/photos", files=body)).status_code == 422
    far = {"photo": ("x.png", bytes(BYTES_MAX + 100_000), "image/png")}
    assert (await duty.clients["crew"].post(f"{PATH}/{order_id}/photos", files=far)).status_code == 413


async def test_notes_are_kept_in_order(duty):
    order_id = await order_of_alarm(duty)
    for text in ("钥匙在前台", "second"):
        await duty.post(f"{PATH}/{order_id}/notes", {"text": text}, status=201)
    notes = (await duty.get(f"{PATH}/{order_id}"))["notes"]
    assert [(note["text"], note["author_name"]) for note in notes] == [("钥匙在前台", "李师傅"), ("second", "李师傅")]


# --- reasons, clock, priority ----------------------------------------------------------------------------------------


async def test_where_work_stops_a_reason_and_words_are_needed(duty):
    order_id = await order_of_alarm(duty)
    for body in (
        {},
        {"note": "x"},
        {"reason": "waiting_part"},
        {"reason": "bored", "note": "x"},
        {"reason": "waiting_part", "note": " "},
    ):
        refused = await duty.post(f"{PATH}/{order_id}/hold", body, status=422)
        assert refused["code"] == "reason_needed"
    await duty.post(f"{PATH}/{order_id}/hold", {"reason": "waiting_part", "note": "ordered"})
    found = await duty.get(f"{PATH}/{order_id}")
    assert (found["transitions"][-1]["reason"], found["paused"]) == ("waiting_part", True)


@pytest.mark.parametrize(("reason", "stands"), [("other_work", False), ("waiting_part", True)])
async def test_the_clock_stands_still_only_for_reasons_that_allow_it(duty, reason, stands):
    order_id = await order_of_alarm(duty, at=duty.world.clock.now_ms())
    before = await duty.get(f"{PATH}/{order_id}")
    await duty.post(f"{PATH}/{order_id}/hold", {"reason": reason, "note": "x"})
    later(duty, 30 * MINUTE)
    await look(duty)
    held = await duty.get(f"{PATH}/{order_id}")
    assert (held["paused"], held["overdue"]) == (stands, not stands)
    resumed = await duty.post(f"{PATH}/{order_id}/resume")
    assert resumed["due_at"] - before["due_at"] == (30 * MINUTE if stands else 0)


async def test_another_priority_brings_its_service_level_and_the_clock_runs_on(duty):
    made = await duty.post(
        PATH, {"device_id": "bike-001", "skill": "repair", "title": "Saddle"}, role="admin", status=201
    )
    begin = made["created_at"]
    assert [stage["by"] - begin for stage in made["stages"]] == [60 * MINUTE, 240 * MINUTE, 1440 * MINUTE]
    later(duty, 20 * MINUTE)
    body = {"priority": "high", "note": "a visit"}
    raised = await duty.post(f"{PATH}/{made['id']}/priority", body, role="admin")
    assert [stage["by"] - begin for stage in raised["stages"]] == [15 * MINUTE, 60 * MINUTE, 240 * MINUTE]
    assert raised["overdue"]  # 20 minutes have gone: the clock did not begin anew
    await duty.post(f"{PATH}/{made['id']}/priority", body, role="crew", status=403)


# --- orders by hand, figures -----------------------------------------------------------------------------------------


async def test_an_order_by_hand_is_made_once_per_key_and_given_out(duty):
    body = {"device_id": "bike-001", "skill": "repair", "title": "Saddle", "items": {"saddle": 1}, "key": "k1"}
    first = await duty.post(PATH, body, role="admin", status=201)
    again = await duty.post(PATH, body, role="admin", status=201)
    assert (first["id"], first["state"], first["assigned_to"]) == (again["id"], "assigned", "person-crew")
    assert len(duty.audited("work_order.make")) == 1
    await duty.post(PATH, body, role="crew", status=403)


async def test_an_order_for_a_retired_device_is_refused_and_that_is_remembered(duty):
    retire(duty)
    body = {"device_id": "bike-001", "skill": "repair", "title": "Saddle"}
    refused = await duty.post(PATH, body, role="admin", status=409)
    assert (refused["code"], "bike-001" in refused["detail"]) == ("retired", True)
    ((actor, _, detail),) = duty.audited("work_order.refused")
    assert actor == "person-admin"
    assert "device_retired" in detail
    await duty.post(PATH, {**body, "device_id": "bike-999"}, role="admin", status=404)
    duty.plan(alarm_change(of=REPAIR))  # nor does an alarm send anybody there
    duty.plan(alarm_change(of=REPAIR))
    assert (await duty.get(PATH))["total"] == 0
    assert len(duty.audited("work_order.refused")) == 2


async def test_figures_are_those_of_the_work(duty):
    start = duty.world.clock.now_ms()
    order_id = await order_of_alarm(duty, at=start)
    later(duty, 2 * MINUTE)
    await duty.post(f"{PATH}/{order_id}/accept")
    later(duty, 4 * MINUTE)
    await duty.post(f"{PATH}/scan", {"code": await code_of(duty)})
    later(duty, 3 * MINUTE)
    await duty.post(f"{PATH}/{order_id}/complete")
    total = (await duty.get(f"{PATH}/kpi"))["total"]
    assert [total[stage]["median_minutes"] for stage in ("acknowledged", "on_site", "fixed")] == [2, 6, 9]
    assert (total["made"], total["done"], total["first_time_fix"], total["repeat_faults"], total["sla_kept"]) == (
        1, 1, 1.0, 0, 1.0,
    )  # fmt: skip
    returned = alarm_change(1, AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED, of=REPAIR, at=start + 10 * MINUTE)
    duty.plan(returned)
    duty.plan(alarm_change(2, of=REPAIR, at=start + 60 * MINUTE).__class__(
        "alarm-fallen-2", "bike-001", "bike", REPAIR, AlarmEvent.ACTIVATE, AlarmState.NORMAL,
        ALARM.next(AlarmState.NORMAL, AlarmEvent.ACTIVATE), start + 60 * MINUTE,
    ))  # fmt: skip
    later(duty, 60 * MINUTE)
    (line, *_) = (await duty.get(f"{PATH}/kpi"))["lines"]
    assert (line["skill"], line["made"], line["repeat_faults"]) == ("repair", 2, 1)


async def test_rounds_and_pick_lists_follow_from_the_work(duty):
    world = duty.world
    add_device(world, "meal-001", "meal_machine", latitude=38.87, longitude=121.53)
    for key, count in (("a", 12), ("b", 8)):
        body = {"device_id": "meal-001", "skill": "restock", "title": "R", "items": {"rice": count}, "key": key}
        await duty.post(PATH, body, role="admin", status=201)
    planned = await duty.post("/api/v1/planning", role="admin")
    (one,) = planned["rounds"]
    assert (one["person_id"], len(one["stops"]), planned["unassigned"]) == ("person-crew", 2, {})
    assert one["stops"][0]["arrives_at"] < one["stops"][1]["arrives_at"]
    picked = await duty.get("/api/v1/planning/pick-list")
    assert (picked["total"], len(picked["stops"])) == ({"rice": 20}, 2)
    await duty.post("/api/v1/planning", role="crew", status=403)
