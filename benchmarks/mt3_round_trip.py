"""What is lost between notes and tokens: the ceiling of any MT3, over a whole piece bank.

    python benchmarks/mt3_round_trip.py --pieces pieces.npz     # a bank saved by PieceBank.save
    python benchmarks/mt3_round_trip.py                         # makes the bank from music21's corpus (minutes)
    python benchmarks/mt3_round_trip.py --table                 # count nothing, write the table again from the JSON

Writes benchmarks/results/mt3_round_trip.json and, made from it, mt3_round_trip.md, which is printed too. Once with a
program for each part, as the tokens want it; once with all parts on one program, where voices that meet on a pitch
become one; once with 127 velocities.
"""
import platform
from pathlib import Path

from instsep.music.notes import Note
from instsep.music.pieces import PieceBank
from instsep.music.tokens import Codec, round_trip
from common import RESULTS, arguments, cpu_time, read_json, write_json, write_text

RESULT = RESULTS / "mt3_round_trip.json"


def notes_of(piece, one_program: bool) -> list[Note]:
    "A piece's notes, each part a program of its own or all the same."
    return [Note(onset, offset, int(pitch), int(velocity), 0 if one_program else number)
            for number, part in enumerate(piece.parts) for onset, offset, pitch, velocity in part.notes.tolist()]


def ceiling(bank, one_program: bool = False, codec: Codec = Codec()) -> dict:
    "Counts over all pieces, and the largest error of an onset that comes back."
    reports, worst = [], 0.0
    for piece in bank:
        notes = notes_of(piece, one_program)
        back, report = round_trip(notes, codec=codec)
        reports.append(report)
        if not report["lost"] and not report["removed_by_overlap"]:
            key = lambda note: (note.program, note.pitch, note.onset)
            pairs = zip(sorted(notes, key=key), sorted(back, key=key))
            worst = max(worst, *(abs(a.onset - b.onset) for a, b in pairs))
    total = {key: (max if key == "longest" else sum)(report[key] for report in reports) for key in reports[0]}
    return dict(total, worst_onset_error_ms=round(1000*worst, 2))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pieces", type=Path, help="a bank (.npz)")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only write and print the table of the JSON again")
    options = parser.parse_args()
    if options.table: return report(read_json(options.output), options.output.with_suffix(".md"))
    bank = PieceBank.load(options.pieces) if options.pieces else PieceBank.from_music21()
    def ceilings():
        return {"a program for each part": ceiling(bank), "all parts on one program": ceiling(bank, one_program=True),
        "a program for each part, 127 velocities": ceiling(bank, codec=Codec(velocity_bins=127))}
    table, seconds = cpu_time(ceilings)
    result = dict(command="python benchmarks/mt3_round_trip.py --pieces pieces.npz", bank=repr(bank),
                  python=platform.python_version(), cpu_s=round(seconds, 1), table=table)
    write_json(options.output, result)
    report(result, options.output.with_suffix(".md"))


ROWS = dict(notes="notes",
            removed_by_overlap="removed, since they overlap a note of their pitch and program from its start",
            shortened_by_overlap="shortened, since the next of their pitch and program starts", lost="lost besides",
            added="added", invalid_events="invalid events", dropped_events="dropped events", segments="segments",
            tokens="tokens", longest="tokens in the longest segment", too_long="segments of more than 1024 tokens",
            worst_onset_error_ms="largest error of an onset, ms")


def report(result: dict, path: Path) -> None:
    "Write the table and print it."
    names = list(result["table"])
    lines = [["", *names], ["---"] + ["---:"]*len(names)]
    lines += [[label, *(f"{result['table'][name][key]:,}" for name in names)] for key, label in ROWS.items()]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    text = f"""# What is lost between notes and tokens

`{result["command"]}`: {result["bank"]}, Python {result["python"]}, {result["cpu_s"]} s of processor time.
Every piece from notes to tokens to notes; what is missing here, no transcriber with this vocabulary can find.

{table}
"""
    write_text(path, text)
    print(text)


if __name__ == "__main__": main()
