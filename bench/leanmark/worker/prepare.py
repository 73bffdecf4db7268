"""Makes the baseline of a workload, or applies one more technique to it. Runs in a process of its own.

What is made lies in an artifact on disk; the answer holds what a record needs: what applying the technique
cost, the facts that prove it is there, and the size of the model on each backend.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from leanmark import chain, registry
from leanmark.backends.base import Backend
from leanmark.chain import Link
from leanmark.errors import Unsupported
from leanmark.models.artifact import Artifact, Samples
from leanmark.models.macs import count_macs
from leanmark.protocol.messages import Notice, Ready
from leanmark.record import BASELINE, ModelFacts, short_hash
from leanmark.techniques.base import Context, Technique
from leanmark.workloads.base import Dataset, Workload
from leanmark.workloads.training import outputs, train, training_steps

_STEP_SAMPLES = 256
"""Training samples kept to step on: no larger batch can be measured."""

_EXAMPLE_BATCH = 32


class Stopwatch:
    """Times what applying a technique costs; ``tell`` is told when that begins and when it has ended.

    ``build_s`` are the times of what was done under ``building``, by backend.
    """

    def __init__(self, tell: Callable[[Notice], None] = lambda notice: None) -> None:
        self.time_s = 0.0
        self.build_s: dict[str, float] = {}
        self._tell = tell
        self._started = 0.0

    @contextlib.contextmanager
    def building(self, backend: str) -> Iterator[None]:
        """What fails inside has no time; the notices come in pairs all the same."""
        self._tell(Notice("begins", backend))
        started = time.perf_counter()
        try:
            yield
            self.build_s[backend] = time.perf_counter() - started
        finally:
            self._tell(Notice("ended", backend))

    def __enter__(self) -> None:
        self._tell(Notice("begins"))
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.time_s = time.perf_counter() - self._started
        self._tell(Notice("ended"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What one call of ``run`` made; ``model`` and ``refusals`` are by backend."""

    model: Mapping[str, ModelFacts]
    refusals: Mapping[str, str]
    verified: Mapping[str, Any]
    steps: int | None = None


def run(
    workload: Workload,
    name: str,
    links: tuple[Link, ...],
    folder: Path,
    backends: Iterable[str],
    watch: Stopwatch | None = None,
    device: str = "cpu",
) -> Ready:
    """Make the baseline (no ``links``), or apply the last of ``links`` to the artifact of those before.

    ``name`` is the workload's, ``folder`` holds its artifacts, ``backends`` are those to build for, to run on
    ``device``. The time is that of training or applying alone: loading and verifying are not part of it, and
    exporting has a time of its own.

    Raises:
        Unsupported: the technique does not fit the model, its place in the chain or any of the backends.
        TookNoEffect: the technique was applied and is not in the result.
    """
    artifact = Artifact.of(folder, chain.spell(links))
    offered, refusals = _offered(dict.fromkeys(backends), links)
    if refusals and not offered:
        raise Unsupported("; ".join(refusals.values()))
    watch = watch or Stopwatch()
    if links:
        made = _link(workload, links, artifact, offered, watch, device)
    else:
        made = _baseline(workload, artifact, offered, watch)
    recipe = None if links else workload.recipe
    samples = Samples.load(folder)
    tokens = samples.test_inputs.shape[1] if workload.sequences else None
    ready = Ready(
        work=work_hash(name, workload, samples),
        work_parts=work_parts(name, workload, samples),
        time_s=watch.time_s,
        build_s=watch.build_s,
        epochs=recipe.epochs if recipe else None,
        steps=made.steps,
        model={backend: dataclasses.replace(facts, tokens=tokens) for backend, facts in made.model.items()},
        refusals={**refusals, **made.refusals},
        verified=made.verified,
        doubts=chain.build(links[-1]).doubts(made.verified) if links else (),
    )
    artifact.facts_file.write_text(json.dumps(dataclasses.asdict(ready), indent=1))
    return ready


def work_hash(name: str, workload: Workload, samples: Samples) -> str:
    """Equal only where the same version of a workload trains by the same recipe on the same bytes."""
    return short_hash([name, workload.version, _recipe(workload), _digest(samples)])


def work_parts(name: str, workload: Workload, samples: Samples) -> dict[str, str]:
    """The same in words: what differs where two hashes do."""
    recipe = _recipe(workload) or {"none": ""}
    return {
        "workload": name,
        "version": str(workload.version),
        "recipe": ", ".join(f"{key} {value}".strip() for key, value in recipe.items()),
        "data": _digest(samples)[:12],
    }


def _recipe(workload: Workload) -> dict[str, Any] | None:
    return dataclasses.asdict(workload.recipe) if workload.recipe else None


