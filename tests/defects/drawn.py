"""The changes of one operator, constant or condition that a Python source allows."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

OPERATORS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
# Arguments that no figure depends on.
LEFT_OUT = {"frozen", "strict", "exist_ok", "parents", "indent", "slots", "ignore_errors", "daemon"}


@dataclass(frozen=True)
class Change:
    """A source with one change; `old` and `new`: what is changed, as Python writes it."""

    line: int
    old: str
    new: str
    text: str


def changes_of(source: str) -> Iterator[Change]:
    """Every change of a source, in its order."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    data = source.encode()
    for node in _nodes(ast.parse(source)):
        changed = _changed(node)
        if changed is None:
            continue
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        new = ast.unparse(changed)
        text = (data[:begin] + f"({new})".encode() + data[end:]).decode()
        yield Change(node.lineno, ast.unparse(node), new, text)


def _nodes(tree: ast.AST) -> Iterator[ast.expr]:
    """Expressions whose value matters: no types, no texts, no decorators."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.JoinedStr) or not isinstance(child, ast.AST):
                continue
            if isinstance(child, ast.keyword) and child.arg in LEFT_OUT:
                continue
            if isinstance(child, (ast.Assert, ast.Import, ast.ImportFrom)):
                continue
            if isinstance(child, ast.expr):
                yield child
            yield from _nodes(child)


def _changed(node: ast.expr) -> ast.expr | None:
    """The expression with the other operator, constant or condition; None where there is none."""
    changed = copy.deepcopy(node)
    match changed:
        case ast.Compare(ops=[operator]) if type(operator) in OPERATORS:
            changed.ops = [OPERATORS[type(operator)]()]
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator) in OPERATORS:
            changed.op = OPERATORS[type(operator)]()
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            changed = operand
        case ast.IfExp(test=test):
            changed.test = ast.UnaryOp(ast.Not(), test)
        case ast.Constant(value=bool(value)):
            changed.value = not value
        case ast.Constant(value=int(value)):
            changed.value = value + 1
        case ast.Constant(value=float(value)):
            changed.value = 1.1 * value if value else 0.1
        case _:
            return None
    return changed
