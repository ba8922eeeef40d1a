"""A YAML text as plain data, with the line and column of every entry.

Rules:
- Only what YAML itself calls text, numbers, booleans, null, lists and mappings comes in; no tag makes an object.
- Numbers are decimal: what YAML 1.1 reads as octal (010) or sexagesimal (1:30) stays text, and is refused as such.
- References to the environment are filled in before a scalar's type is decided; a quoted scalar stays text.
- What a text may expand to through aliases is bounded.
- Every problem has its place. One that spoils the whole document raises; any other is noted and the rest read on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import yaml

from geard.config.filled import Filled
from geard.config.interpolation import expand
from geard.config.problems import UNUSABLE, Problems, Refused, describe, join_item, join_key
from geard.errors import ConfigError, Problem

MAX_DEPTH: Final = 20  # a config needs five
MAX_EXPANDED: Final = 10_000_000  # characters, aliases and references expanded; each value counts as 100 more

_TAG: Final = "tag:yaml.org,2002:"
_TEXT_TAGS: Final = {_TAG + "str", _TAG + "timestamp", _TAG + "value"}
_NUMBER_TAGS: Final = {_TAG + "int", _TAG + "float"}
_TYPED_TAGS: Final = {*_NUMBER_TAGS, _TAG + "bool", _TAG + "null"}
_DECIMAL: Final = re.compile(r"[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][-+]\d+)?", re.ASCII)
_MERGE_TAG: Final = _TAG + "merge"
_FAST_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_HINTS: Final = {  # part of what PyYAML says -> what the writer can do about it
    "'\\t'": "indent with spaces: YAML allows no tabs",
    "mapping values are not allowed": "put a text that holds a colon and a space in quotes, and check the indentation",
    "expected <block end>": "check the indentation",
    "could not find expected ':'": "a key is followed by a colon and a space; check the indentation",
    "expected ',' or": "close the bracket; within [ ] and { }, put ${NAME} in quotes",
    "found duplicate anchor": "give each anchor a name of its own",
    "found undefined alias": "an anchor (&name) comes before its alias (*name)",
    "found character '%'": "put it in quotes",
    "found character '@'": "put it in quotes",
    "found character '`'": "put it in quotes",
}


class Document:
    """The data of one YAML text. `places` are (line, column) by key path, counted from 1; for an entry of a mapping
    that of its key. `problems` are those that left the rest readable; UNUSABLE stands where such a value was. `filled`
    is what came from the environment."""

    def __init__(self, text: str, file: str, environ: Mapping[str, str]) -> None:
        """Raises ConfigError when the text is not YAML, or is none that a config could be."""
        self.file = file
        self.places: dict[str, tuple[int, int]] = {}
        self.problems = Problems()
        self.filled = Filled()
        self._environ = environ
        self._expanded = 0
        self._loader: Any = yaml.SafeLoader("")  # for its resolver and constructor of scalars
        node = self._compose(text)
        if node is None:
            self._fail("the file is empty", expected="at least `capabilities`")
        self.data: Any = self._value(node, "", 1)

    def _compose(self, text: str) -> yaml.Node | None:
        try:
            return yaml.compose(text, _FAST_LOADER)
        except (yaml.YAMLError, UnicodeError, RecursionError):
            return self._compose_slowly(text)

    def _compose_slowly(self, text: str) -> yaml.Node | None:
        """With PyYAML's own parser, whose errors say more than libyaml's."""
        try:
            return yaml.compose(text, yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            if "expected a single document" in str(error.context):
                self._fail("a second document starts here", error.problem_mark, hint="a config is one YAML document")
            start, mark = error.context_mark, error.problem_mark
            if start and (not mark or "end of stream" in str(error.problem)):
                mark = start  # where the quote was opened says more than where the file ends
            context = (error.context or "").replace("; first occurrence", "")
            if context and start and mark and start.line < mark.line:
                context += f" (from line {start.line + 1})"
            message = ": ".join(filter(None, [context, error.problem]))
            hint = next((hint for part, hint in _HINTS.items() if part in message), "")
            self._fail(f"not valid YAML: {message}", mark, hint=hint)
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
            problem = f"not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed"
            raise ConfigError([Problem(problem, self.file, *place)]) from error
        except RecursionError:
            self._fail(f"nested more than {MAX_DEPTH} levels deep")

    def _value(self, node: yaml.Node, path: str, depth: int) -> Any:
        self._count(100, node)
        if depth > MAX_DEPTH:
            self._fail(f"nested more than {MAX_DEPTH} levels deep", node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, is_value=True)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self._item(item, path, index, depth) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path, depth)
        return self._refuse_tag(node, path)

    def _count(self, characters: int, node: yaml.Node) -> None:
        self._expanded += characters
        if self._expanded > MAX_EXPANDED:
            self._fail("its aliases and variables expand to too much", node.start_mark, expected="10 MB at most")

    def _item(self, node: yaml.Node, around: str, index: int, depth: int) -> Any:
        path = join_item(around, index)
        self._place(path, node)
        return self._inner(node, path, around, depth)

    def _inner(self, node: yaml.Node, path: str, around: str, depth: int) -> Any:
        value = self._value(node, path, depth + 1)
        if self.filled.holds(path):
            self.filled.around.add(around)
        return value

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> Any:
        data: dict[str, Any] = {}
        to_merge: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                to_merge.append(value_node)
                continue
            name = self._key(key_node, path)
            if name is None:
                continue
            entry = join_key(path, name)
            if name != key_node.value and self._took_from_environment(key_node):
                self.filled.keys[entry] = join_key(path, key_node.value)
            if name in data:
                line = self.places[entry][0]
                self._note("this key is given twice", key_node.start_mark, entry, hint=f"the first is in line {line}")
                continue
            self._place(entry, key_node)
            data[name] = self._inner(value_node, entry, path, depth)
        below: dict[str, Any] = {}
        for merged in to_merge:  # what is written here wins, then what is merged first
            for mapping in self._merged(merged, path, depth):
                for name, value in mapping.items():
                    below.setdefault(name, value)
        data = {**below, **data}
        return data if data or not node.value else UNUSABLE

    def _key(self, node: yaml.Node, path: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._note("a key cannot be a list or a mapping", node.start_mark, path, expected="text")
            return None
        if node.value == "on":
            return "on"  # a key of ours, which YAML 1.1 has for true
        value = self._scalar(node, path)
        if isinstance(value, str):
            return value
        if value is not UNUSABLE:
            shown = node.value if self._took_from_environment(node) else describe(value)
            hint = f'put it in quotes: "{node.value}"'
            self._note(f"a key cannot be {shown}", node.start_mark, path, expected="text", hint=hint)
        return None

    def _took_from_environment(self, node: yaml.ScalarNode) -> bool:
        return bool(expand(node.value, self._environ)[1])

    def _merged(self, node: yaml.Node, path: str, depth: int) -> list[dict[str, Any]]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(one, yaml.MappingNode) for one in nodes):
            self._note("<< merges mappings only", node.start_mark, path, expected="<<: *name, or <<: [*one, *other]")
            return []
        values = [self._value(one, path, depth + 1) for one in nodes]
        return [value for value in values if isinstance(value, dict)]

    def _scalar(self, node: yaml.ScalarNode, path: str, *, is_value: bool = False) -> Any:
        try:
            text, variables = expand(node.value, self._environ)
        except Refused as refused:
            self._note(refused.message, node.start_mark, path, expected=refused.expected, hint=refused.hint)
            return UNUSABLE
        self._count(len(text), node)
        self.filled.values |= variables
        if variables and is_value:
            self.filled.written.setdefault(path, node.value)
        if not _is_unicode(text):
            self._note("is not valid Unicode", node.start_mark, path, expected="text that UTF-8 can encode")
            return UNUSABLE
        tag = node.tag
        if text != node.value and not node.style:
            tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))
        if tag in _TEXT_TAGS or (tag in _NUMBER_TAGS and not _DECIMAL.fullmatch(text)):
            return text
        if tag not in _TYPED_TAGS:
            return self._refuse_tag(node, path)
        try:
            return self._loader.construct_object(yaml.ScalarNode(tag, text))
        except ValueError:  # more digits than Python converts
            return text

    def _refuse_tag(self, node: yaml.Node, path: str) -> Any:
        tag = node.tag.replace(_TAG, "!!")
        self._note(f"the tag {tag} is not allowed", node.start_mark, path, expected="plain YAML")
        return UNUSABLE

    def _place(self, path: str, node: yaml.Node) -> None:
        self.places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))

    def _note(self, message: str, mark: yaml.Mark, path: str, *, expected: str = "", hint: str = "") -> None:
        self.problems.add(Problem(message, self.file, mark.line + 1, mark.column + 1, path, expected, hint))

    def _fail(self, message: str, mark: yaml.Mark | None = None, *, expected: str = "", hint: str = "") -> NoReturn:
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise ConfigError([Problem(message, self.file, *place, expected=expected, hint=hint)])


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: escaped in the file, or a byte of the environment's
        return False
    return True
