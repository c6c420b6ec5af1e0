"""Ways to a faster separation without training anew: processor seconds, peak memory, and how far the stems stay the
same.

    OMP_NUM_THREADS=1 python benchmarks/inference_gains.py
    OMP_NUM_THREADS=1 python benchmarks/inference_gains.py --onnx FOLDER
    python benchmarks/inference_gains.py --table     # measure nothing, write the table again

FOLDER is of `pip install --target FOLDER --no-deps onnx onnxruntime onnxscript onnx_ir ml_dtypes flatbuffers protobuf`.

The separator `trio` on 30 s of 44.1 kHz stereo (examples/trio.flac, repeated), in memory, one thread: in 32 bits and
in 16; with int8 weights; compiled; in shorter windows, one by one and two at a time; and by ONNX Runtime, with the
STFT outside. Every way runs in a process of its own, after a warm-up, in rounds that take turns; the fastest run
counts. The SI-SDR is that of the stems against those of the first way. Results go to
benchmarks/results/inference_gains.json and .md.
"""
import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
from torch import nn
from common import RESULTS, arguments, cpu_time, processor, read_json, write_json, write_text

RATE, SECONDS = 44100, 30
HERE, RESULT = Path(__file__).parent, RESULTS / "inference_gains.json"


def recording() -> np.ndarray: # (2, samples)
    "30 s of music."
    from instsep.sound.audio import load
    waveform, _ = load(HERE.parent / "examples" / "trio.flac", sample_rate=RATE)
    waveform = np.resize(waveform[-1], RATE * SECONDS), np.resize(waveform[0], RATE * SECONDS)
    return np.stack([waveform[1], 0.8 * waveform[0]])


def separated(separator, mixture: np.ndarray, window: float = 30.0) -> np.ndarray: # (stems, 2, samples)
    "As `Separator.separate` does it, with the window to choose."
    from instsep.inference.windows import separate_stream
    blocks = (mixture[:, start:start + 10 * RATE] for start in range(0, mixture.shape[1], 10 * RATE))
    return np.concatenate(list(separate_stream(separator, blocks, RATE, window=window)), axis=-1)


class Paired(nn.Module):
    "Windows wait until there are two, and make one batch; only to measure: it needs all windows first."
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.pending = network, []

    def prepare(self, magnitudes: list[torch.Tensor]) -> None:
        "Masks for windows of one size (1, bins, frames), two by two."
        self.pending = [masks[None] for pair in zip(magnitudes[::2], magnitudes[1::2])
                        for masks in self.network(torch.cat(pair))]

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        if self.pending: return self.pending.pop(0)
        return self.network(magnitude)


class Collecting(nn.Module):
    "Writes down what it is given and gives back nothing of use."
    def __init__(self, stems: int):
        super().__init__()
        self.stems, self.given, self.nothing = stems, [], nn.Parameter(torch.zeros(1))

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        self.given.append(magnitude)
        return magnitude.new_zeros(1, self.stems, *magnitude.shape[1:])


class Onnx(nn.Module):
    "The network in ONNX Runtime, exported anew for every size of window."
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.sessions = network, {}

    def session(self, example: torch.Tensor):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(self.network, (example.clone(),), f"{folder}/network.onnx", dynamo=True, verbose=False,
                              input_names=["magnitude"])
            return onnxruntime.InferenceSession(f"{folder}/network.onnx", options, providers=["CPUExecutionProvider"])

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        if magnitude.shape not in self.sessions: self.sessions[magnitude.shape] = self.session(magnitude)
        [masks] = self.sessions[magnitude.shape].run(None, {"magnitude": magnitude.numpy()})
        return torch.from_numpy(masks)


