"""A client of many job servers that are real gearmands, and of some behind TLS."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from geard import Client, ConnectionLost, Handle, JobServer, JobTimeout
from geard.client.choice import Choose
from tests.support.raw_worker import RawWorker, reverse
from tests.support.servers import Embedded, Gearmand, JobServerProcess
from tests.support.tls import Certificates, Stunnel
from tests.support.waiting import eventually
from tests.test_client_many import BOTH, connect


def places(handles: list[str]) -> Counter[str]:
    return Counter(str(handle.server) for handle in handles if isinstance(handle, Handle))


def meet(one: Client, other: Client, jobs: list[str]) -> Counter[str]:
    """Where each of two clients submits the same jobs to; equal ones have become one."""
    both = [[client.submit_background("idle", "", unique=job) for job in jobs] for client in (one, other)]
    assert both[0] == both[1]
    assert places(both[0]) == places(both[1])
    return places(both[0])


def test_a_fleet_of_gearmands_shares_and_one_more_gets_its_share() -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Gearmand()) for _ in range(3)]
        for server in servers:
            stack.enter_context(RawWorker(server.address, {"reverse": reverse}))
        first, second, third = [server.address for server in servers]
        spread = stack.enter_context(Client([first, second], choose="spread"))
        one = stack.enter_context(Client([first, second], choose="unique"))
        other = stack.enter_context(Client([second, first], choose="unique"))
        connect(spread, 2)
        jobs = [str(number) for number in range(60)]
        assert places([spread.submit_background("idle", job) for job in jobs]) == {first: 30, second: 30}
        assert list(spread.map("reverse", jobs)) == [job[::-1] for job in jobs]
        assert meet(one, other, jobs).keys() == {first, second}
        for client in (spread, one, other):
            client.set_servers([third, first, second])
        connect(spread, 3)
        assert places([spread.submit_background("idle", job) for job in jobs])[third] >= 15
        new = meet(one, other, [f"new {job}" for job in jobs])
        assert new.keys() == {first, second, third}
        # A job that was there before moves only to the newcomer.
        moved = [one.submit_background("idle", "", unique=job) for job in jobs]
        assert places(moved)[third] < 60
        known = sum(server.status("idle")[0] for server in servers)
        assert known == 60 + 60 + 60 + 60 + places(moved)[third]


@BOTH
def test_one_of_two_gearmands_is_killed_and_comes_back(choose: Choose) -> None:
    with (
        Gearmand() as steady,
        Gearmand() as killed,
        Client([steady.address, killed.address], choose=choose) as client,
    ):
        connect(client, 2)
        jobs = [f"{number}" for number in range(40)]
        handles = [client.submit_background("idle", "", unique=job) for job in jobs]
        assert places(handles).keys() == {steady.address, killed.address}
        task = next(
            task
            for task in (client.submit("nobody", "", unique=job) for job in jobs)
            if isinstance(task.handle, Handle) and str(task.handle.server) == killed.address
        )
        killed.kill()
        with pytest.raises(ConnectionLost) as caught:
            task.result(30)
        assert caught.value.job_created
        outcomes: Counter[object] = Counter()
        for job in jobs:
            try:
                handle = client.submit_background("idle", "", unique=f"then {job}")
            except ConnectionLost as error:
                outcomes[error.job_created] += 1
            else:
                assert places([handle]).keys() == {steady.address}
        assert not outcomes  # the task has told that it is lost: nothing was sent there
        lost = next(handle for handle in handles if killed.address in places([handle]))
        with pytest.raises(ConnectionLost):
            client.status(lost)
        killed.start()
        eventually(
            lambda: (
                killed.address in places([client.submit_background("idle", "", unique=f"back {job}") for job in jobs])
            )
        )


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def backends() -> Iterator[list[JobServerProcess]]:
    with Gearmand() as one, Embedded() as two, Gearmand() as plain:
        yield [one, two, plain]


def config(path: Path, servers: list[JobServer]) -> Path:
    """A config file that names them."""
    named = [
        {
            "host": server.host,
            "port": server.port,
            "tls": {key: getattr(server.tls, key) for key in ("ca", "certificate", "key")},
        }
        if server.tls
        else str(server)
        for server in servers
    ]
    path.write_text(yaml.safe_dump({"job_servers": named, "capabilities": {"f": "${GEARD_NO_SUCH_SECRET}"}}))
    return path


@BOTH
def test_tls_and_plain_ones_in_one_client_and_one_is_killed(
    choose: Choose, certificates: Certificates, backends: list[JobServerProcess], tmp_path: Path
) -> None:
    function, idle = f"reverse {choose}", f"idle {choose}"
    with contextlib.ExitStack() as stack:
        for backend in backends:
            stack.enter_context(RawWorker(backend.address, {function: reverse}))
        tunnels = [stack.enter_context(Stunnel(certificates, backend.address)) for backend in backends[:2]]
        servers = [tunnel.server(certificates.tls()) for tunnel in tunnels]
        servers.append(JobServer("127.0.0.1", backends[2].port))
        path = config(tmp_path / "geard.yaml", servers)
        client = stack.enter_context(Client.from_config(path, choose=choose, encoding="bytes"))
        connect(client, 3)
        jobs = [b"%d" % number for number in range(100)]
        assert list(client.map(function, jobs, concurrency=10)) == [job[::-1] for job in jobs]
        large = bytes(5_000_000)
        assert list(client.map(function, [large] * 3, unique="workload")) == [large] * 3
        many = list(client.submit_many_background(idle, jobs, unique="workload"))
        assert places(many).keys() == {str(server) for server in servers}
        for handle in many[:20]:
            assert client.status(handle).known
        task = client.submit(function, b"ab")
        assert task.result(30) == b"ba"
        dead = str(servers[0])
        waiting = [client.submit("nobody", b"", unique=f"{choose} {number}") for number in range(30)]
        process = tunnels[0]._process
        assert process is not None
        process.kill()
        outcomes = [outcome for _, outcome in client.map(function, jobs, pairs=True)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, ConnectionLost)]
        assert all(error.job_created is not True or dead in str(error) for error in lost)
        assert [outcome for outcome in outcomes if outcome not in lost] == [
            job[::-1] for job, outcome in zip(jobs, outcomes, strict=True) if outcome not in lost
        ]
        for each in waiting:
            gone = isinstance(each.handle, Handle) and str(each.handle.server) == dead
            with pytest.raises(ConnectionLost if gone else JobTimeout):
                each.result(10 if gone else 0.001)
        left = list(client.submit_many_background(idle, jobs))
        assert places(left).keys() == {str(server) for server in servers[1:]}
