"""What does fine-tuning do to a small MT3, and what does freezing? The paper's open question, within small budgets.

    python benchmarks/mt3_training.py --bank bank.safetensors --pieces data/pieces.npz

Pretrains `mt3-tiny` on mixtures of clarinet, guitar and piano, then fine-tunes it on the paper's octave set in
several ways, each from the same weights, for the same processor time, on the same validation segments: everything
trained, the encoder frozen, all frozen but the last decoder layer, LoRA, and everything trained on more data. Each is
stopped by the clock, not by its loss; with `--paper`, everything is trained once more for the paper's 50 epochs.

With a GPU all of it is done there; `--clock wall` then makes minutes of it minutes, and `--workers` make the segments.

Goes on where it stopped when it is run again. Checkpoints go to --work; each run's log to
nbs/results/<name>/<run>, the table to benchmarks/results/<name>.{json,md}; <name> is mt3_training unless --name says
otherwise.
"""
import copy
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from instsep.metrics import format_table
from instsep.mt3 import MT3, load_mt3
from instsep.training.mt3 import (HOP, PRESETS, SegmentCache, Shuffled, SAMPLE_RATE, SEGMENT_FRAMES, MT3Module,
                                  MT3TrainConfig, best_network,
                                  collate, config_of, fit, octave_data, pretraining_data, read_log, save_network,
                                  segment_scores, time_tokens_as_positions)
from instsep.sound.notebank import NoteBank
from instsep.music.pieces import PieceBank
from common import arguments, read_json, write_json, write_text
from common import LOGS as ALL_LOGS, RESULTS, processor as processor_name

LOGS, TABLE = ALL_LOGS/"mt3_training", RESULTS/"mt3_training"  # see --name
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAST = "encoder,embeddings,decoder:0-{}"  # the last decoder layer, the norm behind it and the head are left
WAYS = {  # name: (what to change in the run, train on more data?)
    "everything": (dict(), False),
    "encoder frozen": (dict(freeze="encoder"), False),
    "last decoder layer": (dict(freeze=LAST), False),
    "lora": (dict(lora=8), False),
    "more data": (dict(), True),
}


def folder_of(name: str) -> str: return name.replace(" ", "_").replace(",", "")


def processor() -> str:
    "What does the work, in words."
    if DEVICE == "cuda": return f"One {torch.cuda.get_device_name()}"
    return f"One core of an {processor_name()}"


def once(name: str, work: Path, network: MT3, plan: MT3TrainConfig, data, about: dict) -> tuple[dict, MT3]:
    "One run, if it is not finished yet: its row of the table, and the network when it was best."
    folder = work/folder_of(name)
    if (folder/"row.json").is_file(): return read_json(folder/"row.json"), load_mt3(folder)
    dataset, valid = data()
    if about["kept"]:
        inner = dataset.dataset if isinstance(dataset, Shuffled) else dataset
        dataset = SegmentCache(inner, min(about["kept"], len(inner)), workers=plan.workers, device=DEVICE)
        plan = replace(plan, workers=0)
    print(f"{name}: {plan.minutes:g} minutes" if plan.minutes else f"{name}: {plan.steps} steps", flush=True)
    module = MT3Module(copy.deepcopy(network), plan)
    result = fit(module, dataset, valid, folder/"run", progress=sys.stderr.isatty())
    if result["stopped"]: raise KeyboardInterrupt
    best = best_network(module, folder/"run")
    if about["kept"]:
        dataset.stop()
        result["segments_made"] = dataset.ready
    heard = result["steps"]*plan.batch*plan.accumulate*SEGMENT_FRAMES*HOP/SAMPLE_RATE/3600
    row = dict(result, learning_rate=plan.learning_rate, hours_heard=heard,
               **segment_scores(best.to(DEVICE), valid, batch=48))
    save_network(best.cpu(), folder)
    log = LOGS/folder.name
    log.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder/"run/log.csv", log/"log.csv")
    settings = read_json(folder/"run/config.json")
    write_json(log/"run.json", dict(about, run=name, train=asdict(plan), config=settings["config"],
                                    versions=settings["versions"], result=row))
    write_json(folder/"row.json", row)
    return row, best


