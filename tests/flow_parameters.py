"""Flows called with parameters that name blocks, variables and patience; a script of its own, since
Prefect reads its settings when it is imported. Prints how each ended, as JSON lines."""

from __future__ import annotations

import json
import os
from typing import Any

from prefect.variables import Variable
from prefect_aws import AwsClientParameters, AwsCredentials

from pipelines.flow import simdist_flow
from pipelines.settings import StageOptions

ONCE = StageOptions(retries=0)


def attempt(config: str, **parameters: Any) -> None:
    try:
        summary = simdist_flow(config, **{"stages": ONCE, **parameters})
    except Exception as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
    else:
        print(json.dumps({"store": summary.store}), flush=True)


def main() -> None:
    """given: where the S3 server is, and the flows to run, from the test."""
    given = json.loads(os.environ.pop("GIVEN"))
    there = AwsClientParameters(endpoint_url=given["endpoint"])
    AwsCredentials(aws_client_parameters=there, **given["keys"]).save("lake")
    Variable.set("one_worker", {"kind": "local", "workers": 1})
    Variable.set("lake", given["uri"])
    places = {"store": "variables/lake", "credentials": "aws-credentials/lake"}
    attempt(given["config"], **places, engine="variables/one_worker")
    attempt(given["config"], **{**places, "credentials": "aws-credentials/sea"})
    attempt(given["config"], engine="variables/none")
    attempt(given["late"], stages=StageOptions(retries=0, timeout_seconds=3))


if __name__ == "__main__":
    main()
