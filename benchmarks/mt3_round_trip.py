"""What is lost between notes and tokens: the ceiling of any MT3, over a whole piece bank.

    python benchmarks/mt3_round_trip.py --pieces pieces.npz     # a bank saved by PieceBank.save
    python benchmarks/mt3_round_trip.py                         # makes the bank from music21's corpus (minutes)

Prints a table and writes benchmarks/results/mt3_round_trip.json. Once with a program for each part, as the tokens want
it; once with all parts on one program, where voices that meet on a pitch become one; once with 127 velocities.
"""
import argparse
import json
import platform
import time
from pathlib import Path

from instsep.notes import Note
from instsep.pieces import PieceBank
from instsep.tokens import Codec, round_trip

RESULTS = Path(__file__).parent/"results"/"mt3_round_trip.json"


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=Path, help="a bank (.npz)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    bank = PieceBank.load(options.pieces) if options.pieces else PieceBank.from_music21()
    began = time.process_time()
    table = {"a program for each part": ceiling(bank), "all parts on one program": ceiling(bank, one_program=True),
             "a program for each part, 127 velocities": ceiling(bank, codec=Codec(velocity_bins=127))}
    result = dict(command="python benchmarks/mt3_round_trip.py --pieces pieces.npz", bank=repr(bank),
                  python=platform.python_version(), cpu_s=round(time.process_time() - began, 1), table=table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(bank)
    for name, row in table.items():
        print(f"\n{name}", *(f"  {key:22} {value:>10}" for key, value in row.items()), sep="\n")


if __name__ == "__main__": main()