def note(rows: list[dict]) -> str:
    "Is the loss still falling at the end, or has it been rising?"
    if len(rows) < 2: return "looked at once"
    best = min(rows, key=lambda row: row["valid_loss"])
    if best is rows[-1]: return "still falling"
    return f"rose by {rows[-1]['valid_loss'] - best['valid_loss']:.3f} after it"


def table_row(name: str, row: dict) -> dict:
    rows = read_log(LOGS/folder_of(name))
    return {"run": name, "learning rate": f"{row['learning_rate']:g}", "trained weights": row["trainable"],
            "steps": row["steps"], "CPU s" if DEVICE == "cpu"
            else "s": round(row["cpu_seconds" if DEVICE == "cpu" else "seconds"]),
            "sound, h": f"{row['hours_heard']:.2f}",
            "first valid. loss": f"{rows[0]['valid_loss']:.3f}",
            "min. train loss": f"{row['train_loss']:.3f}", "min. valid. loss": f"{row['valid_loss']:.3f}",
            "at epoch": f"{row['best_epoch']:.2g} of {row['epochs']:.2g}", "validation": note(rows),
            "onset F1": f"{row['onset_f1']:.3f}", "by instrument": f"{row['instrument_onset_f1']:.3f}"}


def main():
    global LOGS, TABLE
    parser = arguments(__doc__)
    parser.add_argument("--bank", required=True, help="a note bank with clarinets, guitars and pianos")
    parser.add_argument("--pieces", required=True, help="a piece bank")
    parser.add_argument("--network", default="mt3-tiny")
    parser.add_argument("--pretrain-minutes", type=float, default=25, help="see --clock")
    parser.add_argument("--minutes", type=float, default=2, help="for each way of fine-tuning")
    parser.add_argument("--learning-rates", default="2e-5,2e-4", help="of fine-tuning: the paper's, and ten times that")
    parser.add_argument("--plain-minutes", type=float, default=0, help="pretraining without what "
                        "weight of the auxiliary loss, beside the other; 0: none")
    parser.add_argument("--paper", action="store_true",
                        help="fine-tune everything once for the paper's 50 epochs of 50 "
                        "batches, too, however long it takes")
    parser.add_argument("--pretrain-learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8, help="of pretraining")
    parser.add_argument("--valid", type=int, default=48, help="validation segments of fine-tuning")
    parser.add_argument("--bf16", action="store_true", help="products in 16 bits; some CPUs gain by it")
    parser.add_argument("--clock", default="cpu", choices=["cpu", "wall"],
                        help="what minutes are counted by: processor time, "
                        "which is fair on a shared machine, or time")
    parser.add_argument("--workers", type=int, default=0, help="processes that make segments")
    parser.add_argument("--keep", type=int, default=0,
                        help="so many segments at most are made, by the workers, while the network "
                        "learns, and each is used many times (`SegmentCache`); 0: each is made when it is needed, and "
                        "used once")
    parser.add_argument("--name", default=TABLE.name, help="of the table and the folder of logs")
    parser.add_argument("--work", type=Path, default=Path("runs/mt3_training"), help="for checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(1)
    LOGS, TABLE = LOGS.with_name(args.name), TABLE.with_name(args.name)
    bank, pieces = NoteBank.load(args.bank), PieceBank.load(args.pieces)
    command = ["python benchmarks/mt3_training.py --bank BANK --pieces PIECES"]
    hidden = "bank", "pieces", "work", "bf16", "paper"
    command += [f"--{name.replace('_', '-')} {value}" for name, value in vars(args).items() if name not in hidden]
    command = " ".join(command + ["--bf16"]*args.bf16 + ["--paper"]*args.paper)
    about = dict(command=command, kept=args.keep, processor=processor(), bank=repr(bank), pieces=repr(pieces))
    common, config, rows = (dict(bf16=True if args.bf16 else None, clock=args.clock, workers=args.workers, seed=0),
                            config_of(args.network), {})

    torch.manual_seed(0)
    settings = dict(steps=10**6, batch=args.batch, epoch=100, learning_rate=args.pretrain_learning_rate, **common)
    if args.plain_minutes:
        plan = MT3TrainConfig(minutes=args.plain_minutes, **settings)
        rows["pretraining, plain"], _ = once("pretraining, plain", args.work, MT3(config), plan,
                                             lambda: pretraining_data(pieces, bank, config), about)
    torch.manual_seed(0)
    plan = MT3TrainConfig(minutes=args.pretrain_minutes, **settings, **PRESETS["pretrain"])
    rows["pretraining"], network = once("pretraining", args.work, time_tokens_as_positions(MT3(config)), plan,
                                        lambda: pretraining_data(pieces, bank, config, thin=0.5, frames=True), about)
    valid = octave_data(pieces, bank, config, valid=args.valid)[1]
    with torch.inference_mode(): loss = network(**collate(valid)).loss.item()
    before = dict(valid_loss=loss, **segment_scores(network.to(DEVICE), valid, batch=48))
    network.cpu()
    for rate in args.learning_rates.split(","):
        for way, (changes, more) in WAYS.items():
            budget = dict(minutes=args.minutes, learning_rate=float(rate))
            plan = MT3TrainConfig(**PRESETS["finetune"] | budget | common | changes)
            plan.freeze, name = plan.freeze.format(config.num_decoder_layers - 2), f"{way} {rate}"
            rows[name] = once(name, args.work, network, plan, lambda: octave_data(
                pieces, bank, config, more=more, valid=args.valid), about)[0]
            finish(rows, before, about)
    if args.paper:
        name, plan = "everything 2e-5, all 50 epochs", MT3TrainConfig(**PRESETS["finetune"] | common)
        rows[name] = once(name, args.work, network, plan, lambda: octave_data(pieces, bank, config, valid=args.valid),
                          about)[0]
        finish(rows, before, about)


def finish(rows: dict, before: dict, about: dict) -> None:
    "Write the table as far as it goes."
    write_json(TABLE.with_suffix(".json"), dict(about, before_fine_tuning=before, rows=rows))
    lines = [f"# MT3 trained on {'one processor core' if DEVICE == 'cpu' else 'a GPU'}, and fine-tuned in five ways",
             "", f"`{about['command']}`", "",
             f"{about['processor']}; {about['pieces']}; {about['bank']}. Validation losses of the first "
             "row are of mixtures of all kinds, those of the others of the octave set's two held-out pieces, and the "
             "two cannot be compared. Losses are in nats per token; an epoch is 100 steps in pretraining and 50 in "
             "fine-tuning; onset F1 is that of the network with the lowest validation loss on the validation segments, "
             "of any instrument and of the right one. Before fine-tuning, on the octave set, the validation loss is "
             f"{before['valid_loss']:.3f} and onset F1 {before['onset_f1']:.3f}, {before['instrument_onset_f1']:.3f} "
             "by the right instrument.", "",
             format_table([table_row(name, row) for name, row in rows.items()]), ""]
    best = max(row["onset_f1"] for row in rows.values())
    if best < 0.2:
        lines += [f"No network here transcribes well: onset F1 is {best:.2f} at best. So the table shows what a loss "
                  "does in so little time, not which way leads to the best transcriber.", ""]
    write_text(TABLE.with_suffix(".md"), "\n".join(lines))


if __name__ == "__main__":
    try: main()
    except KeyboardInterrupt: sys.exit("stopped; the same command goes on from there")
