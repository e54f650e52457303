"""Real graphs as they grow: how many of 15 true neighbours each row has after each join.

Every row was looked at (KnnParams(sample=rows, sample_limit=rows), recall=0.9999, seed 0): 20,000 x
384 and 12,000 x 128 package embeddings, cosine, and 10,000 MNIST digits, euclidean. A word such as
`acdef` stands for rows with 10, 12, 13, 14 and 15 hits in five successive graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simdist.types import Array

__all__ = ["GROWTH", "Growth"]


@dataclass(frozen=True, slots=True)
class Growth:
    """hits: [graphs, rows] neighbours found. fresh: share of neighbours that the join before each
    graph had changed."""

    hits: Array
    fresh: tuple[float, ...]

    def after(self, graph: int) -> tuple[int, float]:
        """The graph that one more join makes, and what the join changed: past the last, nothing."""
        if graph + 1 < len(self.fresh):
            return graph + 1, self.fresh[graph + 1]
        return graph, 0.0


def _read(words: str) -> Array:
    """word, number of rows, word, number of rows, ..."""
    parts = words.split()
    each = np.array([[int(digit, 16) for digit in word] for word in parts[::2]])
    return np.repeat(each, [int(number) for number in parts[1::2]], axis=0).T


GROWTH = {
    "packages": Growth(
        _read(
            """
            0ffff 1 6666f 1 6779f 1 7777e 1 7abbe 1 7cccf 1 7efff 1 8888a 1 8899a 1 8899c 1
            8999c 2 899be 1 89cee 1 8aaad 1 8aaaf 1 8bbbc 1 8bccf 1 8bddf 1 8beef 1 9999b 1
            9999c 1 9999f 1 999ae 1 9aaac 1 9aaae 2 9aaaf 2 9aacf 1 9abbc 1 9abbe 1 9accd 1
            9acde 1 9bbbd 2 9bbbf 1 9bcef 1 9bddd 1 9bdee 1 9cccf 1 9cddf 2 9ddde 1 9dddf 1
            9deee 1 9deef 1 9eeee 1 9eeff 1 9ffff 2 aaaab 2 aaaae 2 aaaaf 1 aaabd 1 aaabe 2
            aaabf 2 aabbe 1 aabbf 1 aabef 1 aabff 1 abbbb 1 abbbc 1 abbbd 3 abbbe 1 abbbf 3
            abbce 1 abcde 1 abfff 1 acccd 2 accce 2 acccf 1 acddd 1 acdde 1 acddf 1 acfff 1
            addde 1 adddf 2 adeee 1 adeef 1 aeeef 2 aefff 1 affff 3 bbbbb 1 bbbbc 1 bbbbd 2
            bbbbe 5 bbbbf 9 bbbcd 1 bbbce 6 bbbcf 1 bbbdf 1 bbbee 1 bbccf 1 bbcde 1 bbcee 1
            bcccd 5 bccce 4 bcccf 5 bccde 2 bccdf 3 bcddd 2 bceef 1 bceff 1 bcfff 1 bdddd 2
            bddde 3 bdddf 7 bddef 2 bdeee 3 bdeef 2 bdfff 1 beeee 7 beeef 8 beeff 3 befff 7
            bffff 8 ccccc 5 ccccd 16 cccce 16 ccccf 22 cccdd 3 cccde 3 cccdf 12 ccddd 2 ccddf 1
            ccdee 1 ccdef 1 ccdff 2 cceff 1 cdddd 8 cddde 21 cdddf 27 cddee 5 cddef 4 cdeee 7
            cdeef 13 cdeff 4 cdfff 9 ceeee 15 ceeef 26 ceeff 9 cefff 22 cffff 59 ddddd 24 dddde
            58 ddddf 108 dddee 12 dddef 24 dddff 7 ddeee 3 ddeef 7 ddeff 6 ddfff 1 deeee 58
            deeef 145 deeff 22 defff 52 dffff 166 eeeee 294 eeeef 645 eeeff 139 eefff 68 effff
            1070 fffff 16572
            """
        ),
        (0.11154, 0.00854, 0.001, 0.00112, 0.00077),
    ),
    "packages in 128 dimensions": Growth(
        _read(
            """
            5899f 1 7888d 1 7eeef 1 888ef 1 899ae 1 9ceef 1 9ddde 1 9efff 1 abbbb 1 abbbe 1
            abcce 1 acddf 1 aeeef 1 aefff 1 bbbbe 1 bbbbf 3 bbbce 1 bbbcf 1 bbcce 1 bccce 1
            bcccf 2 bccde 1 bccdf 1 bcddf 1 bcdef 1 bdddf 3 bdeef 1 beeef 2 ccccd 1 cccce 5
            ccccf 5 cccdf 3 cccef 1 ccdde 1 ccdee 1 cdddd 1 cddde 5 cdddf 6 cddef 2 cdeef 3
            cdeff 1 cdfff 2 ceeee 3 ceeef 10 ceeff 3 cefff 2 cffff 1 ddddd 5 dddde 18 ddddf 34
            dddee 3 dddef 23 dddff 6 ddeee 2 ddeef 3 ddeff 2 deeee 8 deeef 30 deeff 12 defff 14
            dffff 34 eeeee 71 eeeef 373 eeeff 95 eefff 42 effff 316 fffff 10819
            """
        ),
        (0.0649, 0.00332, 0.00051, 0.00098, 0.0002),
    ),
    "digits": Growth(
        _read(
            """
            cccf 1 cddf 1 cdff 1 cfff 1 dddf 4 ddef 2 deee 1 deff 3 dfff 4 eeee 5 eeef 43 eeff
            24 efff 57 ffff 9853
            """
        ),
        (0.02699, 0.00048, 0.0002, 4e-05),
    ),
}
