"""The field's words: lists where a word of the project's own stands for one that the field has.

    python tools/words.py            # identifiers: exit code 1 if one of them is there
    python tools/words.py --prose    # phrases in text, comments and docstrings, too: only listed, unless --strict

CONTRIBUTING.md has the glossary. The changelog, and the tables of old names that still load, are left out.
"""
import argparse
import io
import json
import re
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT_OUT = {"CHANGELOG.md", "tools/words.py", "instsep/_moved.py", "instsep/_modidx.py"}
# in these lines they stay
OLD_NAMES = ("NETWORK_NAMES", "OPTION_NAMES", "TENSOR_NAMES", "squeeze", "MaskRNN", "PickConfig", "BothModule",
             "playing = given")
IDENTIFIERS = {  # the project's own: the field's
    "in_16_bits": "bf16_autocast", "bears_16_bits": "supports_bf16", "multiplies_bf16": "cpu_has_bf16",
    "MaskRNN": "OpenUnmixBLSTM",
    "fold": "frames_per_step", "enter": "input_projection", "enter_bands": "project_bands",
    "enter_notes": "note_projection",
    "enter_sharp": "long_window_projection", "recurs": "lstms", "backs": "output_projections",
    "doubt": "residual_log_attenuation, residual_attenuation", "turn_down": "attenuate_residual",
    "RARE": "COMMON_RESIDUAL_SHARE",
    "CERTAIN": "MAX_LOG_ATTENUATION", "NOBODY": "ABSENT_LOG_ATTENUATION", "FAINT": "QUIET_BIN",
    "strangers": "out_of_set", "guests": "out_of_set",
    "guests_of": "out_of_set_for", "GUESTS": "OUT_OF_SET", "owners": "merged_into", "solo": "monophonic",
    "told": "given, conditioning",
    "not_told": "", "said": "logits, posteriors", "one_player": "merge_monophonic",
    "only_players": "restrict_to_instruments",
    "heard_together": "share_across_instruments", "PickConfig": "PeakPickingConfig", "find_ends": "find_offsets",
    "voices": "polyphony", "perform": "humanize", "VARIED": "STRONG_AUGMENTATION", "BothModule": "JointModule",
    "Thinned": "SparseMixtures",
    "to_16_khz": "resample_to_16_khz", "StemShelf": "StemCache", "are_kin": "share_recordings",
    "KIN": "SHARED_CORRELATION", "alike_lines": "confusion_lines",
    "HEARD": "SEEN_SOUNDFONT", "UNHEARD": "HELD_OUT_SOUNDFONT", "luck": "p_value", "crowd": "polyphony", "deaf": "",
    "wants_spectrum": "spectrum_bins"}
PHRASES = {  # regular expressions
    r"strangers?": "out-of-set instruments", r"guests?": "out-of-set instruments",
    r"(un)?heard (soundfonts?|pieces?)": "seen in training, held-out",
    r"(not |never |has |have |nobody has |no model has )heard": "seen in training, held-out",
    r"told (who|the notes|nothing|apart from)|(is|are|be|was|not) told(?! (apart|from|in))": "given, conditioned on, "
    "score-informed",
    r"doubt(s|ed)?": "residual attenuation", r"one player": "merged into a monophonic part",
    r"knife": "cut by the excerpt's edge",
    r"luck": "chance, p-value", r"crowds?": "polyphony", r"deaf": "detects (almost) nothing",
    r"(network|transcriber|separator|model|it) (says?|said|hears?|listens?)": "outputs, detects, reads",
    r"(network|transcriber|separator) (believes?|understands?|thinks?)": "relies on, outputs",
    r"by heart": "memorise, overfit", r"(same|one|own|perfect) ears?": "the same network for all",
    r"knows who|say(s|ing)? who plays": "instruments given", r"(?<!-)unheard": "held-out"}


def parts(path: Path):
    "(line, kind, text) of a file: `code` that is one piece, `text`, with the line it begins in."
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py": yield 1, "code", source
    elif path.suffix == ".md": yield 1, "text", source
    elif path.suffix == ".ipynb":
        at = 0
        for cell in json.loads(source)["cells"]:
            text = "".join(cell["source"])
            first = json.dumps(text.splitlines(True)[0], ensure_ascii=False) if text else ""
            at = max(source.find(first, source.find(f'"id": "{cell.get("id")}"')), 0)
            yield source.count("\n", 0, at) + 1, "code" if cell["cell_type"] == "code" else "text", text


def tokens(source: str):
    "Python's tokens; what begins with % or ! is no Python."
    lines = ["#" + line[1:] if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines(True)]
    try: yield from tokenize.generate_tokens(io.StringIO("".join(lines)).readline)
    except (tokenize.TokenError, SyntaxError): return


def found(path: Path, prose: bool):
    "(line, word, what the field calls it, is it an identifier?) for each that should not be there."
    phrases = {re.compile(rf"\b{phrase}\b", re.I): word for phrase, word in PHRASES.items()}
    for line, kind, text in parts(path):
        lines = text.splitlines()
        if kind == "code":
            for token in tokens(text):
                if token.type == tokenize.NAME and token.string in IDENTIFIERS and not any(
                    name in lines[token.start[0] - 1] for name in OLD_NAMES):
                    yield line + token.start[0] - 1, token.string, IDENTIFIERS[token.string], True
        if not prose: continue
        spoken = ([(t.start[0], t.string) for t in tokens(text) if t.type in (tokenize.COMMENT, tokenize.STRING)]
                  if kind == "code" else list(enumerate(lines, 1)))
        for number, words in spoken:
            for phrase, word in phrases.items():
                for hit in phrase.finditer(words):
                    yield line + number - 1 + words[:hit.start()].count("\n"), hit.group(), word, False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prose", action="store_true", help="phrases, too")
    parser.add_argument("--strict", action="store_true", help="phrases are faults, too")
    parser.add_argument("--count", action="store_true", help="only how many there are in each file")
    options = parser.parse_args()
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    names = [name for name in files if name.endswith((".py", ".ipynb", ".md")) and name not in LEFT_OUT
             and not name.startswith("instsep/")]
    identifiers, counts = 0, Counter()
    for name in sorted([*names, "instsep/__init__.py"]):
        for line, word, better, identifier in found(ROOT / name, options.prose or options.strict):
            identifiers, counts = identifiers + identifier, counts + Counter({name: 1})
            if not options.count: print(f"{name}:{line}: {word!r}{': ' + better if better else ''}")
    if options.count: print("\n".join(f"{count:5} {name}" for name, count in counts.most_common()))
    print(f"{len(names)} files: {identifiers} identifiers and {sum(counts.values()) - identifiers} phrases for which "
          "the field has a word")
    return 1 if identifiers or options.strict and counts else 0


if __name__ == "__main__": sys.exit(main())
