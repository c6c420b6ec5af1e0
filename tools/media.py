#!/usr/bin/env python3
"""Make what the site's first page plays, by the package itself: `python tools/media.py` writes into nbs/media.

The example is separated by the shipped model. Its recording and three stems become MP3 files and the mixer's HTML (with
a waveform each), and the listening page shows them beside the true stems, with the notes and the scores. Of what they
were made stands in `made_of.json`: digests of the weights, the settings, the clips and the page's parts. `--check`
compares it with what is there now, and makes nothing: exit code 1 if they differ.
"""
import ast
import hashlib
import html
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES, MEDIA = ROOT/"examples", ROOT/"nbs/media"
COLOURS = {"recording": "#6b7280", "clarinet": "#009e73", "guitar": "#e69f00", "piano": "#0072b2"}
RATE, POINTS = 32000, 160  # of the clips, in Hz; of a drawn waveform
SETTINGS = {"instsep/together.py": "Refiner", "instsep/frames.py": "PeakPickingConfig",
            "instsep/inference/dynamics.py": "DynamicsConfig"}  # classes whose constants decide what comes out


def digest(*contents: bytes) -> str: return hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]


def files(*paths: Path) -> str: return digest(*(path.read_bytes() for path in paths))


def constants(path: Path, name: str) -> str:
    "What is assigned in the body of a class, as its source has it."
    body = next(node.body for node in ast.parse(path.read_text(encoding="utf-8")).body
                if isinstance(node, ast.ClassDef) and node.name == name)
    return digest(*(ast.unparse(node).encode() for node in body if isinstance(node, (ast.Assign, ast.AnnAssign))))


def made_of() -> dict:
    "Digests of all that the files in nbs/media are made of, as it is now."
    registry = ast.parse((ROOT/"instsep/inference/registry.py").read_text(encoding="utf-8"))
    models = [node.value.value for node in registry.body if isinstance(node, ast.Assign)
              and ast.unparse(node.targets[0]) in ("DEFAULT_MODEL", "DEFAULT_TRANSCRIBER")]
    page = [ROOT/"instsep/evaluation"/f"page.{end}" for end in ("html.j2", "css", "js")]
    stored = "config.json", "model.safetensors", "offsets.safetensors", "levels.safetensors"  # the last two beside some
    weights = {f"weights of {name}": files(*(path for file in stored
                                             if (path := ROOT/"instsep/weights"/name/file).is_file()))
               for name in models}
    settings = {f"settings of {name}": constants(ROOT/path, name) for path, name in SETTINGS.items()}
    clips = sorted(EXAMPLES.glob("trio*.flac"))
    return weights | settings | {"clips": files(*clips), "parts of the page": files(*page)}


def check() -> int:
    "Whether nbs/media is what the package would make now; says what is not."
    was, now = json.loads((MEDIA/"made_of.json").read_text(encoding="utf-8")), made_of()
    changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    if changed: print(f"nbs/media was made of other {', '.join(changed)}: run python tools/media.py and listen")
    else: print(f"nbs/media is of what there is now: {', '.join(now)}")
    return bool(changed)


def waveform(samples, loudest: float) -> str:  # (samples,)
    "An SVG path as high as 40, symmetric about its middle."
    import numpy as np
    blocks = np.array_split(np.abs(samples), POINTS)
    heights = [max(0.4, 19 * float(block.max()) / loudest) for block in blocks]
    return "".join(f"M{x} {20 - height:.1f}V{20 + height:.1f}" for x, height in enumerate(heights))


def track(name: str, samples, loudest: float, first: bool) -> str:
    "A row of the mixer. Without the script it is a player."
    name = html.escape(name)
    return f"""<div class="mixer-track" style="--colour: {COLOURS[name]}">
<button type="button" class="mixer-switch" aria-pressed="{str(first).lower()}" hidden>{name}</button>
<span class="mixer-name">{name}</span>
<svg class="mixer-wave" viewBox="-0.5 0 {POINTS} 40" preserveAspectRatio="none" aria-hidden="true"><path d="{
    waveform(samples, loudest)}"/></svg>
<input type="range" class="mixer-volume" min="0" max="1.5" step="0.05" value="1" aria-label="Volume of {name}" hidden>
<audio controls preload="none" src="media/trio_{name}.mp3" aria-label="{name}"></audio>
</div>"""


def make() -> None:
    import numpy as np

    import instsep
    from instsep.evaluation.page import PageItem, Track, write_page
    from instsep.metrics import stem_scores
    from instsep.separator import Separator
    from instsep.sound.audio import _to_mp3, load, resample

    MEDIA.mkdir(exist_ok=True)
    recording, rate = load(EXAMPLES/"trio.flac")  # (2, samples)
    separator = Separator.from_pretrained()
    stems = {name: stem.numpy() for name, stem in separator.separate(recording, rate).items()}
    truth = {name: load(EXAMPLES/f"trio_{name}.flac")[0] for name in separator.config.instruments}
    sounds = {"recording": recording} | {name: stems[name] for name in truth}
    mono = {name: resample(sound.mean(0, keepdims=True), rate, RATE)[0] for name, sound in sounds.items()}
    for name, samples in mono.items(): (MEDIA/f"trio_{name}.mp3").write_bytes(_to_mp3(samples[None].clip(-1, 1), RATE))
    loudest = max(float(np.abs(samples).max()) for samples in mono.values())
    rows = "\n".join(track(name, samples, loudest, name == "recording") for name, samples in mono.items())
    (MEDIA/"mixer.html").write_text(f"""<section class="mixer" aria-label="Mixer: a recording and its stems">
<div class="mixer-transport" hidden>
<button type="button" class="mixer-play">Play</button>
<input type="range" class="mixer-seek" min="0" max="{len(mono['recording']) / RATE:.1f}" step="0.1" value="0"
 aria-label="Position in seconds">
<span class="mixer-clock">0:00</span>
</div>
{rows}
</section>
""", encoding="utf-8")
    measures = {"input_si_sdr": "recording, SI-SDR (dB)", "si_sdr": "stem, SI-SDR (dB)", "sdr": "stem, SDR (dB)"}
    scores = [{"stem": row["stem"]} | {label: round(row[key], 1) for key, label in measures.items()}
              for row in stem_scores({name: stems[name] for name in truth}, truth, recording)]
    tracks = [Track("trio", "mixture", (recording, rate))]
    for name in truth:
        tracks += [Track(name, "estimate", (stems[name], rate)), Track(name, "truth", (truth[name], rate))]
    item = PageItem("trio", tracks, estimate=instsep.transcribe(EXAMPLES/"trio.flac"), tables={"Stems": scores})
    page = write_page(MEDIA/"listen.html", [item], title="Clarinet, guitar and piano", sample_rate=22050,
                      about="The example of instsep, separated and transcribed by its shipped model. Solo a stem.")
    (MEDIA/"made_of.json").write_text(json.dumps(made_of(), indent=1) + "\n", encoding="utf-8")
    for row in scores: print(row)
    print(f"{page.name}: {page.stat().st_size // 1000} kB")


if __name__ == "__main__": sys.exit(check() if "--check" in sys.argv[1:] else make())
