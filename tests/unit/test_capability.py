"""From a dotted path to something that runs: what is found, how it is called, and what is told of what is not."""

from __future__ import annotations

import functools
import operator
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from geard.config import Capability, Config
from geard.errors import CapabilityError
from geard.worker.capability import bind, required_arguments, resolve_all
from geard.worker.importing import import_path, path_of


class Service:
    def method(self, workload: str) -> str:
        return workload

    def hands_on(self, job: object, workload: str) -> str:
        return workload

    @staticmethod
    def static(workload: str) -> str:
        return workload

    def __call__(self, job: object, workload: str) -> str:
        return workload


SERVICE = Service()
NOT_CALLABLE = 7


def one(workload: str) -> str:
    return workload


def two(job: object, workload: str) -> str:
    return workload


def one_with_default(workload: str, times: int = 2) -> str:
    return workload * times


def default_only(workload: str = "") -> str:
    return workload


def anything(*arguments: Any, **more: Any) -> None: ...


def none() -> None: ...


def three(a: int, b: int, c: int) -> None: ...


def keyword(workload: str, *, times: int) -> None: ...


def keyword_default(workload: str, *, times: int = 1) -> None: ...


async def asynchronous(workload: str) -> str:
    return workload


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (one, 1),
        (two, 2),
        (one_with_default, 1),
        (default_only, 1),
        (anything, 1),
        (keyword_default, 1),
        (SERVICE.method, 1),
        (SERVICE.hands_on, 2),
        (Service.static, 1),
        (SERVICE, 2),
        (functools.partial(two, None), 1),
        (functools.partial(three, 1), 2),
        (lambda workload: workload, 1),
        (asynchronous, 1),
        (len, 1),
        (operator.add, 2),
        (dict, 1),  # tells no signature
    ],
)
def test_the_convention_is_the_number_of_required_positional_arguments(
    function: Callable[..., Any], count: int
) -> None:
    assert required_arguments(function) == count


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (none, "none takes 0 required arguments\nexpected function(workload) or function(job, workload)"),
        (three, "three takes 3 required arguments\nexpected function(workload) or function(job, workload)"),
        (keyword, "keyword needs the keyword argument 'times'\nexpected function(workload) or"),
    ],
)
def test_what_cannot_be_called_so_is_refused_with_what_is_expected(function: Callable[..., Any], text: str) -> None:
    with pytest.raises(CapabilityError) as raised:
        required_arguments(function)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"{__name__}.one", one),
        (f"{__name__}:one", one),
        (f"{__name__}:SERVICE.method", SERVICE.method),
        (f"{__name__}:Service.static", Service.static),
        ("operator.add", operator.add),
    ],
)
def test_both_ways_to_write_a_path_find_the_function(path: str, found: object) -> None:
    assert import_path(path) == found


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("one", "'one' is not a dotted path: expected module.function or module:function"),
        ("", "'' is not a dotted path"),
        ("module:", "'module:' is not a dotted path"),
        ("no_such_module.f", "there is no module 'no_such_module'\nis its directory in python_path"),
        ("json.no_such_part.f", "there is no module 'json.no_such_part'"),
        ("json.lods", "module 'json' has no 'lods'\ndid you mean 'loads'?"),
        (f"{__name__}:SERVICE.methud", "has no 'SERVICE.methud'\ndid you mean 'method'?"),
        (f"{__name__}.NOT_CALLABLE", ".NOT_CALLABLE' is of type int, and cannot be called"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends_and_what_is_near(path: str, text: str) -> None:
    with pytest.raises(CapabilityError) as raised:
        import_path(path)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = 1\nraise ValueError('no disk')", "failed: ValueError: no disk\nat {file}:2"),
        ("import no_such_one", "failed: ModuleNotFoundError: No module named 'no_such_one'\nat {file}:1"),
        ("def f(:\n", "failed: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)", "failed: SystemExit: 3\nat {file}:2"),
        ("raise KeyboardInterrupt", "failed: KeyboardInterrupt: \nat {file}:1"),
    ],
)  # fmt: skip
def test_a_module_that_fails_on_import_is_named_with_the_line(
    source: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"broken_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CapabilityError) as raised:
        import_path(f"{name}.f")
    assert f"importing {name!r} {text.format(file=tmp_path / f'{name}.py')}" in str(raised.value)


class AsynchronousService:
    async def __call__(self, job: object, workload: str) -> str:
        return workload


async def asynchronous_pieces(workload: str) -> AsyncIterator[str]:
    yield workload


@pytest.mark.parametrize(
    "function",
    [asynchronous, asynchronous_pieces, AsynchronousService(), functools.partial(asynchronous)],
)
def test_what_is_called_with_await_is_asynchronous(function: Callable[..., Any]) -> None:
    assert bind("a", Capability(function), "utf-8").asynchronous
    assert not bind("a", Capability(one), "utf-8").asynchronous
    with pytest.raises(CapabilityError, match=r"is async, and runs on the asyncio loop\ndrop `thread: true`"):
        bind("a", Capability(function, thread=True), "utf-8")


def test_every_capability_that_cannot_run_is_told_and_hides_no_other() -> None:
    config = Config(
        capabilities={
            "good": Capability(f"{__name__}.one"),
            "missing": Capability("no_such_module.f"),
            "object": Capability(two),
            "three": Capability(three),
            "encoding": Capability(one, encoding="utf-9"),
        }
    )
    bound, problems = resolve_all(config)
    assert [capability.name for capability in bound] == ["good", "object"]
    assert [problem.key for problem in problems] == [
        "capabilities.missing",
        "capabilities.three",
        "capabilities.encoding",
    ]
    assert problems[0].hint == "is its directory in python_path, or its package installed?"


def test_a_capability_says_what_serves_it() -> None:
    capability = bind("upper", Capability(one), "utf-8")
    assert repr(capability) == f"<upper served by {__name__}.one>"
    assert path_of(SERVICE) == f"{__name__}.Service"


def test_its_own_encoding_goes_before_the_configs() -> None:
    assert bind("a", Capability(one), "latin-1").codec.name == "latin-1"
    assert bind("a", Capability(one, encoding="json"), "latin-1").codec.name == "json"


@pytest.mark.parametrize("common", [True, False])
def test_its_own_exceptions_go_before_the_configs(common: bool) -> None:
    specs = {"a": Capability(one), "b": Capability(one, exceptions=True), "c": Capability(one, exceptions=False)}
    bound, _ = resolve_all(Config(capabilities=specs, exceptions=common))
    assert [capability.exceptions for capability in bound] == [common, True, False]
