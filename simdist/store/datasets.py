"""The nouns of what is stored: a shard, the manifest that vouches for shards, and a dataset.

    Dataset = Store + Manifest(fingerprint, config, lineage, metrics)
                        └── Shard(rows) ── role ──> ObjectRef(key, sha256, nbytes)

A dataset exists when its manifest does. Readers follow manifests, never listings, so they see a
whole dataset or none. A manifest is JSON that a person can read, and its bytes are deterministic:
the same result committed twice is the same object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from simdist.errors import ConfigError, IntegrityError, StoreError
from simdist.store.place import check_key
from simdist.store.sealed import seal, unseal
from simdist.types import Json, ObjectRef

if TYPE_CHECKING:
    from simdist.store.store import Store

__all__ = ["FORMAT", "Dataset", "Manifest", "Shard"]

FORMAT = 2  # of the manifest's JSON; a reader refuses any other


@dataclass(frozen=True, slots=True)
class Shard:
    """A run of consecutive rows: its objects by role ("vectors", "rows", "graph") and small facts.

    A row's global number is the sum of the rows of the shards before its own, plus its place.
    """

    rows: int
    objects: Mapping[str, ObjectRef]
    facts: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        return {
            "rows": self.rows,
            "objects": {role: ref.to_json() for role, ref in self.objects.items()},
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Shard:
        return cls(
            rows=value["rows"], objects=_refs_from_json(value["objects"]), facts=value["facts"]
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a committed dataset is: what made it, from what, its shards, and what was measured.

    inputs: role -> fingerprint of the dataset that played it.
    objects: objects of the dataset as a whole, by role (a centre table, a permutation).
    """

    fingerprint: str
    stage: str
    version: int
    config: Json
    inputs: Mapping[str, str]
    rows: int
    shards: tuple[Shard, ...]
    metrics: Mapping[str, Json] = field(default_factory=dict)
    objects: Mapping[str, ObjectRef] = field(default_factory=dict)

    def refs(self) -> Iterator[ObjectRef]:
        """Every object the manifest vouches for: the dataset's own, then shard by shard."""
        yield from self.objects.values()
        for shard in self.shards:
            yield from shard.objects.values()

    def to_json(self) -> dict[str, Json]:
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "stage": self.stage,
            "version": self.version,
            "config": self.config,
            "inputs": dict(self.inputs),
            "rows": self.rows,
            "shards": [shard.to_json() for shard in self.shards],
            "metrics": dict(self.metrics),
            "objects": {role: ref.to_json() for role, ref in self.objects.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Manifest:
        """The manifest that `to_json` gave; StoreError where the format is another one."""
        if value["format"] != FORMAT:
            raise StoreError(
                f"manifest of {value.get('fingerprint', '?')} has format {value['format']}, this "
                f"simdist reads format {FORMAT}: use the simdist that wrote it, or compute again"
            )
        return cls(
            fingerprint=value["fingerprint"],
            stage=value["stage"],
            version=value["version"],
            config=value["config"],
            inputs=value["inputs"],
            rows=value["rows"],
            shards=tuple(Shard.from_json(shard) for shard in value["shards"]),
            metrics=value["metrics"],
            objects=_refs_from_json(value["objects"]),
        )

    def to_bytes(self) -> bytes:
        """Sorted, indented, sealed JSON; InputError where metrics or facts are no JSON (NaN)."""
        return seal(self.to_json(), what=f"the manifest of {self.stage}", indent=1)

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Manifest:
        """The manifest in `data`; IntegrityError naming `where` if it is not one."""
        try:
            value = json.loads(data)
            sealed = value["format"] == FORMAT or "seal" in value
            return cls.from_json(unseal(data, where=where) if sealed else value)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise IntegrityError(
                f"{where} is no manifest ({len(data)} bytes, {type(error).__name__}: {error}): "
                f"it was cut short or overwritten; delete it and run the job again"
            ) from error


@dataclass(frozen=True, slots=True)
class Dataset:
    """A committed dataset: where it lies and what it is."""

    store: Store
    manifest: Manifest

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """The same dataset as one of this class, which knows how to open it."""
        return cls(dataset.store, dataset.manifest)

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def rows(self) -> int:
        return self.manifest.rows

    @property
    def shards(self) -> tuple[Shard, ...]:
        return self.manifest.shards

    @property
    def metrics(self) -> Mapping[str, Json]:
        return self.manifest.metrics

    @property
    def uri(self) -> str:
        """Names this dataset anywhere: `<store>/manifests/<fingerprint>.json`."""
        return f"{self.store.uri}/manifests/{self.fingerprint}.json"


def _refs_from_json(value: Mapping[str, Json]) -> dict[str, ObjectRef]:
    refs = {role: ObjectRef.from_json(ref) for role, ref in value.items()}
    for ref in refs.values():
        try:
            check_key(ref.key)  # a manifest may have been written by somebody else
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return refs