def _digest(samples: Samples) -> str:
    digest = hashlib.sha256()
    for field in dataclasses.fields(samples):
        array = getattr(samples, field.name)
        digest.update(f"{field.name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _offered(names: Iterable[str], links: tuple[Link, ...]) -> tuple[dict[str, Backend], dict[str, str]]:
    """The backends that can run the whole chain, and why the others cannot."""
    offered: dict[str, Backend] = {}
    refusals: dict[str, str] = {}
    techniques = {str(link): chain.build(link) for link in links}
    for name in names:
        backend: Backend = registry.load("backends", name)()
        against = [text for text, one in techniques.items() if name not in one.backends]
        if against:
            refusals[name] = f"{against[0]} does not run on {name}: {techniques[against[0]].refusal}"
        elif reason := backend.unavailable():
            refusals[name] = f"{name} is not available: {reason}"
        else:
            offered[name] = backend
    return offered, refusals


def _baseline(
    workload: Workload, artifact: Artifact, offered: Mapping[str, Backend], watch: Stopwatch
) -> _Made:
    dataset = workload.dataset()
    _samples(dataset).save(artifact.folder.parent)
    with watch:
        module = workload.model()
        if workload.recipe is not None:
            train(module, dataset.train, workload.recipe, workload.loss)
    made = _keep_module(module, artifact, offered, {}, watch)
    recipe = workload.recipe
    steps = None if recipe is None else training_steps(len(dataset.train.inputs), recipe)
    return dataclasses.replace(made, steps=steps)


def _link(
    workload: Workload,
    links: tuple[Link, ...],
    artifact: Artifact,
    offered: Mapping[str, Backend],
    watch: Stopwatch,
    device: str,
) -> _Made:
    last = chain.build(links[-1])
    folder = artifact.folder.parent
    source = Artifact.of(folder, chain.spell(links[:-1]))
    workload.dataset()  # loading it is not what the technique costs
    baseline = Artifact.of(folder, BASELINE).load_module()
    context = Context(workload=workload, baseline=baseline, device=device)
    if last.level == "graph":
        return _change_graph(last, source, artifact, context, offered, watch)
    return _change_module(last, source, artifact, context, offered, watch)


def _change_module(
    technique: Technique,
    source: Artifact,
    artifact: Artifact,
    context: Context,
    offered: Mapping[str, Backend],
    watch: Stopwatch,
) -> _Made:
    before = source.load_module()
    with watch:
        after = technique.apply(before, context)
    made = _keep_module(after, artifact, offered, technique.verify(before, after), watch)
    return _as_before(made, source) if technique.repacks else made


def _as_before(made: _Made, source: Artifact) -> _Made:
    """With the parameters and MACs of ``source``: packed weights are no parameters, and torch's counter does
    not know the operators that read them."""
    facts: Mapping[str, Mapping[str, int]] = json.loads(source.facts_file.read_text())["model"]
    model = {
        name: dataclasses.replace(one, parameters=facts[name]["parameters"], macs=facts[name]["macs"])
        for name, one in made.model.items()
    }
    return dataclasses.replace(made, model=model)


def _change_graph(
    technique: Technique,
    source: Artifact,
    artifact: Artifact,
    context: Context,
    offered: Mapping[str, Backend],
    watch: Stopwatch,
) -> _Made:
    """The model's parameters and MACs stay those of the float model; its file is the changed graph."""
    facts = json.loads(source.facts_file.read_text())
    if not source.graph_file.exists():
        reasons = "; ".join(facts["refusals"].values()) or "no backend that needs one was asked for"
        raise Unsupported(f"there is no ONNX graph of {source.folder.name} to change: {reasons}")
    artifact.folder.mkdir(parents=True, exist_ok=True)
    with watch:
        technique.apply_graph(source.graph_file, artifact.graph_file, context)
    verified = technique.verify_graph(source.graph_file, artifact.graph_file)
    model = {
        name: ModelFacts(**{**facts["model"][name], "size_bytes": backend.shipped_bytes(artifact)})
        for name, backend in offered.items()
    }
    return _Made(model=model, refusals={}, verified=verified)


def _keep_module(
    module: nn.Module,
    artifact: Artifact,
    offered: Mapping[str, Backend],
    verified: Mapping[str, Any],
    watch: Stopwatch,
) -> _Made:
    """Save ``module`` and its outputs, and build every backend that takes it."""
    module = module.cpu().eval()
    samples = Samples.load(artifact.folder.parent)
    artifact.save_module(module)
    np.save(artifact.outputs_file, outputs(module, torch.from_numpy(samples.test_inputs)).numpy())
    parameters = sum(parameter.numel() for parameter in module.parameters())
    macs = count_macs(module, torch.from_numpy(samples.test_inputs[:1]))
    model: dict[str, ModelFacts] = {}
    refusals: dict[str, str] = {}
    for name, backend in offered.items():
        try:
            with watch.building(name) if backend.exports else contextlib.nullcontext():
                backend.build(module, artifact, samples.batch_inputs[:_EXAMPLE_BATCH])
        except Unsupported as error:
            refusals[name] = str(error)
            continue
        size_bytes = backend.shipped_bytes(artifact)
        model[name] = ModelFacts(parameters=parameters, macs=macs, size_bytes=size_bytes)
    return _Made(model=model, refusals=refusals, verified=verified)


def _samples(dataset: Dataset) -> Samples:
    return Samples(
        test_inputs=dataset.test.inputs.numpy(),
        test_targets=dataset.test.targets.numpy(),
        batch_inputs=dataset.train.inputs[:_STEP_SAMPLES].numpy(),
        batch_targets=dataset.train.targets[:_STEP_SAMPLES].numpy(),
    )
