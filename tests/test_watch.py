"""`--watch`: what it sees of the sources."""

from __future__ import annotations

from pathlib import Path

import gevent

from geard.config import Capability, Config, JobServer
from geard.supervisor.watch import Watcher
from tests.support.waiting import DEADLINE_SECONDS


def test_a_change_is_seen_that_comes_just_as_other_sources_are_to_be_watched(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text("")
    configs = [
        Config(
            job_servers=(JobServer("nowhere"),),
            capabilities={"f": Capability(f"{name}.f")},
            python_path=(str(tmp_path / name),),
        )
        for name in ("one", "two")
    ]
    seen: set[str] = set()
    watcher = Watcher(str(tmp_path / "geard.yaml"), lambda paths: seen.update(Path(path).name for path in paths))
    watcher.configured(configs[0])
    try:
        with gevent.Timeout(DEADLINE_SECONDS):
            while not seen:
                (tmp_path / "first.py").write_text("")
                gevent.sleep(0.1)
            for number in range(5):
                watcher.configured(configs[(number + 1) % 2])
                name = f"change{number}.py"
                (tmp_path / name).write_text("")
                while name not in seen:
                    gevent.sleep(0.01)
    finally:
        watcher.close()
