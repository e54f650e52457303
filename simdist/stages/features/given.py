"""A map that was fitted on arrays, as a model: written where the arrays are, committed at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from simdist.runner.plan import Commit, Job, Record, Round, Rounds, Taskless
from simdist.stages.features.fit import committed_map
from simdist.types import Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.stages.features.maps import FeatureMap
    from simdist.store.store import Store

__all__ = ["GivenFeatures", "GivenMap"]


@dataclass(frozen=True, slots=True)
class GivenMap:
    """arrays: of the map, as they lie in the store, by role. facts: what a manifest says of it."""

    arrays: Mapping[str, ObjectRef]
    facts: Mapping[str, Json]

    @classmethod
    def write(cls, found: FeatureMap, store: Store) -> GivenMap:
        """Write a map's arrays."""
        arrays = {role: store.write_array(role, array) for role, array in found.arrays().items()}
        return cls(arrays, found.facts())

    def to_json(self) -> Json:
        arrays = {role: ref.sha256 for role, ref in self.arrays.items()}
        return {"arrays": arrays, "facts": dict(self.facts)}


class GivenFeatures(Taskless):
    """Commits a map that lies in the store already; has no tasks and no inputs."""

    name: ClassVar[str] = "given_features"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        config: GivenMap = job.config
        return committed_map(Record("given", config.arrays, config.facts))
