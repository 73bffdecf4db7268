"""The parts of a process's memory sum up to it, whatever is known of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanmark.meters.host_memory import Held, HostMemory
from leanmark.reading import memory
from leanmark.record import Block, Case, Measurement, Series

TRAINING = {
    "peak_memory_bytes": 300.0,
    "steady_memory_bytes": 280.0,
    "interpreter_memory_bytes": 40.0,
    "import_memory_bytes": 240.0,
    "weights_bytes": 10.0,
    "gradients_bytes": 10.0,
    "optimizer_state_bytes": 20.0,
    "activations_bytes": 5.0,
    "allocator_slack_bytes": 3.0,
    "pss_memory_bytes": 250.0,
    "uss_memory_bytes": 200.0,
    "leanmark_memory_bytes": 9.0,
}

ROLLUP = """\
559d1000-7ffe2000 ---p 00000000 00:00 0                          [rollup]
Rss:               51200 kB
Pss:               40960 kB
Shared_Clean:      20480 kB
Private_Clean:      1024 kB
Private_Dirty:     29696 kB
"""


def measured(**metrics: float) -> Measurement:
    def series(metric: str, value: float) -> Series:
        block = Block(process=0, round=0, order=0, value=value, loops=1, start_s=0.0)
        return Series(metric=metric, meter="host_memory", blocks=(block,))

    return Measurement(
        run="r",
        case=Case(workload="cnn"),
        pass_name="memory",
        status="ok",
        work="w",
        series=tuple(series(metric, value) for metric, value in metrics.items()),
    )


def test_the_parts_of_training_sum_up_to_the_peak_and_to_what_is_held() -> None:
    found = memory.split(measured(**TRAINING))
    assert found is not None
    assert found.peak == {
        "interpreter": 40.0,
        "imports": 200.0,
        "weights": 10.0,
        "gradients": 10.0,
        "optimizer state": 20.0,
        "activations": 5.0,
        "workspace": 15.0,
    }
    assert found.steady["allocator slack"] == 3.0
    assert "activations" not in found.steady
    assert (sum(found.peak.values()), sum(found.steady.values())) == (300.0, 280.0)
    assert (found.shared_out, found.own, found.left_out) == (250.0, 200.0, 9.0)


def test_where_the_backend_knows_no_parts_the_model_is_in_the_rest() -> None:
    few = {name: TRAINING[name] for name in ("peak_memory_bytes", "import_memory_bytes")}
    found = memory.split(measured(**few))
    assert found is not None
    assert found.peak == {"imports": 240.0, "model and workspace": 60.0}
    assert found.steady == {}
    assert found.own is None


def test_records_whose_interpreter_held_leanmark_say_so() -> None:
    older = {name: value for name, value in TRAINING.items() if name != "leanmark_memory_bytes"}
    found = memory.split(measured(**older))
    assert found is not None
    assert next(iter(found.peak.items())) == ("interpreter with leanmark", 40.0)


def test_a_case_without_a_memory_pass_has_no_split() -> None:
    assert memory.split(None) is None


def test_the_kernels_rollup_is_read(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmHWM:\t61440 kB\nVmRSS:\t51200 kB\n")
    (tmp_path / "smaps_rollup").write_text(ROLLUP)
    found = HostMemory(tmp_path).steady()
    assert found["steady_memory_bytes"] == 50 * 2**20
    assert found["pss_memory_bytes"] == 40 * 2**20
    assert found["uss_memory_bytes"] == 30 * 2**20
    assert found.get("allocator_slack_bytes", 0) == 0


def test_what_leanmark_takes_is_left_out_of_every_figure(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmHWM:\t61440 kB\nVmRSS:\t51200 kB\n")
    (tmp_path / "smaps_rollup").write_text(ROLLUP)
    meter = HostMemory(tmp_path, own=Held(resident=10 * 2**20, private=8 * 2**20, shared_out=9 * 2**20))
    found = meter.steady()
    assert meter.stop(0.0)().value == 50 * 2**20
    assert meter.resident_bytes() == found["steady_memory_bytes"] == 40 * 2**20
    assert found["pss_memory_bytes"] == 31 * 2**20
    assert found["uss_memory_bytes"] == 22 * 2**20


def test_what_the_kernel_does_not_say_is_an_error_and_no_zero(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmRSS:\t51200 kB\n")
    with pytest.raises(OSError, match="no VmHWM"):
        HostMemory(tmp_path).stop(0.0)()
    with pytest.raises(OSError, match="no VmRSS"):
        Held.read("VmHWM:\t61440 kB\n")


def test_an_old_kernel_has_no_rollup(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmRSS:\t51200 kB\n")
    assert not {"pss_memory_bytes", "uss_memory_bytes"} & HostMemory(tmp_path).steady().keys()


@pytest.mark.skipif(HostMemory().unavailable() is not None, reason=str(HostMemory().unavailable()))
def test_what_is_shared_out_is_between_what_is_ones_own_and_all() -> None:
    found = HostMemory().steady()
    assert found["uss_memory_bytes"] <= found["pss_memory_bytes"]
