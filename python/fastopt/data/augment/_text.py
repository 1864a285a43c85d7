"""Augmentation of text: synonym replacement and back-translation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from fastopt import _checks
from fastopt.data.augment._draws import Draws, check_draws

WORD = re.compile(r"(\w+)")


def replace_synonyms(
    texts: Sequence[str],
    draws: Draws,
    *,
    synonyms: Mapping[str, Sequence[str]],
    p: float = 0.1,
) -> list[str]:
    r"""Replace each word that has synonyms, with probability ``p``, by one of them, all equally likely.

    Args:
        texts: a batch of strings. Words are matches of ``\w+``; everything between them is kept.
        draws: the random numbers of its samples.
        synonyms: a dict from a word to a list of its synonyms. A word is looked up unchanged and then in lower
            case; in the second case the synonym is capitalized.
        p: 0 to 1.

    >>> from fastopt.data import augment
    >>> table = {"good": ["fine", "decent"], "film": ["movie"]}
    >>> augment.replace_synonyms(["A good film!", "Good."], augment.Draws([0, 1]), synonyms=table, p=1.0)
    ['A fine movie!', 'Fine.']

    Source: Zhang, Zhao & LeCun 2015, section 2.4, arXiv:1509.01626; Wei & Zou 2019, EDA, arXiv:1901.11196.
    """
    _check_texts("texts", texts)
    check_draws("texts", texts, draws)
    _checks.mapping("synonyms", synonyms)
    p = _checks.real("p", p, "[0, 1]")
    parts = [WORD.split(text) for text in texts]  # every second piece is a word
    most = max((len(pieces) // 2 for pieces in parts), default=0)
    numbers = draws.uniforms("synonyms", 2 * most).reshape(len(texts), most, 2)
    for pieces, row in zip(parts, numbers, strict=True):
        for i, (chance, which) in enumerate(row[: len(pieces) // 2]):
            if chance < p:
                pieces[2 * i + 1] = _synonym(pieces[2 * i + 1], which, synonyms)
    return ["".join(pieces) for pieces in parts]


def _synonym(word: str, u: float, synonyms: Mapping[str, Sequence[str]]) -> str:
    as_it_stands = word in synonyms
    key = word if as_it_stands else word.lower()
    others = synonyms.get(key, ())
    _check_texts(f"synonyms[{key!r}]", others)
    if not others:
        return word
    other = others[int(u * len(others))]
    return other if as_it_stands else other[:1].upper() + other[1:]


def back_translate(
    texts: Sequence[str],
    draws: Draws,
    *,
    there: Callable[[list[str]], Sequence[str]],
    back: Callable[[list[str]], Sequence[str]],
    p: float = 1.0,
) -> list[str]:
    """Translate each text, with probability ``p``, into another language and back.

    Args:
        texts: a batch of strings.
        draws: the random numbers of its samples.
        there, back: functions that translate a list of strings into as many strings. Each is called once, with
            all selected texts, or not at all if there are none.
        p: 0 to 1.

    >>> from fastopt.data import augment
    >>> there = lambda texts: [{"good day": "bonjour"}.get(t, t) for t in texts]
    >>> back = lambda texts: [{"bonjour": "hello"}.get(t, t) for t in texts]
    >>> augment.back_translate(["good day", "bye"], augment.Draws([0, 1]), there=there, back=back)
    ['hello', 'bye']

    Source: Sennrich, Haddow & Birch 2016, arXiv:1511.06709; for augmentation, Xie et al. 2020, section 3.2,
    arXiv:1904.12848.
    """
    _check_texts("texts", texts)
    check_draws("texts", texts, draws)
    chosen = draws.uniforms("back-translation", 1)[:, 0] < _checks.real("p", p, "[0, 1]")
    results = list(texts)
    places = [i for i, take in enumerate(chosen) if take]
    if places:
        translated = _translated("there", there, [texts[i] for i in places])
        for i, text in zip(places, _translated("back", back, translated), strict=True):
            results[i] = text
    return results


def _translated(
    name: str, translate: Callable[[list[str]], Sequence[str]], texts: list[str]
) -> list[str]:
    results = translate(texts)
    _check_texts(f"the result of {name}", results)
    if len(results) != len(texts):
        raise ValueError(f"{name} returned {len(results)} texts, expected {len(texts)}")
    return list(results)


def _check_texts(name: str, texts: Sequence[str]) -> None:
    listed = hasattr(texts, "__getitem__") and not isinstance(texts, str)
    if not listed or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name} must be a sequence of strings, got {type(texts).__name__}")
