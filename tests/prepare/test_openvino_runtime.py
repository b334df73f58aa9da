"""A graph that OpenVINO cannot read or run is one line that names it; one that it can gives the same on every thread."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dfad_bench.errors import DataError
from dfad_bench.prepare.openvino_runtime import compile_graph, read_graph
from tests.prepare.builders import write


def doubling(path: Path) -> Path:
    """An ONNX graph that doubles rows of four numbers."""
    onnx = pytest.importorskip("onnx")
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["x", "two"], ["y"])],
        "doubling",
        [onnx.helper.make_tensor_value_info("x", kind, [1, 4])],
        [onnx.helper.make_tensor_value_info("y", kind, [1, 4])],
        [onnx.helper.make_tensor("two", kind, [4], [2.0] * 4)],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_a_graph_runs_at_the_shape_that_is_asked_for(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    graph = read_graph(doubling(tmp_path / "a.onnx"))
    for shape in ((3, 4), (-1, 4)):
        (answer,) = compile_graph(graph, shape)([rows]).values()
        np.testing.assert_array_equal(answer, 2 * rows)


@pytest.mark.parametrize("content", [b"", b"no graph at all", None])
def test_a_file_that_is_no_graph_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.onnx"
    if content is not None:
        write(path, content)
    with pytest.raises(DataError, match=r"OpenVINO cannot read .*a\.onnx") as error:
        read_graph(path)
    assert "\n" not in str(error.value)


def test_a_shape_that_a_graph_cannot_take_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot run") as error:
        compile_graph(read_graph(doubling(tmp_path / "a.onnx")), (1, 7))
    assert "\n" not in str(error.value)


SIGNALLED = """
import gc, os, signal, sys
from pathlib import Path
from dfad_bench.prepare.openvino_runtime import compile_graph, read_graph

seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
path = Path(sys.argv[1])
kept = [compile_graph(read_graph(path), (n, 4)) for n in range(1, 4)]
while kept:  # the oldest goes first
    del kept[0]
    gc.collect()
    os.kill(os.getpid(), signal.SIGUSR1)
assert len(seen) == 3
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal here")
def test_a_signal_finds_a_stack_after_networks_have_come_and_gone(tmp_path: Path) -> None:
    path = doubling(tmp_path / "a.onnx")
    done = subprocess.run([sys.executable, "-c", SIGNALLED, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
