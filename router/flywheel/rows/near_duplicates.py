"""Groups of near-duplicate texts, so that a test never holds what was trained on. Time grows about linearly with the texts.

Two texts are near-duplicates if the Jaccard similarity of their character 5-grams is at least 0.8, unless their numbers or
quoted strings differ: "12 plus 34" and "13 plus 34" are two tasks. Candidates come from MinHash in bands (Broder 1997; Leskovec
et al., Mining of Massive Datasets, chapter 3) and are compared exactly. A pair of similarity 0.8 is found with chance 0.998.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Hashes = NDArray[Any]  # uint64; the type of their arithmetic is too general to say so

LEAST = 0.8  # Jaccard similarity of near-duplicates
GRAM = 5  # characters
BANDS = 16
ROWS = 5  # MinHashes a band
LONGEST = 4_000  # characters compared of a text: of a longer one both ends
AT_ONCE = 2_000_000  # characters hashed at once, which bounds memory
LIKELY = 0.6  # share of equal MinHashes from which a pair is compared exactly: 4.5 standard deviations below LEAST
PAIRS = 200_000  # compared at once
WINDOW = 4  # neighbours in a band that a text is compared with; near-duplicates of one text are neighbours
FACTS = re.compile(
    r"\d+(?:[.,]\d+)*|\"[^\"\n]{0,300}\"|“[^”\n]{0,300}”|«[^»\n]{0,300}»|`[^`\n]{0,300}`|(?<!\w)'[^'\n]{0,300}'(?!\w)"
)
"""numbers and quoted strings; an apostrophe inside a word opens none. The bound keeps the time linear"""


def plain(text: str) -> str:
    """The text as it is compared: lower case, single spaces, both ends of a long one."""
    short = " ".join(text.lower().split())
    return short if len(short) <= LONGEST else short[: LONGEST // 2] + short[-LONGEST // 2 :]


def facts_of(text: str) -> str:
    """The numbers and quoted strings of a text, in order: texts in which these differ are different tasks."""
    return "\0".join(FACTS.findall(text))


def near_duplicates(texts: Sequence[str]) -> Ints:
    """(n,) the group of each text: the place of its first near-duplicate. The same texts in the same order give the same."""
    said = [plain(text) for text in texts]
    facts = [facts_of(text) for text in texts]
    first: dict[tuple[str, str], int] = {}
    same = np.array([first.setdefault(both, i) for i, both in enumerate(zip(said, facts, strict=True))], dtype=np.int64)
    distinct = np.flatnonzero(same == np.arange(len(same)))
    joined = similar([said[i] for i in distinct], [facts[i] for i in distinct])
    place = np.zeros(len(same), dtype=np.int64)
    place[distinct] = distinct[joined]
    return np.asarray(place[same])


def similar(texts: Sequence[str], facts: Sequence[str]) -> Ints:
    """(n,) the group of each of these distinct texts, in the form of `plain`."""
    groups = Groups(len(texts))
    if not len(texts):
        return groups.found()
    told = np.array([_number(fact) for fact in facts], dtype=np.uint64)
    signed = signatures(texts)
    grams = lru_cache(maxsize=100_000)(lambda i: frozenset(_grams(texts[i])))
    for i, j in candidates(signed, told):
        if groups.of(i) != groups.of(j) and facts[i] == facts[j] and jaccard(grams(i), grams(j)) >= LEAST:
            groups.join(i, j)
    return groups.found()


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _grams(text: str) -> Iterator[str]:
    padded = text.ljust(GRAM)
    return (padded[i : i + GRAM] for i in range(len(padded) - GRAM + 1))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """|a and b| / |a or b|."""
    both = len(a & b)
    return both / (len(a) + len(b) - both)


# -- MinHash --------------------------------------------------------------------------------------------------------------------


def signatures(texts: Sequence[str]) -> Hashes:
    """(n, BANDS * ROWS) MinHashes of the texts' character 5-grams."""
    found = np.zeros((len(texts), BANDS * ROWS), dtype=np.uint64)
    sizes = np.cumsum([max(len(text), GRAM) for text in texts])
    begin = 0
    while begin < len(texts):
        before = int(sizes[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(sizes, before + AT_ONCE, side="right")))
        found[begin:end] = _signatures([text.ljust(GRAM) for text in texts[begin:end]])
        begin = end
    return found


def _signatures(texts: Sequence[str]) -> Hashes:
    """The same of texts of at least 5 characters, all at once."""
    letters = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    size = np.array([len(text) for text in texts])
    begins = np.cumsum(size) - size
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        hashed = np.zeros(len(letters) - GRAM + 1, dtype=np.uint64)
        for k in range(GRAM):
            hashed = hashed * np.uint64(0x100000001B3) + letters[k : len(letters) - GRAM + 1 + k]
        hashed = _mixed(hashed)
        inside = np.ones(len(letters), dtype=bool)
        for k in range(1, GRAM):  # 5-grams that run over the end of a text
            inside[begins + size - k] = False
        hashed = hashed[inside[: len(hashed)]]
        starts = np.concatenate([[0], np.cumsum(size - GRAM + 1)[:-1]])
        factors = np.random.default_rng(5).integers(1, 2**63, BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
        return np.stack([np.minimum.reduceat(_mixed(hashed * factor), starts) for factor in factors], axis=1)


def _mixed(values: Hashes) -> Hashes:
    """Every bit of a value spread over all (the finaliser of MurmurHash3), modulo 2^64."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    mixed: Hashes = values ^ (values >> np.uint64(33))
    return mixed


def candidates(signed: Hashes, told: Hashes) -> Iterator[tuple[int, int]]:
    """Pairs of places that may be near-duplicates: the same in one band, and with the same facts. Each pair comes once."""
    n, found = len(signed), [np.zeros(0, dtype=np.int64)]
    for band in range(BANDS):
        with np.errstate(over="ignore"):
            key = told.copy()
            for row in range(ROWS):
                key = _mixed(key * np.uint64(31) + signed[:, band * ROWS + row])
        # Inside a band by the next band's MinHashes, so that what is most alike stands together.
        order = np.lexsort((signed[:, (band + 1) * ROWS % signed.shape[1]], key))
        for step in range(1, min(WINDOW, n - 1) + 1):
            a, b = order[:-step], order[step:]
            alike = key[a] == key[b]
            found.append(np.minimum(a, b)[alike] * n + np.maximum(a, b)[alike])
    pairs = np.unique(np.concatenate(found))
    for at in range(0, len(pairs), PAIRS):
        a, b = pairs[at : at + PAIRS] // n, pairs[at : at + PAIRS] % n
        likely = (signed[a] == signed[b]).mean(axis=1) >= LIKELY
        yield from zip(a[likely].tolist(), b[likely].tolist(), strict=True)


class Groups:
    """Union-find over 0 .. n-1; a group's name is its smallest member."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def of(self, i: int) -> int:
        """The name of the group that holds i."""
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        """Make one group of the two that hold i and j."""
        a, b = sorted((self.of(i), self.of(j)))
        self.parent[b] = a

    def found(self) -> Ints:
        """(n,) the group of each."""
        return np.array([self.of(i) for i in range(len(self.parent))], dtype=np.int64)
