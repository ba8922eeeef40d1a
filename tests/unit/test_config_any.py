"""Whatever a file holds, it becomes a config or problems; nothing else comes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir, suppress
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from geard.config import Config, config_from, examine_config
from geard.config.document import Document
from geard.config.keys import CAPABILITY_KEYS, CONFIG_KEYS, JOB_SERVER_KEYS, LOGGING_KEYS, TLS_KEYS
from geard.errors import ConfigError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
TELLING = st.sampled_from(
    ["localhost:4730", "app.reverse", "5s", "64M", "utf-8", "auto", "1h1h", "${A:-1}", "${B}", "/"]
)
NAMES = st.sampled_from([*CONFIG_KEYS, *CAPABILITY_KEYS, *JOB_SERVER_KEYS, *TLS_KEYS, *LOGGING_KEYS]) | st.text(
    max_size=4
)
ANY = st.recursive(
    SCALARS | TELLING,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | SCALARS, inner, max_size=4),
    max_leaves=12,
)
CONFIGS = st.fixed_dictionaries({}, optional=dict.fromkeys(CONFIG_KEYS, ANY))
CHARACTERS = st.text(alphabet="ab:- \n\t[]{}&*!|>'\"%@`#,?<$0.~\x00\ud800é", max_size=40)


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with chdir(tmp_path_factory.mktemp("config")):
        yield


@given(CHARACTERS | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ConfigError):
        document = Document(text, "geard.yaml", {})
        assert all(min(place) >= 1 for place in document.places.values())


@given(CONFIGS)
def test_any_data_is_a_config_or_has_its_problems_placed(data: dict[str, Any]) -> None:
    with open("geard.yaml", "w", encoding="utf-8") as file:
        yaml.dump(data, file, Dumper=yaml.SafeDumper, allow_unicode=False)
    source = examine_config("geard.yaml", {"A": "2"})
    for problem in source.problems:
        assert problem.line or not problem.key, problem  # only what concerns the whole file has no place
    # What a worker process is handed is what was read.
    assert msgspec.json.decode(msgspec.json.encode(source.config), type=Config) == source.config


@given(CONFIGS)
def test_any_data_of_a_program_is_a_config_or_refused(data: dict[str, Any]) -> None:
    with suppress(ConfigError):
        assert config_from(data).capabilities
