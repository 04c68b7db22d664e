"""Sequential tests: evidence against "all is well" that may be looked at after every message.

A test that is repeated until it says yes says yes at last: with a fixed 5 % test, a thousand looks
stop most good models. Here evidence is an *e-value* E: a quantity that is non-negative and, while
all is well, a supermartingale from 1. By Ville's inequality (J. Ville, Etude critique de la notion
de collectif, 1939) the probability that it *ever* reaches 1/alpha is then at most alpha, however
often one looks and whenever one stops. Each E here is a likelihood ratio as in A. Wald,
"Sequential Tests of Statistical Hypotheses", Ann. Math. Statist. 16 (1945), 117 to 186, averaged
over alternatives (H. Robbins, "Statistical methods related to the law of the iterated logarithm",
Ann. Math. Statist. 41 (1970); R. Johari, P. Koomen, L. Pekelis and D. Walsh, "Always Valid
Inference", Operations Research 70 (2022)). All are functions of counts, so no history is kept.

E-values are returned as natural logarithms: the evidence is enough when `log_e >= log(1/alpha)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_RUNGS: Final = 24


def log_e_rate_above(bad: int, n: int, limit: float) -> float:
    """The evidence that events are more frequent than `limit`, from `bad` of `n` trials.

        E = mean over p of (p/limit)^bad · ((1-p)/(1-limit))^(n-bad),   limit < p < 1

    with p on a grid from just above the limit to 1. For any true rate q <= limit each term is a
    supermartingale, as E[term] = q·p/limit + (1-q)·(1-p)/(1-limit) <= 1.
    """
    if n <= 0:
        return 0.0
    if limit <= 0.0:
        return math.inf if bad else 0.0
    if limit >= 1.0:
        return 0.0
    terms = []
    for rung in range(_RUNGS):
        p = limit + (1.0 - limit) * 2.0 ** (-rung / 2) * 0.999
        terms.append(bad * math.log(p / limit) + (n - bad) * (math.log1p(-p) - math.log1p(-limit)))
    return _log_mean(terms)


def log_e_mean_below(counts: Sequence[int], mean: float) -> float:
    """The evidence that values in [0, 1], counted in equal bins, have a mean below `mean`.

        E = mean over λ of prod over bins b of (1 + λ·(mean - top of b))^count(b)

    The bet of I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by
    betting", JRSS B 86 (2024), on a grid of λ from 0 to 1/(1-mean). A value is taken to be the top
    of its bin, which can only weaken the evidence.
    """
    if not counts or not 0.0 < mean < 1.0:
        return 0.0
    tops = [(b + 1) / len(counts) for b in range(len(counts))]
    terms = []
    for rung in range(_RUNGS):
        stake = 2.0 ** (-rung / 2) * 0.999 / (1.0 - mean)
        terms.append(
            sum(
                count * math.log1p(stake * (mean - top))
                for count, top in zip(counts, tops, strict=True)
            )
        )
    return _log_mean(terms)


def log_e_other_shares(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The evidence that categories do not come with these `shares` (which are above 0, sum to 1).

        E = B(a + counts) / (B(a) · prod shares_i^counts_i),   a = k · shares

    A Dirichlet-multinomial mixture against a fixed multinomial: M. Lindon and A. Malek,
    "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022. B is the multivariate beta
    function, k the number of categories.
    """
    alpha = [share * len(shares) for share in shares]
    n = sum(counts)
    found = math.lgamma(sum(alpha)) - math.lgamma(sum(alpha) + n)
    for count, prior, share in zip(counts, alpha, shares, strict=True):
        found += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return found


def _log_mean(terms: Sequence[float]) -> float:
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms) / len(terms))
