"""The contract, kept by each engine."""

import pytest

from simdist.engine import Engine
from simdist.testing.engine_contract import EngineContract, RemoteEngineContract


class TestLocal(EngineContract):
    @pytest.fixture
    def engine(self, local_engine: Engine) -> Engine:
        return local_engine


class TestDask(RemoteEngineContract):
    @pytest.fixture
    def engine(self, dask_engine: Engine) -> Engine:
        return dask_engine


class TestRay(RemoteEngineContract):
    @pytest.fixture
    def engine(self, ray_engine: Engine) -> Engine:
        return ray_engine
