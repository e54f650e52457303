"""Any sequence of operations on objects does what it does to a dictionary."""

from __future__ import annotations

import tempfile
import uuid

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simdist.errors import ObjectMissing
from simdist.store import Objects, open_store

KEYS = st.sampled_from(["a", "b/c", "b/d/e", "bb", "ü/ x.json"])
DATA = st.binary(max_size=40)


class ObjectsLikeADictionary(RuleBasedStateMachine):
    scheme: str

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        name = f"memory://{uuid.uuid4().hex}" if self.scheme == "memory" else self.folder.name
        self.objects: Objects = open_store(name).objects
        self.model: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(key=KEYS, data=DATA)
    def put(self, key: str, data: bytes) -> None:
        self.objects.put(key, data)
        self.model[key] = data

    @rule(key=KEYS, data=DATA)
    def put_once(self, key: str, data: bytes) -> None:
        assert self.objects.put_once(key, data) == self.model.setdefault(key, data)

    @rule(keys=st.lists(KEYS, unique=True))
    def delete(self, keys: list[str]) -> None:
        self.objects.delete(keys)
        for key in keys:
            self.model.pop(key, None)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        if key in self.model:
            assert self.objects.get(key) == self.model[key]
        else:
            with pytest.raises(ObjectMissing):
                self.objects.get(key)

    @rule(key=KEYS, start=st.integers(0, 40), length=st.integers(0, 50))
    def get_range(self, key: str, start: int, length: int) -> None:
        if start < len(self.model.get(key, b"")):
            assert (
                self.objects.get_range(key, start, length)
                == (self.model[key][start : start + length])
            )

    @rule(key=KEYS)
    def read_through_a_file(self, key: str) -> None:
        if key in self.model:
            with self.objects.open(key) as file:
                assert file.read() == self.model[key]

    @invariant()
    def listings_and_heads_agree(self) -> None:
        sizes = {key: len(data) for key, data in self.model.items()}
        assert {info.key: info.nbytes for info in self.objects.list("")} == sizes
        below = {key: size for key, size in sizes.items() if key.startswith("b/")}
        assert {info.key: info.nbytes for info in self.objects.list("b")} == below
        info = self.objects.head("b/c")
        assert (None if info is None else info.nbytes) == sizes.get("b/c")


class Memory(ObjectsLikeADictionary):
    scheme = "memory"


class File(ObjectsLikeADictionary):
    scheme = "file"


TestMemory = Memory.TestCase
TestFile = File.TestCase
for case in (TestMemory, TestFile):
    case.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
