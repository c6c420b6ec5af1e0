"""Who wrote the pieces: composers, works and minutes of a piece bank and of what is trained on, and which works are
held out for testing.

    instsep pieces -o data/pieces.npz
    python benchmarks/piece_bank.py --pieces data/pieces.npz

Writes nbs/results/piece_bank.json, which chapter 6 reads.
"""
from instsep.music.pieces import PieceBank
from common import LOGS, PIECES, arguments, write_json

RESULT = LOGS / "piece_bank.json"


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pieces", default=PIECES, help="a piece bank, made by instsep pieces")
    bank = PieceBank.load(parser.parse_args().pieces)
    split = bank.split()
    def counted(pieces):
        "Works and minutes of each composer."
        return {name: dict(works=sum(composer == name for composer, _ in pieces.works),
                           minutes=round(sum(piece.seconds for piece in pieces if piece.composer == name) / 60, 3))
                for name in dict.fromkeys(piece.composer for piece in pieces)}
    composers, training = counted(bank), counted(split["train"])
    held_out = sorted({(piece.composer, piece.work) for piece in split["test"]})
    log = dict(command="python benchmarks/piece_bank.py --pieces data/pieces.npz", bank=repr(bank), composers=composers,
               training=training,
               test_works=[list(work) for work in held_out])
    write_json(RESULT, log, ensure_ascii=False)
    print(f"{RESULT.name}: {bank!r}, {len(composers)} composers, {len(held_out)} works to test on")


if __name__ == "__main__": main()
