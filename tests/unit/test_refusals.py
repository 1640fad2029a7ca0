"""Why something was set aside, in the words of the page's language."""

import pytest
from ingest_cases import BIKE, NOW_MS, YEAR_MS, ingest, lanes, one  # noqa: F401  # fixtures

from cloud.web.language import translations
from cloud.web.refusals import _SENTENCES, refusal


@pytest.fixture
def chinese():
    return translations("zh_CN")


def test_what_the_ingester_says_is_said_in_chinese(ingest, lanes, chinese):  # noqa: F811
    wrong_at = NOW_MS + YEAR_MS
    reasons = [
        one(ingest, BIKE.telemetry(2, wrong_at)).quarantined[0].reason,
        one(ingest, BIKE.telemetry(3, NOW_MS - YEAR_MS)).quarantined[0].reason,
    ]
    lanes[BIKE.device_id].retired = True
    reasons.append(one(ingest, BIKE.telemetry(4)).quarantined[0].reason)
    lanes[BIKE.device_id].retired, lanes[BIKE.device_id].revoked = False, True
    reasons.append(one(ingest, BIKE.telemetry(4)).quarantined[0].reason)
    for reason in reasons:
        assert any("一" <= letter <= "鿿" for letter in refusal(chinese, reason)), reason


def test_every_sentence_is_translated_and_others_stay_as_they_are(chinese):
    assert all(chinese.gettext(sentence) != sentence for _, sentence in _SENTENCES)
    assert refusal(chinese, "readings.0.speed: too large") == "readings.0.speed: too large"
