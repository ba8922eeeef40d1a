"""What the scheduler and the keeper of dead letters are told, whatever becomes of the configs that come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from geard.config import config_from
from geard.config.model import Config
from geard.deadletters.keep import load_keep
from geard.scheduler.states import load_plan
from geard.supervisor import companions
from geard.supervisor.companions import Companions


class FakeBeside:
    """Stands in for a process: what one that starts now would be told, and what one that runs was told."""

    pid = 1

    def __init__(self, name: str, command: object, *, first_line: Callable[[], bytes], on_line: object) -> None:
        self.name = name
        self.first_line = first_line
        self.told: list[bytes] = []
        self.runs = False

    def start(self) -> None:
        if not self.runs:
            self.runs = True
            self.told.append(self.first_line())

    def send_line(self, line: bytes) -> None:
        if self.runs:
            self.told.append(line)

    def stop(self) -> None:
        self.runs = False

    def close(self) -> None:
        self.runs = False


def config(every: str, **keys: Any) -> Config:
    schedules = {"s": {"function": "f", "every": every}} if every else {}
    return config_from({"capabilities": {"f": "geard.examples.reverse"}, "schedules": schedules, **keys})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeBeside]:
    made: list[FakeBeside] = []

    def make(*arguments: Any, **options: Any) -> FakeBeside:
        made.append(FakeBeside(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(companions, "Beside", make)
    return made


def serving(first: Config) -> Companions:
    """Those of a daemon that serves with this config."""
    beside = Companions(first, scheduled=lambda states: None, verbose=False)
    beside.needed_by(first)
    beside.configured(first)
    return beside


def test_a_scheduler_that_starts_again_after_a_refused_reload_goes_by_the_config_in_effect(
    made: list[FakeBeside],
) -> None:
    beside = serving(config("1h"))
    beside.needed_by(config("2h", dead_letters="refused.sqlite"))  # a worker process of a generation that failed
    scheduler, keeper = made
    assert load_plan(scheduler.first_line()).config == config("1h")
    beside.needed_by(config("1h", dead_letters="right.sqlite"))
    beside.configured(config("1h", dead_letters="right.sqlite"))
    assert [load_keep(line).letters.file.split("/")[-1] for line in (keeper.told[0], keeper.told[-1])] == [
        "refused.sqlite",
        "right.sqlite",
    ]
    beside.close()


def test_a_keeper_that_starts_again_keeps_the_letters_of_a_config_that_still_drains(made: list[FakeBeside]) -> None:
    beside = serving(config("", dead_letters="old.sqlite"))
    beside.configured(config(""))
    _, keeper = made
    assert keeper.runs
    assert load_keep(keeper.first_line()).letters.file.endswith("old.sqlite")
    beside.close()


def test_a_scheduler_is_told_that_there_are_no_schedules_any_more(made: list[FakeBeside]) -> None:
    beside = serving(config("1h"))
    beside.configured(config(""))
    scheduler, _ = made
    assert scheduler.runs
    assert load_plan(scheduler.told[-1]).config.schedules == {}
    beside.close()


def test_what_no_config_asks_for_does_not_run(made: list[FakeBeside]) -> None:
    beside = serving(config(""))
    assert not any(process.runs for process in made)
    beside.close()
