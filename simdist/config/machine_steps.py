"""Kernel machines as steps of a flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator

from simdist.config.fields import Count, Fraction, Name, Number, Positive, Seed, Text
from simdist.config.steps import Step

if TYPE_CHECKING:
    from simdist.models.chain import Link
    from simdist.stages.machines.config import Centers
    from simdist.types import Json

__all__ = [
    "KernelPcaStep",
    "KernelPredictStep",
    "KernelRidgeStep",
    "KernelSvmStep",
    "KernelTransformStep",
]


def _kernel(spec: str | dict[str, object]) -> str | dict[str, object]:
    """A kernel that can be resolved, with pydantic's kind of error where it cannot."""
    from simdist.errors import ConfigError  # noqa: PLC0415
    from simdist.measures import kernels  # noqa: PLC0415 - config stays light

    try:
        kernels.resolve(spec)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return spec


KernelSpec = Annotated[Text | dict[str, object], AfterValidator(_kernel)]


class MachineStep(Step):
    """What all that are fitted have. `kernel`: a formula or a mapping; without one, an RBF as wide
    as the centres lie apart."""

    takes: ClassVar[str] = "vectors"

    kernel: KernelSpec | None = None
    centers: Count = 1024
    seed: Seed = 0

    def _spec(self) -> Json:
        from simdist.measures import kernels  # noqa: PLC0415 - config stays light

        return None if self.kernel is None else kernels.resolve(self.kernel).spec()

    def _centers(self) -> Centers:
        from simdist.stages.machines.config import Centers  # noqa: PLC0415 - config stays light

        return Centers(self.centers, self.seed)


class KernelRidgeStep(MachineStep):
    """Numbers of kept columns, learned by kernel ridge regression. `alphas`: one of them is chosen,
    by leaving rows out or on a share of them that is held out."""

    gives: ClassVar[str] = "kernel_machine"

    stage: Literal["kernel_ridge"]
    target: Text | tuple[Text, ...]
    alphas: tuple[Number, ...] = (1.0,)
    choice: Literal["leave_one_out", "held_out"] = "leave_one_out"
    held_out: Fraction = 0.2
    weights: Text | None = None
    intercept: bool = False
    solver: Literal["auto", "direct", "cg"] = "auto"
    tolerance: Positive = 1e-5
    max_steps: Count = 100

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.machine_links import kernel_ridge_links  # noqa: PLC0415
        from simdist.stages.machines.config import RidgeConfig  # noqa: PLC0415

        config = RidgeConfig(
            kernel=self._spec(),
            targets=(self.target,) if isinstance(self.target, str) else self.target,
            centers=self._centers(),
            alphas=tuple(float(alpha) for alpha in self.alphas),
            choice=self.choice,
            held_out=self.held_out,
            weights=self.weights,
            intercept=self.intercept,
            solver=self.solver,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
        )
        return kernel_ridge_links(name, self.of, config)


class KernelSvmStep(MachineStep):
    """Classes of a kept column, learned by a support vector machine."""

    gives: ClassVar[str] = "kernel_machine"

    stage: Literal["kernel_svm"]
    target: Text
    C: Positive = 1.0
    loss: Literal["squared_hinge", "hinge"] = "squared_hinge"
    weights: Text | None = None
    intercept: bool = True
    tolerance: Positive = 1e-6
    max_steps: Count = 200

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.machine_links import kernel_svm_links  # noqa: PLC0415
        from simdist.stages.machines.config import SvmConfig  # noqa: PLC0415

        config = SvmConfig(
            kernel=self._spec(),
            target=self.target,
            centers=self._centers(),
            C=float(self.C),
            loss=self.loss,
            weights=self.weights,
            intercept=self.intercept,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
        )
        return kernel_svm_links(name, self.of, config)


class KernelPcaStep(MachineStep):
    """Principal components in the space of a kernel."""

    gives: ClassVar[str] = "kernel_pca"

    stage: Literal["kernel_pca"]
    components: Count | None = None

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.machine_links import kernel_pca_links  # noqa: PLC0415
        from simdist.stages.machines.config import PcaConfig  # noqa: PLC0415

        return kernel_pca_links(
            name, self.of, PcaConfig(self._spec(), self._centers(), self.components)
        )


class KernelPredictStep(Step):
    """What a fitted machine says of other vectors. `target`: a column that they keep of what is
    true, by which it is judged."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "predictions"
    fitted: ClassVar[str] = "kernel_machine"

    stage: Literal["kernel_predict"]
    model: Name
    target: Text | tuple[Text, ...] | None = None

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "model": self.model}

    def kinds(self) -> Mapping[str, str]:
        return {"of": self.takes, "model": self.fitted}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.machine_links import apply_links  # noqa: PLC0415 - config stays light

        return apply_links(name, self.of, self.model, targets=self.target)


class KernelTransformStep(Step):
    """The scores of vectors on kernel principal components: vectors again."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "vectors"

    stage: Literal["kernel_transform"]
    model: Name

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "model": self.model}

    def kinds(self) -> Mapping[str, str]:
        return {"of": self.takes, "model": "kernel_pca"}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.machine_links import apply_links  # noqa: PLC0415 - config stays light

        return apply_links(name, self.of, self.model)
