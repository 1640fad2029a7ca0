"""Identities of the boards, and the links between them and into the application."""

from typing import Final

from dashboards.drawings import Link
from dashboards.words import LINK

OVERVIEW_UID: Final = "fleet-overview"
OPERATIONS_UID: Final = "fleet-operations"
CARRIED: Final = "${datasource:queryparam}&${resolution:queryparam}&${__url_time_range}"
"""What every link between boards takes along: where the data is, how fine, and the time shown."""
ROW_DEVICE: Final = "${__data.fields.device_id}"
SERIES_DEVICE: Final = "${__field.labels.device_id}"


def uid_of(kind_name: str) -> str:
    """Fixed identity of a kind's board, so that links and a later publish find it again."""
    return f"fleet-{kind_name.replace('_', '-')}"


def device_uid_of(kind_name: str) -> str:
    """Fixed identity of the board of one device of the kind."""
    return f"fleet-device-{kind_name.replace('_', '-')}"


def to_device(kind_name: str, language: str, *, of_series: bool = False) -> tuple[Link, ...]:
    """From a row (or a series) of one device: to its board, and to its page in the application."""
    device = SERIES_DEVICE if of_series else ROW_DEVICE
    board = f"/d/{device_uid_of(kind_name)}?var-device={device}&{CARRIED}"
    return (Link(LINK["device"].in_language(language), board), to_application_device(language, device))


def to_application_device(language: str, device: str = ROW_DEVICE) -> Link:
    """The device's page in the application."""
    url = "${application:raw}/devices/" + device
    return Link(LINK["application_device"].in_language(language), url, blank=True)


def to_kind(kind_name: str, title: str) -> Link:
    """The board of a kind."""
    return Link(title, f"/d/{uid_of(kind_name)}?{CARRIED}")


def to_operations(language: str) -> Link:
    """The board of the platform."""
    return Link(LINK["operations"].in_language(language), f"/d/{OPERATIONS_UID}?{CARRIED}")


def to_application(page: str, language: str) -> Link:
    """A desk of the application: `alarms`, `calls` or `orders`."""
    return Link(LINK[f"application_{page}"].in_language(language), f"${{application:raw}}/{page}", blank=True)
