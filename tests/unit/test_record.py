import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmark import record, store

from . import synthetic

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=1e-9, max_value=1e9)
words = st.text(max_size=20)
names = st.from_regex(r"[a-z0-9][a-z0-9_.:-]{0,10}", fullmatch=True)
natural = st.integers(0, 10**9)
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | words
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=5
)

cases = st.builds(
    record.Case,
    workload=names,
    technique=words,
    backend=names,
    device=names,
    phase=st.sampled_from(["inference", "training"]),
    batch=st.integers(1, 4096),
    threads=st.integers(1, 256),
    wait=st.sampled_from(["passive", "active"]),
)
blocks = st.builds(
    record.Block,
    process=natural,
    round=natural,
    order=natural,
    value=finite,
    loops=st.integers(1, 10**6),
    start_s=finite,
    flags=st.lists(words, max_size=2).map(tuple),
    clock_hz=st.none() | finite,
    hash_bytes_per_s=st.none() | finite,
    temperature_c=st.none() | finite,
)
series = st.builds(
    record.Series,
    metric=words,
    direction=st.sampled_from(["lower", "higher"]),
    provenance=st.sampled_from([kind for kind in record.Provenance if kind.value != "unavailable"]),
    meter=words,
    scope=st.sampled_from(["process", "machine", "device", "model"]),
    blocks=st.lists(blocks, min_size=1, max_size=3).map(tuple),
)
findings = st.builds(record.Finding, code=words, message=words)
qualities = st.builds(
    record.Quality,
    metric=words,
    value=finite,
    count=natural,
    correct=st.none() | natural,
    gained=st.none() | natural,
    lost=st.none() | natural,
    agreement=st.none() | finite,
    relative_error=st.none() | finite,
)
costs = st.builds(
    record.Cost,
    time_s=finite,
    energy_j=st.none() | finite,
    energy_provenance=st.sampled_from(record.Provenance),
    energy_reason=st.none() | words,
)
measurements = st.builds(
    record.Measurement,
    run=words,
    case=cases,
    pass_name=st.sampled_from(["prepare", "latency", "memory", "energy"]),
    status=st.just("ok"),
    work=words,
    contest=st.none() | words,
    series=st.lists(series, max_size=2).map(tuple),
    findings=st.lists(findings, max_size=2).map(tuple),
    quality=st.none() | qualities,
    model=st.none() | st.builds(record.ModelFacts, parameters=natural, macs=natural, size_bytes=natural),
    cost=st.none() | costs,
    executed=st.dictionaries(words, json_values, max_size=3),
)
plans = st.builds(
    record.SamplingPlan,
    profile=words,
    processes=st.integers(1, 50),
    rounds=st.integers(1, 500),
    block_s=positive,
    warmup_s=positive,
    memory_processes=st.integers(1, 5),
    memory_steps=st.integers(1, 50),
    energy_window_s=positive,
    timeout_s=positive,
    seed=natural,
)
environments = st.builds(
    record.Environment,
    machine=st.dictionaries(words, st.none() | words | natural | finite, max_size=3),
    software=st.dictionaries(words, st.none() | words, max_size=3),
    conditions=st.dictionaries(words, leaves, max_size=3),
)
runs = st.builds(
    record.Run,
    id=words,
    started=words,
    leanmark=words,
    plan=plans,
    environment=environments,
    command=st.lists(words, max_size=3).map(tuple),
    commit=st.none() | words,
)


@given(st.one_of(measurements, runs))
def test_every_record_survives_json(written: record.Run | record.Measurement) -> None:
    line = store.encode("run" if isinstance(written, record.Run) else "measurement", written)
    assert line.count(b"\n") == 1
    read = msgspec.convert(store.estimates_among(msgspec.json.decode(line)), type(written))
    if isinstance(written, record.Measurement):  # estimates are read behind the others
        written = replace(written, series=tuple(sorted(written.series, key=is_estimate)))
    assert read == written


def is_estimate(series: record.Series) -> bool:
    return series.provenance is record.Provenance.ESTIMATED_MODEL


def test_an_identity_does_not_depend_on_the_order_of_its_keys() -> None:
    here = synthetic.environment()
    turned = replace(here, machine=dict(reversed(list(here.machine.items()))))
    assert here.machine_id == turned.machine_id
    assert here.machine_id != synthetic.environment(cores=4).machine_id


def test_a_case_says_what_it_is() -> None:
    case = record.Case(workload="cnn", technique="prune+int8", backend="onnxruntime")
    assert case.id == "cnn/inference/b1/prune+int8/onnxruntime/cpu/t1"
    assert case.baseline().id == "cnn/inference/b1/fp32/onnxruntime/cpu/t1"
    assert case.pair_key == case.baseline(backend="eager").pair_key
    assert case.pair_key != replace(case, threads=2).pair_key


@pytest.mark.parametrize(
    "changes", [{"workload": "a b"}, {"backend": ""}, {"device": "../x"}, {"batch": 0}, {"threads": 0}]
)
def test_a_case_refuses_what_names_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"Case\.{next(iter(changes))} must be"):
        record.Case(**{"workload": "cnn", **changes})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_block_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        record.Block(process=0, round=0, order=0, value=value, loops=1, start_s=0.0)


def test_a_series_refuses_to_be_empty_or_unavailable() -> None:
    with pytest.raises(ValueError, match="no blocks"):
        record.Series(metric="latency_s", meter="wall", blocks=())
    with pytest.raises(ValueError, match="unavailable"):
        synthetic.single("energy_j", 1.0, "rapl", provenance=record.Provenance.UNAVAILABLE)


def test_what_went_wrong_needs_a_reason_and_has_no_numbers() -> None:
    good = synthetic.passes(record.Case(workload="cnn"), 1e-3)[0]
    with pytest.raises(ValueError, match="needs a reason"):
        replace(good, status="failed", series=())
    with pytest.raises(ValueError, match="carries no numbers"):
        replace(good, status="invalid", reason="it ran elsewhere")


def test_the_worst_provenance_is_inherited() -> None:
    kinds = record.Provenance
    assert kinds.worst([kinds.MEASURED_COUNTER, kinds.ESTIMATED_MODEL]) is kinds.ESTIMATED_MODEL
    assert kinds.worst([kinds.SAMPLED_POWER, kinds.MEASURED_COUNTER]) is kinds.SAMPLED_POWER
    assert [kind.mark for kind in kinds] == ["", "", "~", ""]


def test_an_interval_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        record.Interval(value=2, low=0, high=1, confidence=0.95, method="", scope="samples")


def test_a_plan_refuses_nothing_at_all() -> None:
    plan = synthetic.run().plan
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        replace(plan, rounds=0)
    with pytest.raises(ValueError, match="block_s must be positive"):
        replace(plan, block_s=0.0)
