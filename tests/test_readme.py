"""The README and docs/, run as they stand: see tests/support/documents.py."""

from __future__ import annotations

import inspect
import re
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from geard import reference
from geard.cli import COMMANDS
from geard.config.load import examine_config
from tests.support.documents import DOCUMENTS, ROOT, Session, blocks, configs, those
from tests.support.servers import need

WITH_SESSIONS = [document for document in DOCUMENTS if any(block.kind == "console" for block in blocks(document))]
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([\w-]+))?\)")


@pytest.mark.parametrize("document", WITH_SESSIONS, ids=lambda document: document.stem)
def test_the_sessions_run_as_they_stand(document: Path, tmp_path: Path) -> None:
    if any(block.kind == "php" and block.file for block in blocks(document)):
        need("php")
    with closing(Session(document, tmp_path)) as session:
        session.follow()


def test_there_are_sessions() -> None:
    sessions = {document.stem for document in WITH_SESSIONS}
    assert {"README", "tutorial", "client", "testing", "library"} <= sessions
    assert {"from-gearmanmanager", "from-pygearman", "from-celery"} <= sessions


def test_every_config_can_run(tmp_path: Path) -> None:
    """Not that the modules and files that it names are there, which are its reader's."""
    file = tmp_path / "geard.yaml"
    for place, text in configs():
        file.write_text(text)
        problems = [problem for problem in examine_config(file).problems if "no such file" not in problem.message]
        assert not problems, f"{place}: {problems[0]}"
    for _, block in those("yaml"):
        yaml.safe_load(block.body)  # those of others, of Prometheus for one


def test_every_python_block_runs() -> None:
    """As far as it goes without its surroundings: those of a session run there. Its own tests are passed."""
    for place, block in those("python"):
        if block.file and not block.file.startswith("test_"):
            compile(block.body, place, "exec")
            continue
        if "import tasks" in block.body:
            continue  # the tutorial's, which its session runs
        names: dict[str, object] = {}
        exec(compile(block.body, place, "exec"), names)
        for name, value in list(names.items()):
            if name.startswith("test_") and callable(value) and not inspect.signature(value).parameters:
                value()
    for place, block in those("py"):
        compile(block.body, place, "exec")


def test_every_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for path, anchor in LINK.findall(document.read_text()):
            target = (document.parent / path).resolve() if path else document
            assert target.exists(), f"{document.name}: {path}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{document.name}: {path}#{anchor}"


def test_the_site_leads_to_every_page() -> None:
    nav = (ROOT / ".mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert [
        page.name for page in DOCUMENTS[1:] if not re.search(rf"[ /]{re.escape(page.name)}$", nav, re.MULTILINE)
    ] == []


def test_no_document_names_a_command_or_file_that_there_is_not() -> None:
    for document in DOCUMENTS:
        text = document.read_text()
        for path in set(re.findall(r"`((?:etc|systemd|geard|tests|docs)/[\w./@-]*)`", text)):
            assert (ROOT / path).exists(), f"{document.name}: {path}"
        for command in set(re.findall(r"`geard ([a-z]+)", text)):
            assert command in COMMANDS, f"{document.name}: geard {command}"


def test_the_messages_in_trouble_are_those_of_the_code() -> None:
    """In its tables' first column, where it is not a command; `…` stands for anything."""
    seen = re.findall(r"^\| (.*?) \| ", (ROOT / "docs" / "trouble.md").read_text(), re.MULTILINE)
    quoted = [text for one in seen for text in re.findall(r"`([^`]+)`", one)]
    messages = [text for text in quoted if " " in text and not text.startswith("geard ")]
    assert len(messages) >= 6, quoted
    code = "\n".join(file.read_text() for file in (ROOT / "geard").rglob("*.py"))
    for message in messages:
        for part in message.split("…"):
            assert part.strip() in code, message


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks.py, as mkdocs loads it."""
    spec = spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_page_may_load_anything_from_another_host(hooks: ModuleType) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    for ours in ('<script src="a.js">', '<a href="https://gearman.org">', '<link rel="canonical" href="https://a/">'):
        assert hooks.on_post_page(ours, page) == ours
    for theirs in ('<script src="https://a/b.js">', '<link rel="stylesheet" href="//a/b.css">', "<img src=http://a/b>"):
        with pytest.raises(ValueError, match=r"index\.md loads from another host"):
            hooks.on_post_page(theirs, page)


def test_what_is_made_from_the_code_is_made(hooks: ModuleType) -> None:
    made = {document.stem: hooks.on_page_markdown(document.read_text()) for document in DOCUMENTS[1:]}
    assert not [stem for stem, text in made.items() if "*Made from the code" in text]
    for key in reference.config_keys():
        assert f"### {key.name}\n" in made["config"] or f"#### `{key.name}`\n" in made["config"]
    for command in reference.commands():
        assert f"### geard {command.name}\n" in made["commands"]
    for code in reference.exit_codes():
        assert f"| {code.code} |" in made["commands"]
    for metric in reference.metrics():
        assert f"| `{metric.name}` |" in made["metrics"]
    for error in reference.error_classes():
        assert f".{error.name}`\n" in made["errors"]
    for said in ("unknown key", "no worker process serves", "is its directory in python", "the byte 0x… is not UTF-8"):
        assert said in made["errors"]
    assert "::: geard.client.client.Client\n" in made["python"]
