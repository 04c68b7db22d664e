"""Mixed precision: which layers stay float32 where no candidate is good enough. Pure.

Layers are ranked by what leaving one of them out wins; the shortest prefix that is inside the
budget is found by halving, and members that are not needed after all are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Judge = Callable[[tuple[str, ...]], bool]
"""Whether a model with these layers float is inside the budget."""


def rank(layers: Sequence[str], gains: Mapping[str, float]) -> tuple[str, ...]:
    """Layers by the SQNR that leaving each float gives, the largest first; ties in graph order.

    >>> rank(["a", "b", "c"], {"a": 9.0, "b": 20.0, "c": 9.0})
    ('b', 'a', 'c')
    """
    places = {layer: place for place, layer in enumerate(layers)}
    worst = min(gains.values(), default=0.0)
    return tuple(sorted(layers, key=lambda one: (-gains.get(one, worst), places[one])))


def shortest_prefix(order: Sequence[str], is_inside: Judge) -> tuple[str, ...] | None:
    """The shortest prefix of float layers that is inside, if one shorter than all of them is.

    Whether more float is always better is not certain: the answer was judged itself.

    >>> shortest_prefix("abcd", lambda floats: {"a", "b"} <= set(floats))
    ('a', 'b')
    """
    low, high = 1, len(order) - 1  # with every layer float nothing is int8
    found = None
    while low <= high:
        middle = (low + high) // 2
        tried = tuple(order[:middle])
        if is_inside(tried):
            found, high = tried, middle - 1
        else:
            low = middle + 1
    return found


def without_idle(floats: tuple[str, ...], is_inside: Judge) -> tuple[str, ...]:
    """What is left when members that the budget does not need are dropped, the last ones first.

    >>> without_idle(("a", "b", "c"), lambda floats: "b" in floats)
    ('b',)
    """
    for layer in reversed(floats):
        fewer = tuple(one for one in floats if one != layer)
        if fewer and is_inside(fewer):
            floats = fewer
    return floats