def in_pairs(separator, mixture: np.ndarray, window: float) -> np.ndarray:
    "Two windows at a time: the spectrograms are made twice, which a real version would not; the masks once."
    network = separator.network
    separator.network = collecting = Collecting(len(separator.stems))
    separated(separator, mixture, window)
    separator.network = paired = Paired(network)
    same = [given for given in collecting.given if given.shape == collecting.given[0].shape]
    with torch.inference_mode(): _, prepared = cpu_time(paired.prepare, same[:len(same) // 2 * 2])
    stems, spent = cpu_time(separated, separator, mixture, window)
    separator.network = network
    return stems, prepared + spent


def quantised(separator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        separator.network = torch.ao.quantization.quantize_dynamic(separator.network, {nn.Linear, nn.LSTM},
                                                                   dtype=torch.qint8)


def compiled(separator): separator.network = torch.compile(separator.network)
def sixteen(separator): separator.network.supports_bf16 = True
def onnx(separator): separator.network = Onnx(separator.network)


WAYS = {  # name: (change of the separator, window in seconds, two windows at a time)
    "32 bits, windows of 30 s": (None, 30, False),
    "16 bits (bfloat16)": (sixteen, 30, False),
    "16 bits, windows of 20 s: as it is": (sixteen, 20, False),
    "int8 weights of linear layers and LSTMs": (quantised, 30, False),
    "torch.compile": (compiled, 30, False),
    "windows of 15 s": (None, 15, False),
    "windows of 10 s": (None, 10, False),
    "windows of 10 s, two at a time": (None, 10, True),
    "ONNX Runtime": (onnx, 30, False),
}


def one(name: str, folder: Path, runs: int) -> None:
    "What `measure` starts: print one line of figures; the first way leaves its stems in `folder` for the others."
    from instsep.metrics import si_sdr
    from instsep.separator import Separator
    torch.set_num_threads(1)
    mixture, separator = recording(), Separator.from_pretrained("trio")
    separator.network.supports_bf16 = False  # but where it is tried
    change, window, pairs = WAYS[name]
    if change: change(separator)
    run = ((lambda: in_pairs(separator, mixture, window)) if pairs
           else (lambda: cpu_time(separated, separator, mixture, window)))
    stems, first = run()  # warm-up: whatever is compiled or exported is so now
    seconds = min(run()[1] for _ in range(runs))
    expected = folder / "stems.npy"
    if name == next(iter(WAYS)): np.save(expected, stems)
    same = [float(si_sdr(ours.ravel(), was.ravel())) for ours, was in zip(stems, np.load(expected))]
    print(json.dumps(dict(cpu_s=seconds, first_s=first, instruments_db=min(same[:-1]), residual_db=same[-1],
                          peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)))


def measure(name: str, folder: Path, options) -> dict:
    "One way in a process of its own: figures, or why there are none."
    paths = [path for path in (options.onnx, os.environ.get("PYTHONPATH")) if path] if "ONNX" in name else []
    environment = os.environ | (dict(PYTHONPATH=os.pathsep.join(paths)) if paths else {})
    command = [sys.executable, __file__, "--one", name, str(folder), "--runs", str(options.runs)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if not done.returncode: return json.loads(done.stdout.splitlines()[-1])
    messages = [line for line in done.stderr.splitlines() if line and not line.startswith(" ")]
    return dict(fails=next((line for line in reversed(messages) if "Error" in line),
                           messages[-1] if messages else "?")[:160])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--onnx", metavar="FOLDER", help="where onnx and onnxruntime are, if not installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3, help="in each round")
    parser.add_argument("--ways", nargs="*",
                        help="only those whose names contain one of these words; the others' rows stay")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only write and print the table of the JSON again")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one: return one(options.one[0], Path(options.one[1]), options.runs)
    if options.table: return report(read_json(options.output), options.output.with_suffix(".md"))
    first, rows = next(iter(WAYS)), {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds):
            for name in WAYS:
                if options.ways and name != first and not any(word in name for word in options.ways): continue
                if "fails" in rows.get(name, {}): continue
                row = measure(name, Path(folder), options)
                if "fails" not in row and name in rows: row = {key: min(row[key], rows[name][key]) for key in row}
                rows[name] = row
                print(turn + 1, name, row, flush=True)
    if options.ways and options.output.exists():  # the rest as it was measured before
        before = read_json(options.output)["rows"]
        rows = {name: rows.get(name) or before[name] for name in WAYS if name in rows or name in before}
        if first in before: rows[first] = min(rows[first], before[first], key=lambda row: row["cpu_s"])
    log = dict(command="python benchmarks/inference_gains.py" + " --onnx FOLDER" * ("ONNX Runtime" in rows),
               model="trio",
               machine=dict(processor=processor(), threads=1, load_average=[round(x, 1) for x in os.getloadavg()]),
               versions=dict(python=platform.python_version(), torch=torch.__version__), seconds=SECONDS, rows=rows)
    write_json(options.output, log)
    report(log, options.output.with_suffix(".md"))


def report(log: dict, path: Path) -> None:
    "Write the table and print it."
    base = next(iter(log["rows"].values()))
    lines = ["| | CPU s per s | times as fast | of which once, s | peak MB | SI-SDR, worst instrument, dB | residual, "
             "dB |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name, row in log["rows"].items():
        if "fails" in row: cells = [f"fails: `{row['fails']}`", "", "", "", "", ""]
        else: cells = [f"{row['cpu_s'] / log['seconds']:.4f}", f"{base['cpu_s'] / row['cpu_s']:.2f}",
                       f"{max(0, row['first_s'] - row['cpu_s']):.1f}", f"{row['peak_mb']:.0f}",
                       "the same" if row is base else f"{row['instruments_db']:.1f}"]
        if "fails" not in row: cells.append("the same" if row is base else f"{row['residual_db']:.1f}")
        lines.append("| " + " | ".join([name, *cells]) + " |")
    machine = log["machine"]
    text = f"""# Faster without training anew?

`{log["command"]}` on {machine["processor"]}, {machine["threads"]} thread, load average {machine["load_average"][0]};
{", ".join(f"{name} {version}" for name, version in log["versions"].items())}. Model `{log["model"]}`, \
{log["seconds"]} s of 44.1 kHz stereo.

{chr(10).join(lines)}

"Of which once" is what the first run takes longer: compiling, exporting, or just warming up. The SI-SDR compares with \
the
stems of the first row. Shorter windows hold less of the piece, which is why theirs differ. What is kept: 16 bits, on \
processors
that have instructions for them, and windows of 20 s, which cost little on the recordings of `separation.py` (`trio` \
+4.4 dB instead of +4.5,
the `trio-informed` of that time +6.2 with either) and less memory wherever a recording is longer than a window \
(`separator_speed.md`).
"""
    write_text(path, text)
    print(text)


if __name__ == "__main__": main()
