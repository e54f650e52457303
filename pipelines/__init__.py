"""Flows on Prefect: a task per stage, never one per tile. simdist itself knows nothing of Prefect.

    python -m pipelines CONFIG ──> server    PREFECT_API_URL, or a private API for this run
    deploy/prefect.yaml, a worker ──┐  │
                                    v  v
                                   flow      simdist-flow(config, overrides, store=, engine=, ...)
                                     │
              places ── variables, ──┤       where bytes lie and tasks run, whose keys
                        blocks       v
                                   walk      a task per link ──> models.run_link ──> dataset uri
                                     │         progress   an artifact for each stage under way
                                     v         settings   retries, timeouts
                                 artifacts   metrics (table), summary (markdown), or
                                   pages     what happened, what stands, what to do next

A cancelled run's worker sends SIGTERM; it unwinds through the runner, which tells the tasks of
this driver, and no other's, to stop. The object store is the truth about what is done; Prefect's
cache is asked only where the store says that the dataset stands.
"""
