"""The device link over MQTT 5: a receiver of ours over the `mqtt5` codec, which does no I/O itself."""

from cloud.adapters.mqtt.options import LinkRefusedError, LinkStatistics, ReceiverOptions
from cloud.adapters.mqtt.receiver import MqttReceiver

__all__ = ["LinkRefusedError", "LinkStatistics", "MqttReceiver", "ReceiverOptions"]
