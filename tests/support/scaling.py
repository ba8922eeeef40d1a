"""The arithmetic of docs/scaling.md: everything in it follows from the figures of its first table.

`python -m tests.support.scaling` computes it anew after a change of a figure, and writes the file.

In the text, `most = 1,000 ÷ run = 12` gives a name to what it computes, and `1,000 ÷ run = 12` does not; of
`name: expression` in a list, a table with such a column has the values, by the `load` in its first column; with
`= value` behind it, it is one value. Each value keeps the number of decimals that it is written with.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from pathlib import Path

FILE = Path(__file__).parents[2] / "docs" / "scaling.md"
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
SIGNS = str.maketrans({"×": "*", "÷": "/", "↑": "^", "⌈": "(", "⌉": ")", ",": ""})
FIGURE = re.compile(r"^\| `(\w+)` \| ([\d.,]+) \|", re.MULTILINE)
SPAN = re.compile(r"`(?:(?P<name>\w+)(?: = |: ))?(?P<expression>[^`=:]*[÷×+][^`=:]*?) = (?P<value>[\d.,]+)`")
COLUMN = re.compile(r"^- `(?P<name>\w+): (?P<expression>[^`=]+)`", re.MULTILINE)
HEADER = re.compile(r"^\| `load` \|.*\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)


def computed(text: str) -> str:
    """The text with every value that follows from the figures as it should be. Raises KeyError for a name that nothing
    has given."""
    names = {name: float(value.replace(",", "")) for name, value in FIGURE.findall(text)}

    def span(match: re.Match[str]) -> str:
        value = evaluate(match["expression"], names)
        if match["name"]:
            names[match["name"]] = value
        start, end = match.span("value")
        begin = match.start()
        return f"{match[0][: start - begin]}{like(match['value'], value)}{match[0][end - begin :]}"

    text = SPAN.sub(span, text)
    columns = {match["name"]: match["expression"] for match in COLUMN.finditer(text)}

    def table(match: re.Match[str]) -> str:
        header = re.findall(r"`(\w+)`", match[0].partition("\n")[0])
        rows = []
        for line in match[1].splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            row = {**names, "load": float(cells[0].replace(",", ""))}
            for name in columns:
                row[name] = evaluate(columns[name], row)
            shown = [like(cell, row[name]) for name, cell in zip(header, cells, strict=True)]
            rows.append(f"| {' | '.join(shown)} |\n")
        return match[0][: match.start(1) - match.start()] + "".join(rows)

    return HEADER.sub(table, text)


def like(written: str, value: float) -> str:
    """A value with the number of decimals of the one that is written."""
    return f"{value:,.{len(written.partition('.')[2])}f}"


def evaluate(expression: str, names: dict[str, float]) -> float:
    """The value of an expression. ⌈ and ⌉ round up."""
    python = expression.replace("⌈", "ceil(").translate(SIGNS).replace("^", "**")
    return _value(ast.parse(python.strip(), mode="eval").body, names)


def _value(node: ast.expr, names: dict[str, float]) -> float:
    if isinstance(node, ast.Constant):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.BinOp):
        return float(OPERATORS[type(node.op)](_value(node.left, names), _value(node.right, names)))
    assert isinstance(node, ast.Call), ast.dump(node)
    return float(math.ceil(round(_value(node.args[0], names), 9)))


if __name__ == "__main__":
    FILE.write_text(computed(FILE.read_text()))
