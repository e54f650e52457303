"""Flows on Prefect: a task per stage, never one per tile. simdist itself knows nothing of Prefect.

    python -m pipelines CONFIG ──> server    PREFECT_API_URL, or a private API for this run
                                     │
                                   flow      simdist-flow(config, overrides)
                                     │         a task per link ──> models.run_link ──> dataset uri
                                     │         artifacts: metrics (table), summary (markdown)
                                     v
                                   report    the same progress and summary as `simdist run`

The object store is the truth about what is done; Prefect's cache is asked only where the store says
that the dataset stands.
"""
