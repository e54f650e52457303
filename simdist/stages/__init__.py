"""What a user can ask for: each stage turns datasets into one committed dataset.

    files ── import_vectors ──> vectors ──┬── partition ──> partition ──┐
                                          ├───────── knn_graph <────────┘ ──> knn_graph
                                          ├──────── similarity_tiles ───────> the matrix, in Zarr
                                          └── similarity_join ──> pairs ── deduplicate ──> rows kept
    knn_graph ── append, delete, compact ──> the graph as its rows come and go    (stages/grow)

    knn_graph ── similarity_graph ──┐
    edges ────── import_graph ──────┴──> links ──┬── connected_components ──> labels     (links)
                                                 ├── spectral_embedding ──> vectors ── clusters
                                                 ├── propagate, label_propagation, ...
                                                 └── affinity_propagation ──> exemplars

A stage is pure (`simdist.runner.plan.Stage`): it says which tasks come next and computes one of
them, and knows neither the engine, the workers nor the clock. Stages do not import one another:
they meet through datasets, chained by `simdist.models` or by a config.

May import: the runner and everything below it. May not import: models, config, cli, pipelines.
"""
