"""Time that nobody set: what a jump of our own clock must not change."""

import pytest

from cloud.ingest.steady import BELIEVED_AFTER_S, SteadyTime

NOW_MS = 1_800_000_000_000
YEARS_MS = 10 * 365 * 86_400_000


class Clock:
    def __init__(self, speed=1.0):
        self.speed = speed
        self.real_s = 100.0
        self.jump_ms = 0

    def monotonic_s(self):
        return self.real_s

    def now_ms(self):
        return NOW_MS + round((self.real_s - 100.0) * 1000 * self.speed) + self.jump_ms


@pytest.mark.parametrize("speed", [1.0, 10.0])
@pytest.mark.parametrize("jump_ms", [-YEARS_MS, -3_600_000, 3_600_000, YEARS_MS])
def test_a_jump_does_not_move_it_until_it_has_stood_for_an_hour(speed, jump_ms):
    clock = Clock(speed)
    steady = SteadyTime(clock)
    assert steady.at(clock.now_ms()) == NOW_MS
    clock.jump_ms = jump_ms
    clock.real_s += BELIEVED_AFTER_S / 2
    assert steady.at(clock.now_ms()) == clock.now_ms() - jump_ms
    clock.real_s += BELIEVED_AFTER_S - 1
    assert steady.at(clock.now_ms()) == clock.now_ms() - jump_ms
    clock.real_s += 2
    assert steady.at(clock.now_ms()) == clock.now_ms()
    clock.real_s += 1
    assert steady.at(clock.now_ms()) == clock.now_ms()


def test_a_jump_that_is_taken_back_leaves_no_trace():
    clock = Clock()
    steady = SteadyTime(clock)
    steady.at(clock.now_ms())
    for _ in range(3):
        clock.jump_ms, clock.real_s = 3_600_000, clock.real_s + BELIEVED_AFTER_S / 2
        assert steady.at(clock.now_ms()) == clock.now_ms() - 3_600_000
        clock.jump_ms, clock.real_s = 0, clock.real_s + 1
        assert steady.at(clock.now_ms()) == clock.now_ms()


def test_slow_corrections_of_the_clock_are_followed():
    clock = Clock()
    steady = SteadyTime(clock)
    for _ in range(200):
        clock.jump_ms, clock.real_s = clock.jump_ms + 100, clock.real_s + 1
        assert steady.at(clock.now_ms()) == clock.now_ms()
