"""The flow, committed once on this process's own threads: what clusters are compared with."""

import pytest
from clusters.flows import committed, simdist, write_flow


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    flow = write_flow(tmp_path_factory.mktemp("local") / "flow", {"kind": "local"})
    run = simdist("run", flow)
    assert run.returncode == 0, run.stderr
    manifests = committed(flow)
    assert len(manifests) == 3  # import, partition, graph
    return manifests
