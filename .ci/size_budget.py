"""Fails when modules or functions outgrow the budget of docs/architecture.md; raising a number needs an ADR.

Migrations are history, not code to keep small, and are left out.
"""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

MODULE_LINES = {"median": 150, "p90": 350, "max": 500}
FUNCTION_LINES = {"median": 8, "p90": 25, "max": 60}


def function_lengths(tree: ast.AST) -> list[tuple[str, int]]:
    """Lines of each function from `def` to its end, without its docstring."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or 0) - first.lineno + 1 if is_text else 0
            found.append((node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring))
    return found


def over(kind: str, lengths: dict[str, int], budget: dict[str, int]) -> list[str]:
    """Sentences for what is over budget."""
    values = sorted(lengths.values())
    figures = {"median": statistics.median(values), "p90": values[int(0.9 * (len(values) - 1))], "max": values[-1]}
    print(f"{kind}: {len(values)}, median {figures['median']:g}, p90 {figures['p90']}, max {figures['max']} lines")
    problems = [f"{name}: {size} lines" for name, size in lengths.items() if size > budget["max"]]
    return problems + [
        f"{kind} {key} is {figures[key]:g}, budget {budget[key]}"
        for key in ("median", "p90")
        if figures[key] > budget[key]
    ]


def main() -> int:
    """Checks both packages."""
    files = [
        path
        for root in ("gateway", "workers")
        for path in sorted(Path(root).rglob("*.py"))
        if "versions" not in path.parts
    ]
    modules = {str(path): path.read_text(encoding="utf-8").count("\n") for path in files}
    functions = {
        f"{path}:{name}": lines
        for path in files
        for name, lines in function_lengths(ast.parse(path.read_text(encoding="utf-8")))
    }
    problems = over("modules", modules, MODULE_LINES) + over("functions", functions, FUNCTION_LINES)
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
