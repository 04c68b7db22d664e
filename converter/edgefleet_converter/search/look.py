"""A search alone: a model and a recipe in, what was found out; no bundle, no key."""

from __future__ import annotations

from pathlib import Path

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import Signer
from edgefleet_converter.bench import Bench, Progress
from edgefleet_converter.labels import find_labels
from edgefleet_converter.opening import open_source
from edgefleet_converter.recipe import Recipe
from edgefleet_converter.scratch import scratch
from edgefleet_converter.search.cache import Cache
from edgefleet_converter.search.figures import SearchReport
from edgefleet_converter.search.hunt import hunt


def look(
    source: Path,
    recipe: Recipe,
    *,
    cache: Cache | None = None,
    trust_pickle: bool = False,
    toolchain: Path | None = None,
    progress: Progress = lambda _: None,
    key: Signer | None = None,
) -> tuple[SearchReport, ...]:
    """One account for each int8 target of the recipe, whether its search is enabled or not.

    The cache has results, from which a search resumes; by default nothing is kept.

    Raises:
        OperatorError: as `build`; there is no int8 target, or the model is int8 already.
    """
    targets = [target for target in recipe.targets if target.is_int8]
    if not targets:
        raise OperatorError("the recipe has no int8 target to search for")
    with scratch() as place:
        bench = Bench(recipe, place, progress, toolchain, cache or Cache(None), key)
        opened = open_source(bench, source, trust_pickle=trust_pickle)
        truth = opened.held_out.classes(
            find_labels(recipe, opened.named, opened.answers), opened.answers
        )
        found = []
        for target in targets:
            answers = opened.models[target.kind].answers
            if answers is not None and answers.is_int8:
                raise OperatorError(f"{source} is int8 already: there is nothing to search for")
            found.append(hunt(bench, opened, target, truth).report)
        return tuple(found)
