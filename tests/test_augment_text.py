"""Text augmentation: only words in the table change, with the given probability and independently of the batch;
translators are called as documented."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastopt.data import augment

TABLE = {"big": ["large", "huge", "great"], "cat": ["tom"], "NASA": ["the agency"], "odd": []}
TEXTS = ["A big, BIG cat!", "", "NASA  is\todd; Cat-like", "über big"]


def draws(n, seed=5):
    return augment.Draws(np.arange(n), seed=seed)


def test_words_of_the_table_change_and_nothing_else():
    found = augment.replace_synonyms(TEXTS, draws(4), synonyms=TABLE, p=1.0)
    one = {"large", "huge", "great"}
    assert found[1] == ""
    assert found[2] == "the agency  is\todd; Tom-like"
    assert found[3] in {f"über {word}" for word in one}
    assert found[0] in {f"A {a}, {b.capitalize()} tom!" for a in one for b in one}


def test_with_p_0_nothing_changes():
    assert augment.replace_synonyms(TEXTS, draws(4), synonyms=TABLE, p=0.0) == TEXTS


def test_words_change_with_probability_p_and_synonyms_are_equally_likely():
    words = " ".join(["big"] * 50)
    found = " ".join(augment.replace_synonyms([words] * 80, draws(80), synonyms=TABLE, p=0.3)).split()
    assert abs(found.count("big") - 2800) < 4 * math.sqrt(4000 * 0.3 * 0.7)
    for word in TABLE["big"]:
        assert abs(found.count(word) - 400) < 4 * math.sqrt(4000 * 0.1 * 0.9)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
@pytest.mark.parametrize("function", ["synonyms", "back-translation"])
def test_any_split_into_batches_gives_the_same(function, order):
    texts = [text * (1 + i) for i, text in enumerate(TEXTS)]

    def reword(texts, draws):
        if function == "synonyms":
            return augment.replace_synonyms(texts, draws, synonyms=TABLE, p=0.5)
        return augment.back_translate(texts, draws, there=swapped, back=doubled, p=0.5)

    whole = reword(texts, draws(4))
    for i in order:
        assert reword([texts[i]], augment.Draws([i], seed=5)) == [whole[i]]


def swapped(texts):
    return [text.swapcase() for text in texts]


def doubled(texts):
    return [text + text for text in texts]


def test_a_share_p_is_translated_there_and_back_in_one_call_each():
    texts = [f"t{i}" for i in range(1000)]
    calls = []

    def there(batch):
        calls.append(("there", list(batch)))
        return swapped(batch)

    def back(batch):
        calls.append(("back", list(batch)))
        return doubled(batch)

    found = augment.back_translate(texts, draws(1000), there=there, back=back, p=0.3)
    chosen = [text for text, new in zip(texts, found, strict=True) if new != text]
    assert calls == [("there", chosen), ("back", swapped(chosen))]
    assert [new for new in found if new not in texts] == doubled(swapped(chosen))
    assert abs(len(chosen) - 300) < 4 * math.sqrt(210)


def test_translators_are_not_called_without_texts():
    def never(texts):
        raise AssertionError

    assert augment.back_translate(["a"], draws(1), there=never, back=never, p=0.0) == ["a"]


INVALID = {
    "one string": (
        lambda: augment.replace_synonyms("abc", draws(3), synonyms=TABLE),
        TypeError,
        "texts must be a sequence of strings, got str",
    ),
    "one string to translate": (
        lambda: augment.back_translate("ab", draws(2), there=list, back=list),
        TypeError,
        "texts must be a sequence of strings, got str",
    ),
    "no string": (
        lambda: augment.replace_synonyms([1], draws(1), synonyms=TABLE),
        TypeError,
        "texts must be a sequence of strings, got list",
    ),
    "number": (
        lambda: augment.replace_synonyms(TEXTS, draws(3), synonyms=TABLE),
        ValueError,
        "texts has 4 samples, but draws has 3",
    ),
    "p": (
        lambda: augment.replace_synonyms(TEXTS, draws(4), synonyms=TABLE, p=-0.1),
        ValueError,
        r"p must lie in \[0, 1\], got -0.1",
    ),
    "a string for a list": (
        lambda: augment.replace_synonyms(["big"], draws(1), synonyms={"big": "huge"}, p=1.0),
        TypeError,
        r"synonyms\['big'\] must be a sequence of strings, got str",
    ),
    "a set for a list": (
        lambda: augment.replace_synonyms(["Big"], draws(1), synonyms={"big": {"huge"}}, p=1.0),
        TypeError,
        r"synonyms\['big'\] must be a sequence of strings, got set",
    ),
    "a number for a word": (
        lambda: augment.replace_synonyms(["big"], draws(1), synonyms={"big": [3]}, p=1.0),
        TypeError,
        r"synonyms\['big'\] must be a sequence of strings, got list",
    ),
    "no table": (
        lambda: augment.replace_synonyms(["big"], draws(1), synonyms=None),
        TypeError,
        "synonyms has type NoneType, expected a dict",
    ),
    "a list for a table": (
        lambda: augment.replace_synonyms(["big"], draws(1), synonyms=["big"]),
        TypeError,
        "synonyms has type list, expected a dict",
    ),
    "no texts": (
        lambda: augment.replace_synonyms(None, draws(1), synonyms=TABLE),
        TypeError,
        "texts must be a sequence of strings, got NoneType",
    ),
    "an iterator": (
        lambda: augment.back_translate(["a"], draws(1), there=lambda t: map(str, t), back=doubled),
        TypeError,
        "the result of there must be a sequence of strings, got map",
    ),
    "nothing": (
        lambda: augment.back_translate(["a"], draws(1), there=lambda t: None, back=doubled),
        TypeError,
        "the result of there must be a sequence of strings, got NoneType",
    ),
    "too few": (
        lambda: augment.back_translate(["a"], draws(1), there=lambda t: [], back=doubled),
        ValueError,
        "there returned 0 texts, expected 1",
    ),
    "bytes": (
        lambda: augment.back_translate(["a"], draws(1), there=swapped, back=lambda t: [b"a"]),
        TypeError,
        "the result of back must be a sequence of strings",
    ),
}


@pytest.mark.parametrize(("call", "kind", "says"), INVALID.values(), ids=INVALID)
def test_invalid_arguments_raise(call, kind, says):
    with pytest.raises(kind, match="^" + says):
        call()
