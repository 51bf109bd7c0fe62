"""The benchmark compares what is the same, and its arithmetic is right; the times themselves are nobody's promise."""

import json

import pandas as pd
import pytest
import torch
from support import TINY
from transformers import Florence2Config, Florence2ForConditionalGeneration

from florence_lab.benchmark import measure as bench
from florence_lab.benchmark.measure import _peak_memory, benchmark
from florence_lab.benchmark.models import SIZES
from florence_lab.benchmark.report import Benchmark
from florence_lab.benchmark.runners import BACKENDS, FlorenceLabRunner, TransformersRunner
from florence_lab.benchmark.workloads import RATIOS, WORKLOADS, Pictures
from florence_lab.cli import main
from florence_lab.inference import compilation as compiled


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Short answers of few pictures, and no waiting for a compiler."""

    def fail(*_):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "_compile", fail)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bench, "TOKENS", 12)
    monkeypatch.setattr(bench, "PICTURES", 3)
    monkeypatch.setattr(bench, "_speeds", lambda device: {"fp32 GFLOP/s": 1.0, "bf16 GFLOP/s": 2.0, "memory GB/s": 4.0})
    monkeypatch.setattr(bench, "_peak_memory", lambda *_: 0.5)


@pytest.mark.filterwarnings("ignore:the vision tower could not be compiled")
def test_both_ways_give_the_same_text(quick):
    ways = [kind(str(TINY), torch.float32, torch.device("cpu")) for kind in (FlorenceLabRunner, TransformersRunner)]
    pictures = Pictures(ways[0])
    for name, row in WORKLOADS.items():
        ours, plain = (row.run(way, pictures) for way in ways)
        if torch.is_tensor(ours):
            torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-3)
        else:
            assert ours == plain, name
            assert name == "first token" or all(ours)
    assert len(ways[0].many(pictures.images[0])) == 15
    assert len(ways[0].captions(pictures.images)) == 3


@pytest.mark.filterwarnings("ignore:the vision tower could not be compiled")
def test_a_run_measures_every_row_in_its_ways(quick, tmp_path):
    measured = benchmark(str(TINY), "cpu", repeats=2)
    assert set(measured.seconds) == set(WORKLOADS)
    for name, row in WORKLOADS.items():
        assert list(measured.seconds[name]) == [way for way in BACKENDS if way.startswith(row.ways)]
        assert all(len(each) == 2 and min(each) > 0 for each in measured.seconds[name].values())
    assert all(measured.identical.values())
    assert set(measured.identical) == {"first token", "one answer", "one answer, 3 beams", "15 tasks"}
    assert measured.limits["one answer"]["fp32"] > measured.limits["one answer"]["bf16"] > 0
    assert len(measured.ratios()) == len(RATIOS)
    saved = json.loads(measured.save(tmp_path / "a" / "b.json").read_text())
    assert saved["seconds"] == measured.seconds
    for part in ("one answer", "GFLOP/s", "same text in fp32", "GB at the peak", "limit bf16"):
        assert part in str(measured)


def test_the_arithmetic():
    ways = "transformers fp32", "florence_lab fp32", "florence_lab auto"
    seconds = {
        "first token": {way: [1.0, 1.0, 1.0] for way in ways},
        "one answer": {ways[0]: [7.3, 7.3, 64.0], ways[1]: [7.3, 7.3, 7.3], ways[2]: [3.65, 1.0, 7.3]},
    }
    measured = Benchmark({}, seconds, {}, {"one answer": {"fp32": 2.0, "bf16": 1.0}}, {}, {})
    table = measured.medians()
    assert table.loc["one answer", "transformers fp32"] == 7.3
    assert table.loc["each further token", "transformers fp32"] == pytest.approx(0.1)
    assert table.loc["one answer", "limit bf16"] == 1.0
    expected = pd.DataFrame(
        [
            ("one answer", "florence_lab auto / transformers fp32", 7.3, 2.0, 64 / 7.3),
            ("one answer", "florence_lab fp32 / transformers fp32", 1.0, 1.0, 64 / 7.3),
        ],
        columns=["what", "speed", "times", "least", "most"],
    )
    pd.testing.assert_frame_equal(measured.ratios(), expected)


@pytest.mark.parametrize(("name", "millions"), [("florence-2-base", 231), ("florence-2-large", 777)])
def test_random_weights_have_the_published_size(name, millions):
    vision, text = SIZES[name]
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(Florence2Config(vision_config=vision, text_config=text))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=1)


def test_what_can_not_be_measured(capsys, unreachable_hubs, tmp_path):
    assert main(["benchmark", "--repeats", "0"]) == 2
    assert "repeats=0" in capsys.readouterr().err
    assert main(["benchmark", "--model_type", "someone/else"]) == 2
    assert "florence-2-large" in capsys.readouterr().err


def test_the_command_prints_and_saves(monkeypatch, capsys, tmp_path):
    seconds = {row: {"florence_lab fp32": [1.0]} for row in WORKLOADS}
    given = []

    def fake(*arguments):
        given.append(arguments)
        return Benchmark({"model": "none"}, seconds, {}, {}, {}, {"florence_lab fp32": 1.0})

    monkeypatch.setattr(bench, "benchmark", fake)
    out = tmp_path / "figures.json"
    assert main(["benchmark", "--model_type", "florence-2-nano", "--against", "nothing", "--out", str(out)]) == 0
    assert given == [("florence-2-nano", "auto", 5, "nothing")]
    assert str(out) in capsys.readouterr().out
    assert json.loads(out.read_text())["seconds"] == seconds


def test_the_memory_is_that_of_a_process_of_its_own():
    """However much this one has taken before."""
    taken = torch.ones(2**29)
    taken_gb = taken.nbytes / 1e9
    del taken
    assert 0.1 < _peak_memory("transformers fp32", str(TINY), "cpu") < taken_gb
