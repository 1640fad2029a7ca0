"""`cloud.ports.Link` over two connections: emergencies never wait behind anything else on the wire."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from cloud.adapters.mqtt.options import ReceiverOptions
from cloud.adapters.mqtt.receiver import MqttReceiver
from cloud.model import Downstream, Inbound
from cloud.ports import Wake
from fleet import topics
from fleet.randomness import Randomness
from fleet.topics import UpChannel

_ROUTINE: Final = (
    UpChannel.EVENT, UpChannel.TELEMETRY, UpChannel.REPLY, UpChannel.HELLO, UpChannel.STATUS, UpChannel.CERTIFICATE,
)  # fmt: skip
_TELEMETRY_SUFFIX: Final = f"/{UpChannel.TELEMETRY.value}"
_EMERGENCY_SUFFIX: Final = f"/{UpChannel.EMERGENCY.value}"


class BrokerLink:
    """Both connections of one ingester.

    Args:
        options: of the routine connection; `client_id` is its base name.
        batch_messages_max: size at which a routine batch is handed over at once.
        linger_s: longest time a routine batch of telemetry waits to fill up; anything else in it ends that.
    """

    def __init__(
        self, options: ReceiverOptions, randomness: Randomness, *, batch_messages_max: int, linger_s: float
    ) -> None:
        self._batch_messages_max = batch_messages_max
        self._linger_s = linger_s
        # A little less than the batch waits, so that its last read is in it.
        routine = replace(options, coalesce_few_s=0.9 * linger_s, patient_suffix=_TELEMETRY_SUFFIX)
        self.routine = MqttReceiver(routine, (), randomness)
        urgent = replace(options, client_id=f"{options.client_id}-emergency", coalesce_s=0.0, coalesce_few_s=0.0)
        self.emergency = MqttReceiver(urgent, (), randomness)
        self._waiting: dict[MqttReceiver, list[Inbound]] = {self.emergency: [], self.routine: []}
        self._taken = {self.emergency: asyncio.Event(), self.routine: asyncio.Event()}

    @property
    def connected(self) -> bool:
        """Whether both connections are up and subscribed."""
        return self.routine.connected and self.emergency.connected

    def take(self, messages_max: int) -> Sequence[Inbound]:
        """A batch that is ready: emergencies before the rest; empty without one."""
        for receiver, waiting in self._waiting.items():
            if waiting:
                batch, self._waiting[receiver] = waiting[:messages_max], waiting[messages_max:]
                if not self._waiting[receiver]:
                    self._taken[receiver].set()
                return batch
        return ()

    def acknowledge(self, messages: Sequence[Inbound]) -> None:
        """PUBACK a batch of `take` on the connection it came from."""
        if messages:
            urgent = messages[0].topic.endswith(_EMERGENCY_SUFFIX)
            (self.emergency if urgent else self.routine).acknowledge(messages)

    def publish(self, messages: Sequence[Downstream]) -> None:
        """Queue for the devices."""
        self.routine.publish(messages)

    async def run(self, on_ready: Wake, shards: Collection[int]) -> None:
        """Keep both connections; ends only by cancellation or an error, and may then be run for other shards.

        What was received and not taken is forgotten then: it was never acknowledged, so its devices send it again.
        """
        await self.emergency.set_filters([topics.up_filter(shard, UpChannel.EMERGENCY) for shard in shards])
        await self.routine.set_filters([topics.up_filter(shard, channel) for shard in shards for channel in _ROUTINE])
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.emergency.run())
                group.create_task(self.routine.run())
                group.create_task(self._announce_connection(on_ready))
                group.create_task(self._pump(self.emergency, 0.0, on_ready))
                group.create_task(self._pump(self.routine, self._linger_s, on_ready))
        finally:
            for receiver, waiting in self._waiting.items():
                waiting.clear()
                receiver.forget_received()

    async def _pump(self, receiver: MqttReceiver, linger_s: float, on_ready: Wake) -> None:
        taken = self._taken[receiver]
        while True:
            batch = await receiver.next_batch(self._batch_messages_max, linger_s)
            if not batch:
                continue
            taken.clear()
            self._waiting[receiver] = batch
            on_ready()
            await taken.wait()  # one batch at a time: what arrives meanwhile collects in the receiver

    async def _announce_connection(self, on_ready: Wake) -> None:
        while True:
            await self.emergency.wait_connected()
            await self.routine.wait_connected()
            on_ready()
            await asyncio.sleep(1.0)
