"""Every way in which one place of a module is broken: its mutants."""

from __future__ import annotations

import ast
import builtins
import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

Edit = tuple[int, int, str]  # from this byte to that one there stands this instead
Located = ast.expr | ast.stmt | ast.keyword

# Texts are left as they are: what a message, a log line or a repr says is no behaviour.
SILENT_FUNCTIONS = {"__repr__", "__str__"}
LOGS = {"_log"}

SWAPPED = {
    ast.Lt: ("<", "<=", ">="),
    ast.LtE: ("<=", "<", ">"),
    ast.Gt: (">", ">=", "<="),
    ast.GtE: (">=", ">", "<"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.FloorDiv: ("//", "*"),
}


@dataclass(frozen=True)
class Mutant:
    """The module at *path* with one place broken: *source* is all of it, *diff* its lines."""

    path: str
    scope: str  # the class and the function in which it is broken
    lines: range  # those of the statement; of one that holds others, those of its head
    diff: str
    source: str

    @property
    def name(self) -> str:
        """The name of this mutant, which stays when lines are added above."""
        return f"{self.path} {self.scope}\n{self.diff}"

    @property
    def digest(self) -> str:
        """What tells this mutant from all others; two lines of a function may look the same."""
        return hashlib.sha256(f"{self.path}\n{self.source}".encode()).hexdigest()


def mutants(path: str, source: str) -> Iterator[Mutant]:
    """Give the mutants of the module at *path*, each of which can be compiled, each once."""
    found, seen = _Places(source), {source}
    found.visit(ast.parse(source))
    for scope, lines, edits in found.places:
        mutated = _edited(found.bytes, edits)
        if mutated in seen or not _compiles(mutated):
            continue
        seen.add(mutated)
        yield Mutant(path, scope, lines, _diff(source, mutated), mutated)


def _edited(source: bytes, edits: Iterable[Edit]) -> str:
    for start, end, text in sorted(edits, reverse=True):
        source = source[:start] + text.encode() + source[end:]
    return source.decode()


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in list(lines)[3:])


class _Places(ast.NodeVisitor):
    """Finds places to break: scope and lines of each, and the edits that break it."""

    def __init__(self, source: str) -> None:
        self.bytes = source.encode()
        self.places: list[tuple[str, range, list[Edit]]] = []
        self._scope: list[str] = []
        self._lines = range(0)
        self._starts = [0]
        for line in self.bytes.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def visit(self, node: ast.AST) -> None:
        scope, lines = self._scope, self._lines
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            self._scope = [*scope, node.name]
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno if body else (node.end_lineno or node.lineno) + 1
            self._lines = range(node.lineno, max(node.lineno + 1, last))
        super().visit(node)
        self._scope, self._lines = scope, lines

    def _begin(self, node: Located) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: Located) -> int:
        assert node.end_lineno
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def _break(self, *edits: Edit) -> None:
        self.places.append((".".join(self._scope), self._lines, list(edits)))

    def _replace(self, node: Located, text: str) -> None:
        self._break((self._begin(node), self._end(node), text))

    def _swap(self, node: ast.expr, operator: ast.AST, operands: Sequence[ast.expr]) -> None:
        """Put other operators between *operands*."""
        old, *others = SWAPPED.get(type(operator), ("",))
        for new in others:
            edits = []
            for left, right in pairwise(operands):
                start, end = self._end(left), self._begin(right)
                between = self.bytes[start:end].decode()
                edits.append((start, end, re.sub(re.escape(old), new, between, count=1)))
            self._break(*edits)

    # Expressions

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for place, operator in enumerate(node.ops):
            self._swap(node, operator, operands[place : place + 2])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._swap(node, node.op, node.values)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if not any(_is_text(side) for side in (node.left, node.right)):
            self._swap(node, node.op, [node.left, node.right])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._break((self._begin(node), self._begin(node.operand), ""))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace(node, str(not value))
        elif isinstance(value, int):
            self._replace(node, str(value + 1))
            self._replace(node, str(value - 1))
        elif isinstance(value, float):
            self._replace(node, str(value * 2))
            self._replace(node, str(value / 2))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and _named(node.func.value) in LOGS:
            return
        given: list[ast.expr | ast.keyword] = sorted([*node.args, *node.keywords], key=self._begin)
        for place, argument in enumerate(given):
            if isinstance(argument, ast.keyword) or (
                argument is node.args[-1] and _takes_less(node)
            ):
                self._drop(given, place)
        self.generic_visit(node)

    def _drop(self, of: Sequence[Located], place: int) -> None:
        """Leave out the one at *place*, with the comma."""
        if place:
            self._break((self._end(of[place - 1]), self._end(of[place]), ""))
        elif len(of) > 1:
            self._break((self._begin(of[0]), self._begin(of[1]), ""))
        else:
            self._replace(of[0], "")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
            start, end = self._begin(test), self._end(test)
            self._break((start, start, "not ("), (end, end, ")"))

    # Statements

    def visit_If(self, node: ast.If) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        managers = [item.context_expr for item in node.items]
        for place, item in enumerate(node.items):
            if item.optional_vars is None and len(managers) == 1:
                self._break((self._begin(node), self._end(managers[0]), "if True"))
            elif item.optional_vars is None:
                self._drop(managers, place)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            call = node.value.func
            if not (isinstance(call, ast.Attribute) and _named(call.value) in LOGS):
                self._replace(node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._replace(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace(node, "pass")
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            if not isinstance(node.target, ast.Name):
                self._replace(node, "pass")
            self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._replace(node, "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace(node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        # Of False and of None in its place nobody is told the difference.
        if node.value is not None and not _is_one_of(node.value, None, False):
            self._replace(node, "return None")
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self._replace(node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace(node, "break")

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in node.body:  # not the decorators: that a dataclass is frozen, mypy sees
            self.visit(part)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in SILENT_FUNCTIONS:
            return
        defaults = [default for default in node.args.kw_defaults if default is not None]
        for part in (*node.decorator_list, *node.args.defaults, *defaults, *node.body):
            self.visit(part)


def _takes_less(call: ast.Call) -> bool:
    """Say whether the function may well do with an argument less; else nothing is tested."""
    if isinstance(call.func, ast.Attribute):
        return True
    return len(call.args) > 1 and not hasattr(builtins, _named(call.func))


def _named(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    constant = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    return constant or isinstance(node, ast.JoinedStr)


def _is_one_of(node: ast.expr, *values: object) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is value for value in values)
