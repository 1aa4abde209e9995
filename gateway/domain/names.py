"""Whether two names of persons can be the same person's. Pure.

A DICOM name has one group for each writing (PS3.5 6.2.1). A writing that only one side has says nothing against the other.
"""

from __future__ import annotations

import re
import unicodedata

_HAN = re.compile(r"[\u2e80-\u2fdf\u3005\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA = re.compile(r"[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HANGUL = re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
_LATIN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "oe", "å": "aa", "œ": "oe"})


def agree(first: str, second: str) -> bool:
    """Whether two DICOM person names can be of one person, as far as both are written in the same way.

    Case, blanks, punctuation, accents, titles and middle names do not count, nor does a given name that one side lacks.
    """
    ours, theirs = _bywriting_of(first), _bywriting_of(second)
    return all(_same(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())


def comparable(first: str, second: str) -> bool:
    """Whether both are written in at least one common way."""
    return bool(_bywriting_of(first).keys() & _bywriting_of(second).keys())


def _bywriting_of(name: str) -> dict[str, str]:
    """The groups of a name by what they are written in, wherever in the name they stand."""
    found: dict[str, str] = {}
    for group in name.split("="):
        if group.strip("^ "):
            found.setdefault(writing_of("", group), group)
    return found


def _same(first: str, second: str) -> bool:
    ours, theirs = _forms(first), _forms(second)
    if not any(ours) or not any(theirs):
        return True  # nothing but signs: no name to compare
    return bool(ours & theirs)


def _forms(group: str) -> set[str]:
    """What a name is compared by: family and given name joined, with its accents written in either of two ways."""
    parts = [part.casefold() for part in [*group.split("^"), "", ""][:3]]
    family, given, middle = parts
    texts = {family + given, family + given + middle}
    if not given:
        texts |= {" ".join(sorted(family.split()))}  # the whole name in one component, in any order
    texts |= {" ".join(sorted((family + " " + given).split()))}
    return {_letters(form) for text in texts for form in (text, text.translate(_LATIN))}


def _letters(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if sign.isalnum())


def writing_of(code: str, group: str) -> str:
    """XPN-8, else what the characters are: senders of names in Chinese alone often leave it out, or write `A`."""
    if code == "P" or (_KANA.search(group) and not _HAN.search(group)):
        return "P"
    if code == "I" or _HAN.search(group) or _HANGUL.search(group):
        return "I"
    return "A"
