from __future__ import annotations

import pytest

from leanmark.protocol.layout import Layout


def test_threads_and_wait_policy_are_ours_and_foreign_settings_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("KMP_AFFINITY", "compact")
    monkeypatch.setenv("CODECARBON_PUE", "9")
    monkeypatch.setenv("KEPT", "yes")
    made = Layout(hash_seed=7, padding_bytes=3, threads=2, wait="passive").environment()
    assert made["OMP_NUM_THREADS"] == made["MKL_NUM_THREADS"] == "2"
    assert made["OMP_WAIT_POLICY"] == "PASSIVE"
    assert made["PYTHONHASHSEED"] == "7"
    assert made["LEANMARK_PADDING"] == "xxx"
    assert made["KEPT"] == "yes"
    assert "KMP_AFFINITY" not in made
    assert "CODECARBON_PUE" not in made


def test_a_process_sees_its_gpu_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    plain = Layout(hash_seed=7, padding_bytes=0, threads=1, wait="passive")
    assert plain.environment()["CUDA_VISIBLE_DEVICES"] == ""
    one = Layout(hash_seed=7, padding_bytes=0, threads=1, wait="passive", gpu="GPU-1").environment()
    assert one["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert one["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
