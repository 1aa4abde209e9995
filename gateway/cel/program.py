"""An expression of CEL, compiled and tried before it is needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import celpy
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.celtypes import BoolType
from celpy.evaluation import CELEvalError

from gateway.cel.names import Node, unknown_names
from gateway.domain.errors import ConfigurationError

_TROUBLE = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)  # what evaluation lets through
_PLAIN: tuple[tuple[tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((bool, BoolType), bool),
    ((float, int), float),
    ((str,), str),
)


class Unanswerable(ValueError):
    """An expression has no value for what it is asked about; the text says why."""


@dataclass(frozen=True)
class Program:
    """A compiled expression."""

    text: str
    tree: Node
    _program: Any

    def value(self, values: Mapping[str, Any]) -> bool | float | str:
        """What it comes to; raises Unanswerable for a key that is missing, kinds that do not go together, or a list."""
        try:
            found = self._program.evaluate({name: json_to_cel(value) for name, value in values.items()})
        except CELEvalError as error:
            raise Unanswerable(str(error.args[0])) from error
        except _TROUBLE as error:
            raise Unanswerable(type(error).__name__) from error
        for kinds, plain in _PLAIN:
            if isinstance(found, kinds):
                answer: bool | float | str = plain(found)
                return answer
        raise Unanswerable("neither true or false, nor a number, nor a text")


def compile_program(
    text: str, where: str, known: Mapping[str, Collection[str]], suggest: Callable[[str], str] = lambda _: ""
) -> Program:
    """Compiles an expression; raises ConfigurationError, which begins with ``where``, for one that is none, or that holds a
    name that is not ``known``. ``suggest`` may say what was meant.
    """
    try:
        environment = celpy.Environment()
        tree = environment.compile(text)
        program = Program(text, tree, environment.program(tree))
        unknown = next(unknown_names(tree, known), None)
    except CELParseError as error:
        raise ConfigurationError(f"{where}: not a CEL expression: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{where}: too many brackets inside each other") from error
    if unknown:
        raise ConfigurationError(f"{where}: unknown name {unknown[:64]!r}{suggest(unknown)}")
    return program
