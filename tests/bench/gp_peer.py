"""GPyTorch's or GPflow's SGPR on rows from a file: run by the Python that has it, not by ours.

    python gp_peer.py gpytorch rows.npz '{"steps": 100}'

Reads X, y, X_test, y_test, Z and starting values; prints one line of JSON. With "steps": 0 only the
bound at the values given. Knows nothing of simdist.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np


def main() -> None:
    """Run one peer."""
    which, path, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    with np.load(path) as file:
        data = {name: file[name] for name in file.files}
    told = {"gpytorch": _gpytorch, "gpflow": _gpflow}[which](data, options)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    told["peak_mib"] = usage.ru_maxrss / 1024
    print(json.dumps(told))


def _gpytorch(data: dict[str, np.ndarray], options: dict[str, Any]) -> dict[str, Any]:
    import gpytorch
    import torch

    torch.set_default_dtype(torch.float64)
    X, y, X_test = (torch.as_tensor(data[name]) for name in ("X", "y", "X_test"))
    likelihood = gpytorch.likelihoods.GaussianLikelihood()

    class Model(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            super().__init__(X, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            rbf = gpytorch.kernels.RBFKernel(ard_num_dims=X.shape[1])
            self.base = gpytorch.kernels.ScaleKernel(rbf)
            self.covar_module = gpytorch.kernels.InducingPointKernel(
                self.base, torch.as_tensor(data["Z"]).clone(), likelihood
            )

        def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
            return gpytorch.distributions.MultivariateNormal(
                self.mean_module(x), self.covar_module(x)
            )

    model = Model()
    if "lengthscale" in data:
        model.base.base_kernel.lengthscale = torch.as_tensor(data["lengthscale"])[None]
        model.base.outputscale = float(data["variance"])
        likelihood.noise = float(data["noise"])
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    model.train()
    likelihood.train()
    started, cpu = time.perf_counter(), time.process_time()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(options["steps"]):
        optimiser.zero_grad()
        loss = -mll(model(X), y)
        loss.backward()
        optimiser.step()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    with torch.no_grad():
        bound = float(mll(model(X), y)) * len(X)
    if not options["steps"]:
        return {"bound": bound}
    model.eval()
    likelihood.eval()
    with torch.no_grad():
        found = likelihood(model(X_test))
        mean, variance = found.mean.numpy(), found.variance.numpy()
    scores = _scores(data["y_test"], mean, variance)
    return {"bound": bound, "seconds": seconds, "cpu": cpu, **scores}


def _gpflow(data: dict[str, np.ndarray], options: dict[str, Any]) -> dict[str, Any]:
    import gpflow

    pair = (data["X"], data["y"][:, None])
    kernel = gpflow.kernels.RBF(
        variance=float(data.get("variance", 1.0)),
        lengthscales=data.get("lengthscale", np.ones(data["X"].shape[1])),
    )
    model = gpflow.models.SGPR(
        pair, kernel, data["Z"].copy(), noise_variance=float(data.get("noise", 0.1))
    )
    started, cpu = time.perf_counter(), time.process_time()
    if options["steps"]:
        gpflow.optimizers.Scipy().minimize(
            model.training_loss,
            model.trainable_variables,
            options={"maxiter": options["steps"]},
        )
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    bound = float(model.elbo())
    told = {"bound": bound, "jitter": float(gpflow.config.default_jitter())}
    if not options["steps"]:
        return told
    mean, variance = (np.asarray(v)[:, 0] for v in model.predict_y(data["X_test"]))
    return {**told, "seconds": seconds, "cpu": cpu, **_scores(data["y_test"], mean, variance)}


def _scores(y: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> dict[str, float]:
    error = y - mean
    z2 = error**2 / variance
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "nlpd": float(np.mean(0.5 * np.log(2 * np.pi * variance) + 0.5 * z2)),
        "coverage_95": float(np.mean(z2 <= 1.959963984540054**2)),
        "mean_z2": float(np.mean(z2)),
    }


if __name__ == "__main__":
    main()
