"""When a batch is handed over: telemetry waits for company, all else and what waited long enough does not."""

import asyncio

from mqtt5 import PubAckPacket, PublishPacket, QoS

from cloud.adapters.mqtt.connection import Connection
from cloud.adapters.mqtt.inbox import Inbox
from cloud.adapters.mqtt.options import LinkStatistics, ReceiverOptions

LONG_S = 3600.0
OPTIONS = ReceiverOptions(client_id="x", coalesce_s=LONG_S, coalesce_few_s=LONG_S, patient_suffix="/telemetry")


class Wire:
    """The transport of a connection, and the broker behind it."""

    def __init__(self, options=OPTIONS, pump=lambda: None, published=lambda _: None):
        self.inbox = Inbox()
        self.reading = True
        self.connection = Connection(
            1, options, self.inbox, statistics=LinkStatistics(), on_published=published, on_writable=pump
        )
        self.connection._transport = self

    def is_closing(self):
        return False

    def write(self, data):
        pass

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def deliver(self, data):
        buffer = self.connection.get_buffer(-1)
        buffer[: len(data)] = data
        self.connection.buffer_updated(len(data))

    def say(self, channel, number=1):
        packet = PublishPacket(f"f/1/d/up/{channel}", b"%d" % number, qos=QoS.AT_LEAST_ONCE, packet_id=number)
        self.deliver(packet.write())

    def end(self):
        self.connection.connection_lost(None)


async def is_handed_over(wire):
    task = asyncio.ensure_future(wire.inbox.next_batch(100, LONG_S))
    for _ in range(5):
        await asyncio.sleep(0)
    done = task.done()
    task.cancel()
    wire.end()
    return done


async def test_telemetry_after_a_silence_waits_for_company_and_reading_pauses():
    wire = Wire()
    wire.say("telemetry")
    assert not wire.reading
    assert not await is_handed_over(wire)


async def test_an_event_completes_the_batch_it_comes_in():
    wire = Wire()
    wire.say("telemetry", 1)
    wire.connection._end_coalescing()
    wire.connection._resumed_at -= 1.0
    wire.say("event", 2)
    assert await is_handed_over(wire)


async def test_what_was_read_before_an_event_stays_in_order_and_the_next_batch_waits_again():
    wire = Wire()
    wire.say("telemetry", 1)
    wire.connection._resumed_at -= 1.0
    wire.say("event", 2)
    batch = await wire.inbox.next_batch(100, LONG_S)
    assert [message.payload for message in batch] == [b"1", b"2"]
    wire.say("telemetry", 3)
    assert not await is_handed_over(wire)


async def test_an_event_beyond_the_size_of_a_batch_does_not_wait_in_the_next_one():
    wire = Wire()
    for number in range(1, 4):
        wire.say("telemetry", number)
    wire.say("event", 4)
    assert len(await wire.inbox.next_batch(3, LONG_S)) == 3
    assert await is_handed_over(wire)


async def test_telemetry_that_waited_in_the_socket_for_the_pause_waits_no_more():
    wire = Wire()
    wire.say("telemetry", 1)
    wire.connection._end_coalescing()
    assert wire.reading
    wire.say("telemetry", 2)
    assert await is_handed_over(wire)


async def test_many_bytes_make_a_batch_fill_up():
    wire = Wire(ReceiverOptions(client_id="x", coalesce_s=LONG_S, coalesce_few_s=LONG_S, few_bytes=10))
    wire.connection._end_coalescing()
    wire.say("telemetry")
    assert not await is_handed_over(wire)


async def test_the_answers_of_one_read_make_room_with_one_write():
    published, pumped = [], []
    wire = Wire(pump=lambda: pumped.append(len(published)), published=published.append)
    wire.deliver(b"".join(PubAckPacket(number).write() for number in range(1, 6)))
    assert len(published) == 5
    assert pumped == [5]
    wire.say("telemetry")
    assert pumped == [5]
    wire.end()
