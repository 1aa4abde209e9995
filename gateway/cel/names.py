"""Finds names in an expression that mean nothing, also where an example would never get to them. Pure.

CEL takes ``false && anything`` for false, errors included: a slip of the pen behind ``&&`` would stay hidden, and the
rule would quietly never match.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from celpy.evaluation import base_functions
from lark import Token, Tree

_MACROS = {"all", "exists", "exists_one", "filter", "map"}  # their first argument names a variable
_FUNCTIONS = {*base_functions, *_MACROS, "has", "dyn"}
_TYPES = {
    "bool",
    "bytes",
    "double",
    "duration",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
}

Node = Tree[Token] | Token


def unknown_names(tree: Node, known: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Names, fields (``series.colour``) and functions of a parsed condition that nothing is known by; in order."""
    yield from _walk(tree, known, frozenset())


def _walk(tree: Node, known: Mapping[str, Collection[str]], bound: frozenset[str]) -> Iterator[str]:
    if isinstance(tree, Token):
        return
    children = list(tree.children)
    if tree.data == "ident":
        name = str(children[0])
        if name not in bound and name not in known and name not in _TYPES:
            yield name
        return
    if tree.data == "member_dot":
        root, field = _variable(children[0]), str(children[1])
        if root is not None and root not in bound and field not in known.get(root, (field,)):
            yield f"{root}.{field}"
    if tree.data in ("ident_arg", "member_dot_arg"):
        yield from _call(tree, known, bound)
        return
    for child in children:
        yield from _walk(child, known, bound)


def _call(tree: Tree[Token], known: Mapping[str, Collection[str]], bound: frozenset[str]) -> Iterator[str]:
    on = [child for child in tree.children[:1] if isinstance(child, Tree)]  # what a method is called on
    name = str(tree.children[len(on)])
    arguments = [item for child in tree.children[len(on) + 1 :] if isinstance(child, Tree) for item in child.children]
    if name not in _FUNCTIONS:
        yield f"{name}()"
    if on and name in _MACROS and arguments:
        bound |= {_variable(arguments.pop(0)) or ""}
    for part in [*on, *arguments]:
        yield from _walk(part, known, bound)


def _variable(tree: Node) -> str | None:
    """The name that an expression consists of, if it is nothing but a name."""
    while isinstance(tree, Tree) and len(tree.children) == 1:
        if tree.data == "ident":
            return str(tree.children[0])
        tree = tree.children[0]
    return None


def indexed(tree: Node, root: str) -> Iterator[tuple[str, str, str]]:
    """``root.A.B["KEY"]`` in a parsed expression, as (A, B, KEY), wherever it stands."""
    if isinstance(tree, Token):
        return
    if tree.data == "member_index" and len(tree.children) == 2:
        path, key = _path(tree.children[0]), _text(tree.children[1])
        if len(path) == 3 and path[0] == root and key is not None:
            yield path[1], path[2], key
    for child in tree.children:
        yield from indexed(child, root)


def _path(tree: Node) -> tuple[str, ...]:
    """`a.b.c` as its names; empty for anything else."""
    while isinstance(tree, Tree) and len(tree.children) == 1 and tree.data != "ident":
        tree = tree.children[0]
    if isinstance(tree, Token):
        return ()
    if tree.data == "ident":
        return (str(tree.children[0]),)
    if tree.data != "member_dot":
        return ()
    before = _path(tree.children[0])
    return (*before, str(tree.children[1])) if before else ()


def _text(tree: Node) -> str | None:
    """What an expression says that is nothing but a quoted text."""
    while isinstance(tree, Tree) and len(tree.children) == 1:
        tree = tree.children[0]
    text = str(tree)
    plain = isinstance(tree, Token) and len(text) > 1 and text[0] in "'\"" and text[-1] == text[0] and "\\" not in text
    return text[1:-1] if plain else None
