"""What a user calls: chains of stages on arrays and on stored datasets.

    knn_graph(x or dataset) ──> links: import ──> partition ──> knn_graph ──> KnnGraph or Dataset
                                        │ each link is a stage, its config, its inputs by name
                                        v
                                  runner.run, on any engine and store

An array goes through a scratch store and comes back as arrays; a stored dataset stays stored.
"""
