"""The model that a run hands over, with the record of how it came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ..dataset_spec import DatasetSpec
from ..model import LinearModel
from .executing import Lost
from .options import TrainOptions
from .plan import Plan
from .polynomial import Polynomial
from .problem import F64, Problem, resolve_sampling
from .results import EpochRecord
from .schedules import Schedule
from .skipping import NOTHING_SKIPPED, Skipped
from .steps_on import StepsOn

__all__ = ["make_model"]


def make_model(
    spec: DatasetSpec,
    options: TrainOptions,
    plan: Plan,
    problem: Problem,
    estimate: tuple[F64, F64],
    *,
    schedule: Schedule,
    records: Sequence[EpochRecord],
    loss: float,
    skipped: Skipped = NOTHING_SKIPPED,
    polynomial: Polynomial | None = None,
    steps_on: StepsOn | None = None,
    lost: Lost | None = None,
) -> LinearModel:
    """Fold out the coordinates of training, and write down the run."""
    coef, intercept = problem.to_model(*estimate)
    kept = ["epoch", "loss", "validation_loss"]
    if problem.finer:
        kept.append("refetch_rate")
    record = {
        "options": options.to_dict(),
        "sampling": resolve_sampling(spec, options),
        "arithmetic": problem.arithmetic,
        "solver": options.solver,
        "step_size": schedule.step_size,
        "shrinkage": schedule.shrinkage if problem.corrected else None,
        "replicas": plan.replicas,
        "rows": spec.rows,
        "bits": problem.precision,
        "samples": spec.quantizer.samples,
        "loss": loss,
        # No times and bytes: equal runs give equal files, whatever the machine and chunks.
        "epochs": [{k: v for k, v in asdict(r).items() if k in kept} for r in records],
        "source": dict(spec.source),
    }
    if skipped.chunks:
        record["skipped"] = skipped.to_dict()
    if polynomial is not None:
        record["polynomial"] = polynomial.to_dict()
    if steps_on is not None:
        record["arithmetic"] = steps_on.chosen.arithmetic
        record["executor"] = steps_on.to_record(records, lost)
    if problem.loss == "huber":
        record["huber_delta"] = problem.huber_delta * float(problem.target_std[0])
    return LinearModel(
        loss=problem.loss,
        coef=coef,
        intercept=intercept,
        columns=spec.columns,
        mean=spec.mean,
        scale=spec.scale,
        targets=spec.targets,
        classes=spec.classes,
        encoder=dict(spec.encoder),
        record=record,
    )
