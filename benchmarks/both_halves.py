"""What separator and transcriber give each other: notes of stems, masks conditioned on notes, instruments detected
by their stems.

    OMP_NUM_THREADS=1 python benchmarks/both_halves.py --recordings ../shared/reference/recordings

Tried are, for notes: the stems transcribed instead of the mixture; both (the mean of the posteriors); only
instruments whose stem is not much softer than the mixture; only notes whose instrument has a share of the masks; notes
assigned to instruments by that share. For stems: masks turned down wherever no note of an instrument has a partial,
by notes that were picked, by the probabilities they were picked from, and, as a bound, by the true ones. How far
masks are turned down and how large a share must be is decided on mixtures of validation pieces, so that the other
sets only confirm or do not. Results go to benchmarks/results/both_halves.json and .md.
"""
import math
from pathlib import Path

import numpy as np
import torch

from instsep.sound.audio import mono_blocks
from instsep.inference.registry import DEFAULT_TRANSCRIBER
from instsep.frames import LOWEST_PITCH, PITCHES, FrameTranscriber, pick_notes
from instsep.inference.windows import masks_in_windows
from instsep.metrics import format_table, leakage_db, note_scores, si_sdr
from instsep.mixtures import DEFAULT_AUGMENTATION, DRY
from instsep.music.notes import Note
from instsep.music.pieces import PieceBank
from instsep.separator import Separator, SeparatorConfig
from instsep.sound.spectral import istft
from common import (PIECES, RECORDINGS, RESULTS, SEEN_SOUNDFONT, TRIOS, arguments, soundfonts, test_soundfonts,
                    write_results)
from transcription import PROGRAM, RATE, SHORT, Item, _over, family, pooled, recorded_items, scores, soundfont_items

DECIBELS, SHARES, TRUST, AUDIBLE_DB = (3, 6, 12, 20), (0.05, 0.1, 0.2), (0.25, 0.5, 1.0), -25.0
VALIDATION = "validation"
MEASURES = ("onset_f1", "multi_instrument_onset_f1", "multi_instrument_f1")


# ---- pure functions, which could stand in the package as they are

