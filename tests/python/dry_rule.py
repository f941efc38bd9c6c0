"""DRY as its rule says it, word for word and slowly: what the sampler is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def penalties(
    tokens: Sequence[int],
    sequences: Sequence[Sequence[int]],
    multiplier: float,
    base: float,
    allowed_length: int,
    last_n: int,
) -> dict[int, float]:
    """Token -> what is taken from its logit, behind these tokens. ``sequences``: of tokens, that break repetitions."""
    tokens = list(tokens) if last_n == -1 else list(tokens)[max(0, len(tokens) - last_n) :]
    n = len(tokens)
    if multiplier == 0 or n <= allowed_length:
        return {}
    limit = n
    for at in reversed(range(n)):
        there = [len(one) for one in sequences if tokens[at : at + len(one)] == list(one)]
        if there:
            limit = n - at - max(there)  # of the tokens behind the last breaker
            break
    if limit < allowed_length:
        return {}
    longest: dict[int, int] = {}
    for behind in range(1, n):  # tokens[:behind] ends as all of them do, and tokens[behind] went on from there
        length = 0
        while length < min(behind, limit) and tokens[behind - 1 - length] == tokens[n - 1 - length]:
            length += 1
        if length >= allowed_length:
            longest[tokens[behind]] = max(length, longest.get(tokens[behind], 0))
    alone = {one[0] for one in sequences if len(one) == 1}
    most = int(np.float32(88.7228391) / np.log(np.float32(base))) if base > 1.000001 else n
    return {
        token: multiplier * float(np.float32(base)) ** min(length - allowed_length, most)
        for token, length in longest.items()
        if token not in alone
    }