def partials(config: SeparatorConfig) -> torch.Tensor:  # bool (pitches, bins)
    "Where each pitch has its partials: half a semitone to either side, a bin at least."
    bins = torch.arange(config.n_fft // 2 + 1)
    pitch = torch.arange(LOWEST_PITCH, LOWEST_PITCH + PITCHES)
    first = 440 * 2 ** ((pitch - 69) / 12)[:, None] * config.n_fft / config.sample_rate       # in bins, (pitches, 1)
    # (pitches, bins), the nearest partial
    order = (bins / first).round().clamp_min(1)
    width = (order * first * (2 ** (1 / 24) - 1)).clamp_min(1.0)
    return (bins - order * first).abs() <= width


def played(
    notes: list[Note],
    programs: list[int],   # of each instrument
    frames: int,
    frame_rate: float,     # frames per second
    *,
    before: float = 0.05,  # s that a note may sound before its onset
    after: float = 0.3,    # s that it may ring on
) -> torch.Tensor:         # (instruments, pitches, frames), 1 where it may sound
    "The notes as what each instrument may be playing when."
    roll = torch.zeros(len(programs), PITCHES, frames)
    for note in notes:
        if note.program not in programs or not 0 <= note.pitch - LOWEST_PITCH < PITCHES: continue
        first, last = (max(0, math.floor((note.onset - before) * frame_rate)),
                       math.ceil((note.offset + after) * frame_rate))
        roll[programs.index(note.program), note.pitch - LOWEST_PITCH, first:last + 1] = 1
    return roll


def lengthened(
    probability: torch.Tensor,  # (instruments, pitches, frames)
    frame_rate: float,          # frames per second
    *,
    before: float = 0.05,       # s
    after: float = 0.3,         # s
) -> torch.Tensor:              # (instruments, pitches, frames)
    "The largest probability from `after` seconds earlier to `before` seconds later."
    early, late = round(after * frame_rate), round(before * frame_rate)
    return torch.nn.functional.max_pool1d(torch.nn.functional.pad(probability, (early, late)), early + late + 1, 1)


def reached(
    activity: torch.Tensor,  # (instruments, pitches, frames), 0 to 1
    comb: torch.Tensor,      # bool (pitches, bins)
) -> torch.Tensor:           # (instruments, bins, frames), 0 to 1
    "How sure it is that some note of an instrument has a partial there."
    out = activity.new_zeros(activity.shape[0], comb.shape[1], activity.shape[2])
    for pitch in torch.nonzero(activity.amax((0, 2)) > 1e-3).flatten():
        bins = torch.nonzero(comb[pitch]).flatten()
        out[:, bins] = torch.maximum(out[:, bins], activity[:, pitch, None])
    return out


def informed_masks(
    masks: torch.Tensor,   # (instruments and residual, bins, frames), which add up to 1
    reach: torch.Tensor,   # (instruments, bins, frames), 0 to 1
    decibels: float,       # by which a mask is turned down where no note of its instrument is
) -> torch.Tensor:         # as `masks`, which add up to 1
    """Masks conditioned on notes: what one instrument loses goes to those that have a note there; where none has,
    nothing changes."""
    floor = 10 ** (-decibels / 20)
    weight = floor + (1 - floor) * reach
    new = masks * torch.cat([weight, weight.amax(0, keepdim=True)])              # the residual is as free as the freest
    return new / new.sum(0, keepdim=True).clamp_min(1e-12)


def granted(
    masks: torch.Tensor,     # (instruments and residual, bins, frames)
    power: torch.Tensor,     # (bins, frames), of the mixture
    comb: torch.Tensor,      # bool (pitches, bins)
    frame_rate: float,       # frames per second
    *,
    seconds: float = 0.2,    # that sound from a frame on
    highest: int = 400,      # bins looked at
) -> torch.Tensor:           # (instruments, pitches, frames), 0 to 1
    "The share of the sound at a pitch's partials, from a frame on, that the separator grants each instrument."
    comb, size = comb[:, :highest].float(), max(1, round(seconds * frame_rate))
    after = lambda x: torch.nn.functional.avg_pool1d(torch.nn.functional.pad(x, (0, size - 1)), size, 1)
    whole = after((comb @ power[:highest])[None])                               # (1, pitches, frames)
    return after(comb @ (masks[:-1, :highest] * power[:highest])) / whole.clamp_min(1e-12)


def shared_out(
    probability: np.ndarray,  # (kinds, instruments, pitches, frames), the transcriber's posteriors
    share: np.ndarray,        # (instruments, pitches, frames), what the separator grants
    trust: float,             # in the separator: 0, none
    # exponent of the transcriber's own posteriors over instruments; above 1 they are sharpened
    own: float = 1.0,
) -> np.ndarray:              # as `probability`
    "Onsets and frames shared by the separator's masks at their partials; their sum over instruments stays what it was."
    out = probability.copy()
    for kind in (0, 1):
        wish = probability[kind] ** own * np.maximum(share, 1e-4) ** trust       # (instruments, pitches, frames)
        out[kind] = np.minimum(wish * (probability[kind].sum(0) / np.maximum(wish.sum(0), 1e-12)), 1)
    return out


def audible_instruments(
    stems: np.ndarray,       # (instruments, samples)
    mixture: np.ndarray,     # (samples,)
    decibels: float = AUDIBLE_DB,  # below the mixture
) -> list[int]:              # which
    "Instruments whose stem is not much softer than the mixture."
    return [k for k, stem in enumerate(stems) if leakage_db(stem, mixture) > decibels]


# ---- measured

def posteriors_of(
    transcriber: FrameTranscriber, waveform: np.ndarray,
) -> np.ndarray:  # (samples,) -> (kinds, instruments, pitches, frames)
    blocks, _ = mono_blocks(waveform, RATE, transcriber.network.config.sample_rate)
    return np.concatenate(list(transcriber.probabilities(blocks)), -1)


def pick(transcriber: FrameTranscriber, probability: np.ndarray) -> list[Note]:
    names = transcriber.network.config.instruments
    notes, who, _ = pick_notes(probability, transcriber.network.frame_rate, config=transcriber.pick)
    return [Note(on, off, int(pitch), int(loud), PROGRAM[names[k]])
            for k, (on, off, pitch, loud) in zip(who, notes.tolist())]


@torch.inference_mode()
def try_all(item: Item, separator: Separator, transcriber: FrameTranscriber,
            comb: torch.Tensor) -> tuple[dict, list[dict]]:
    "Notes by every way to get them; a row for every stem and way to get it."
    names, config = separator.config.instruments, separator.config
    programs, rate = [PROGRAM[name] for name in names], config.sample_rate / config.hop
    mixture = torch.from_numpy(item.mixture[0]).float()
    spec = separator.spectrogram(mixture[None])                                 # (1, bins, frames)
    masks = masks_in_windows(separator, spec[None])[0]                          # (stems, bins, frames)
    back = lambda m: istft(m * spec * (config.n_fft / 2), config.n_fft, config.hop, len(mixture)).numpy()
    plain = back(masks)                                                         # (stems, samples)

    posteriors = posteriors_of(transcriber, item.mixture[0])                    # (kinds, instruments, pitches, frames)
    of_stems = np.stack([posteriors_of(transcriber, plain[k])[:, k] for k in range(len(names))], 1)
    picked = pick(transcriber, posteriors)
    sounding = [programs[k] for k in audible_instruments(plain[:-1], item.mixture[0])]
    frames, theirs = posteriors.shape[-1], masks.shape[-1]                      # the same where both hop alike
    pace = transcriber.network.frame_rate
    near = lambda count, ratio, last: (torch.arange(count) * ratio).round().long().clamp(max=last - 1)
    share = granted(masks, spec[0].abs().square(), comb, rate)[..., near(frames, rate / pace, theirs)].numpy()
    of_note = [share[programs.index(note.program), note.pitch - LOWEST_PITCH, min(round(note.onset * pace), frames - 1)]
               for note in picked]
    notes = {"mixture": picked, "stems": pick(transcriber, of_stems),
             "mean of both": pick(transcriber, (posteriors + of_stems) / 2),
             "geometric mean of both": pick(transcriber, np.sqrt(posteriors * of_stems)),
             f"instruments whose stem is above {AUDIBLE_DB:g} dB": [note for note in picked
                                                                    if note.program in sounding]}
    notes |= {f"notes with a share of {least:g}": [n for n, s in zip(picked, of_note) if s >= least]
              for least in SHARES}
    shares = {trust: shared_out(posteriors, share, trust) for trust in TRUST}
    notes |= {f"shared out, trust {trust:g}": pick(transcriber, given) for trust, given in shares.items()}
    notes |= {f"sharpened, trust {trust:g}": pick(transcriber, shared_out(posteriors, share, trust, 2.0))
              for trust in (0.0, 0.25, 0.5)}

    at = near(theirs, pace / rate, frames)
    # (instruments, pitches, frames)
    soft = lambda given: lengthened(torch.from_numpy(given[1]), pace)[..., at].sqrt()
    ways = {"picked notes": played(picked, programs, theirs, rate), "probabilities": soft(posteriors),
            "probabilities, shared out": soft(shares[0.5]), "true notes": played(item.notes, programs, theirs, rate)}
    stems = {"plain": plain}
    for way, activity in ways.items():
        reach = reached(activity, comb)
        stems |= {f"{way}, {decibels} dB": back(informed_masks(masks, reach, decibels)[:-1]) for decibels in DECIBELS}
    rows, sounding = [], sum(stem.any() for stem in item.stems.values())
    for k, name in enumerate(names):
        truth = item.stems.get(name, np.zeros_like(item.mixture))[0]
        before = si_sdr(item.mixture[0], truth) if truth.any() and sounding > 1 else math.nan
        for way, found in stems.items():
            rows.append(dict(set=item.set, item=item.name, stem=name, way=way,
                             improvement=si_sdr(found[k], truth) - before if truth.any() else math.nan,
                             leakage=math.nan if truth.any() else leakage_db(found[k], item.mixture[0])))
    return notes, rows


def compared(values: list[float], plain: list[float]) -> dict[str, float]:
    "Mean and median difference, its standard error, and how often it is above zero."
    gains = np.array([a - b for a, b in zip(values, plain) if not math.isnan(a - b)])
    if not len(gains): return dict(mean=math.nan, median=math.nan, error=math.nan, better="–")
    return dict(mean=float(gains.mean()), median=float(np.median(gains)),
                error=float(gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else math.nan,
                better=f"{int((gains > 1e-9).sum())} of {len(gains)}")


def note_table(answers: list[dict]) -> list[dict]:
    table = []
    for label in dict.fromkeys(a["set"] for a in answers):
        own_rows = [a for a in answers if a["set"] == label]
        first = [a for a in own_rows if a["system"] == "mixture"]
        for way in dict.fromkeys(a["system"] for a in own_rows):
            these = [a for a in own_rows if a["system"] == way]
            truth, found = pooled(these)
            together = scores(dict(truth=truth, found=found, system=way))
            gain = compared(*([a["scores"]["multi_instrument_onset_f1"] for a in part] for part in (these, first)))
            table.append({"set": label, "notes from": way, "items": len(these), "notes": len(truth)}
                         | {SHORT[key]: together[key] for key in (*MEASURES, "instrument_leakage")}
                         | {"gain per item": gain["mean"], "standard error": gain["error"],
                            "better in": gain["better"]})
    return table


def stem_table(rows: list[dict]) -> list[dict]:
    table = []
    for label in dict.fromkeys(r["set"] for r in rows):
        own_rows = [r for r in rows if r["set"] == label]
        first = [r for r in own_rows if r["way"] == "plain"]
        for way in dict.fromkeys(r["way"] for r in own_rows):
            these = [r for r in own_rows if r["way"] == way]
            values, plain = ([r["improvement"] for r in part] for part in (these, first))
            gain = compared(values, plain)
            table.append({"set": label, "masks": way, "stems": sum(not math.isnan(v) for v in values),
                          "SI-SDR improvement, mean": _over(values, np.mean),
                          "median": _over(values, np.median), "gain, mean": gain["mean"],
                          "gain, median": gain["median"],
                          "standard error": gain["error"], "better in": gain["better"],
                          "leakage when absent": _over([r["leakage"] for r in these], np.mean)})
    return table


def chosen(notes: list[dict], stems: list[dict]) -> list[dict]:
    "What validation mixtures decide, and what it gives on every set."
    best_note = max((r for r in notes if r["set"] == VALIDATION),
                    key=lambda r: r["multi-instrument onset F1"])["notes from"]
    best_stem = max((r for r in stems if r["set"] == VALIDATION and not r["masks"].startswith("true")),
                    key=lambda r: r["SI-SDR improvement, mean"])["masks"]
    out = []
    for label in dict.fromkeys(r["set"] for r in notes):
        note, base = (next(r for r in notes if (r["set"], r["notes from"]) == (label, way))
                      for way in (best_note, "mixture"))
        stem = next((r for r in stems if (r["set"], r["masks"]) == (label, best_stem)), None)
        out.append({"set": label, "notes from": best_note,
                    "multi-instrument onset F1, mixture": base["multi-instrument onset F1"],
                    "with it": note["multi-instrument onset F1"], "masks": best_stem,
                    "SI-SDR gain, mean": stem["gain, mean"],
                    "SI-SDR gain, median": stem["gain, median"], "better in": stem["better in"]})
    return out


def main():
    parser = arguments(__doc__)
    parser.add_argument("--model", default=DEFAULT_TRANSCRIBER)
    parser.add_argument("--separator", default="trio")
    parser.add_argument("--pieces", default=PIECES, help="a piece bank, made by instsep pieces")
    parser.add_argument("--recordings", default=RECORDINGS)
    parser.add_argument("--count", type=int, default=20, help="mixtures per soundfont")
    parser.add_argument("--name", default="both_halves", help="of the result")
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    separator, transcriber = Separator.from_pretrained(args.separator), FrameTranscriber.from_pretrained(args.model)
    if set(separator.config.instruments) - set(transcriber.network.config.instruments):
        raise SystemExit("the two have different instruments")
    split, fonts, folder = PieceBank.load(args.pieces).split(), soundfonts(), Path(args.recordings)
    comb, answers, rows = partials(separator.config), [], []
    def items():
        for seed, augmentation in ((200, DRY), (201, DEFAULT_AUGMENTATION)):
            yield from soundfont_items(VALIDATION, fonts[SEEN_SOUNDFONT], split["valid"], args.count // 2, seed=seed,
                                       augmentation=augmentation)
        for label, font in test_soundfonts(): yield from soundfont_items(label, font, split["test"], args.count)
        yield from recorded_items("recordings", folder, TRIOS)
    for item in items():
        found, stems = try_all(item, separator, transcriber, comb)
        rows += stems
        for way, notes in found.items():
            answers.append(dict(set=item.set, item=item.name, system=way, truth=item.notes, found=notes,
                                scores=note_scores(item.notes, notes, granularity=family)))
    notes, stems = note_table(answers), stem_table(rows)
    decided = chosen(notes, stems)
    text = (f"# Both halves together\n\n`OMP_NUM_THREADS=1 python benchmarks/both_halves.py --model {args.model} "
            f"--separator {args.separator} --count {args.count}`\n\n{args.count} mixtures of 8 s for each soundfont, "
            f"and R01 to R04. Validation: pieces of the validation split, played by {SEEN_SOUNDFONT}, half of them dry "
            "and half with the rooms, tone controls and noise of training; what is best there is what is chosen:\n\n"
            + format_table(decided, digits=3)
            + "\n\nNotes, all of a set together; the gain in multi-instrument onset F1 over transcribing the mixture "
            "is a mean over items. A share: the instrument's part of the separator's masks at a note's partials in its "
            "first 0.2 s. Shared out: the posteriors of a pitch, shared among the instruments by these shares to the "
            "power of the trust, the sum over instruments kept; sharpened: the same, with the square of each posterior "
            "(trust 0: the masks have no effect).\n\n" + format_table(notes, digits=3)
            + "\n\nStems: masks of the separator turned down, by so many decibels, where no note of the instrument has "
            "a partial (half a semitone to either side, from 50 ms before the onset to 0.3 s after the offset); the "
            "true notes are a bound that no transcriber passes. Probabilities: their roots. The gain is over the plain "
            "masks, stem by stem:\n\n" + format_table(stems, digits=2) + "\n")
    single = [{key: a[key] for key in ("set", "item", "system")}
              | {key: a["scores"][key] for key in (*MEASURES, "instrument_leakage")} for a in answers]
    write_results(Path(args.out) / args.name, text, dict(model=args.model, separator=args.separator, count=args.count,
                                                         thresholds=vars(transcriber.pick),
           chosen=decided, notes=notes, stems=stems, note_items=single, stem_items=rows))


if __name__ == "__main__": main()
